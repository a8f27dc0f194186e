"""The Swin framework's protocol: its rows and commands, how steps resume and stop, what is read from the results."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

import cli
from benchmarks import swin_framework
from benchmarks.framework import report
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import MODELS, ORDER, STUDENTS, TABLES, rows_of
from benchmarks.framework.setting import Setting
from benchmarks.framework.steps import Step, StepError, StepFolder
from logitstore.errors import InputError, LogitStoreError, MismatchError

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("round", "square", "striped", "plain")


def make_npz(path: Path, count: int, seed: int) -> Path:
    """Pictures of four classes that differ in colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = rng.integers(0, 80, (count, 32, 32, 3), np.uint8)
    images[..., 0] += (50 * labels).astype(np.uint8)[:, None, None]
    np.savez(path, images=images, labels=labels, label_names=np.array(CLASSES))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pictures")
    train, test = make_npz(folder / "train.npz", 64, 0), make_npz(folder / "test.npz", 20, 1)
    return {"data": str(train), "val_data": str(test)}


def in_this_process(step: Step, seconds: float | None, lock: IO[str]) -> tuple[int, str]:
    """What a process of its own would do, without the seconds that it takes to start."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.main.main([*step.words, "--json"], prog_name="logitstore", standalone_mode=False)
    return code or 0, output.getvalue()


# Rows and commands


def test_the_papers_rows_are_all_there() -> None:
    rows = rows_of(TABLES, STUDENTS)
    counts = {table: sum(row.table == table for row in rows) for table in TABLES}
    assert counts == {"IX": 8, "IV": 24, "V": 2, "VI": 3, "VII": 8, "X": 0}
    best = {(row.table, row.variant.student): row.paper for row in sorted(rows, key=lambda row: row.paper)}
    assert best["IX", "swin_n"] == 85.21 and best["IX", "swin_m"] == 87.14
    assert best["IV", "swin_n"] == 71.74 and best["VI", "swin_n"] == 75.43 and best["VII", "swin_n"] == 76.13


def test_rows_share_a_training_only_where_it_is_the_same() -> None:
    names: dict[str, Any] = {}
    for row in rows_of(TABLES, STUDENTS):
        assert names.setdefault(row.variant.name, row.variant) == row.variant
    assert len(names) == 8 + 24 + 2 + 3 + 7  # Table VII's best weights are Table IX's


def test_every_command_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    setting = Setting(
        tables=TABLES, seeds=(0, 1), shared_store=True, freeze_copied=True, pretrain_data="digits", workers=1,
        device="cpu", dtype="float32", out=tmp_path,
    )  # fmt: skip
    steps = Protocol.of(setting).steps
    for step in steps.values():
        command = cli.main.commands[step.words[0]]
        command.make_context(step.words[0], list(step.words[1:]), resilient_parsing=False)
    kinds = [step.words[0] for step in steps.values()]
    assert kinds.count("dump") == 3 and kinds.count("models") == 1  # one store for each teacher
    assert kinds.count("train") == 2 * 3 + 2 * 44  # pre-training and fine-tuning of three teachers, students


def test_nothing_is_needed_before_it_is_made(tmp_path: Path) -> None:
    protocol = Protocol.of(Setting(tables=("IX", "IV"), seeds=(0, 1), out=tmp_path))
    made: set[str] = set()
    for step in protocol.steps.values():
        needed = [word for option, word in zip(step.words, step.words[1:], strict=False)
                  if option in ("--init-from", "--checkpoint") or (option == "--store" and step.words[0] == "train")]
        assert {Path(path).name for path in needed} <= made, step.name
        made.add(step.name)
    assert len([name for name in made if name.startswith("store-")]) == 6  # each seed has its own views


def test_the_four_rows_differ_in_start_and_loss_alone(tmp_path: Path) -> None:
    steps = Protocol.of(Setting(students=("swin_n",), out=tmp_path)).steps
    scratch, distilled, copied, both = (steps[f"{row.variant.name}-seed0"] for row in rows_of(("IX",), ("swin_n",)))
    for step in (scratch, copied):
        assert "--hard-labels-only" in step.words and "--store" not in step.words
    for step in (distilled, both):
        assert "--hard-labels-only" not in step.words and "harmonic" in step.words and "13:1" in step.words
    assert [("--init-from" in step.words) for step in (scratch, distilled, copied, both)] == [False, False, True, True]
    common = {"--epochs", "4", "--recipe", "swin_framework", "--batch-size", "64", "--size", "32", "--seed", "0"}
    assert all(common <= set(step.words) for step in (scratch, distilled, copied, both))


def test_half_the_epochs_come_from_the_same_store(tmp_path: Path) -> None:
    steps = Protocol.of(Setting(tables=("IX", "IV"), students=("swin_n",), epochs=10, out=tmp_path)).steps
    half = steps["swin_n-alpha0.25-half-seed0"].words
    assert half[half.index("--epochs") + 1] == "5"
    assert str(tmp_path / "store-swin_t-seed0") in half
    other = steps["swin_n-alpha0.25-half-from-swin_b-seed0"].words
    assert str(tmp_path / "store-swin_b-seed0") in other


def test_a_given_teacher_is_measured_and_not_trained(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    setting = Setting(teacher_checkpoints=(("swin_t", str(file)),), students=("swin_n",), out=tmp_path)
    steps = Protocol.of(setting).steps
    assert steps["teacher-swin_t"].words[:3] == ("eval", "--checkpoint", str(file))
    assert str(file) in steps["swin_n-copied-labels-seed0"].words
    with pytest.raises(InputError, match="no file of weights"):
        setting.inputs()


def test_elsewhere_than_on_digits_the_teacher_is_pretrained(data: dict[str, str], tmp_path: Path) -> None:
    steps = Protocol.of(Setting(**data, out=tmp_path)).steps  # type: ignore[arg-type]
    assert list(steps)[:2] == ["fetch-swin_t", "teacher-swin_t"]
    assert str(tmp_path / "swin_t-pretrained.safetensors") in steps["teacher-swin_t"].words
    assert "--base-lr" not in steps["teacher-swin_t"].words and "60" in steps["teacher-swin_t"].words
    assert steps["store-swin_t-seed0"].words[steps["store-swin_t-seed0"].words.index("--topk") + 1] == "4"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"tables": ("IX", "XI")}, "--rows takes IX, IV"),
        ({"students": ("swin_x",)}, "--students takes"),
        ({"seeds": (1, 1)}, "different seeds"),
        ({"pretrain_data": "digits", "teacher_init": "random"}, "leave one"),
        ({"data": "nowhere.npz"}, "nowhere"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LogitStoreError, match=message):
        Setting(**values)


def test_flags_keep_the_settings_defaults() -> None:
    args = swin_framework.parser().parse_args([])
    assert swin_framework.setting_of(args) == Setting()
    args = swin_framework.parser().parse_args(
        ["--quick", "--seeds", "0,3", "--rows", "all", "--teacher-checkpoint", "a", "--teacher-checkpoint", "swin_b=b"]
    )
    setting = swin_framework.setting_of(args)
    assert setting.seeds == (0, 3) and setting.tables == TABLES and setting.subset == 96
    assert setting.teacher_checkpoints == (("swin_t", "a"), ("swin_b", "b"))


# Steps


class FakeLaunch:
    """Gives what it is told to, and remembers what was run."""

    def __init__(self, *outcomes: tuple[int, str]) -> None:
        self.outcomes = list(outcomes)
        self.ran: list[str] = []

    def __call__(self, step: Step, seconds: float | None, lock: IO[str]) -> tuple[int, str]:
        self.ran.append(step.name)
        return self.outcomes.pop(0)


ONE, TWO = Step(name="one", words=("train", "--seed", "1")), Step(name="two", words=("train", "--seed", "2"))


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    launch = FakeLaunch((0, '{"top1": 0.5}'), (0, '{"top1": 0.25}'))
    with StepFolder(tmp_path, launch) as folder:
        assert folder.run(ONE, None) == {"top1": 0.5}
    with StepFolder(tmp_path, launch) as folder:
        assert [folder.run(step, None) for step in (ONE, TWO)] == [{"top1": 0.5}, {"top1": 0.25}]
    assert launch.ran == ["one", "two"]
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["command"] == "logitstore train --seed 1"


def test_what_only_an_unfinished_step_needs_is_removed(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    step = Step(name="one", words=("train",), leavings=(checkpoint,))
    checkpoint.touch()
    with StepFolder(tmp_path, FakeLaunch((143, ""), (0, "{}"))) as folder:
        assert folder.run(step, None) is None and checkpoint.exists()
        assert folder.run(step, None) == {} and not checkpoint.exists()


@pytest.mark.parametrize(("code", "message"), [(2, "exit code 2"), (-9, "killed by signal 9")])
def test_a_step_that_fails_ends_the_run_and_can_be_repeated(tmp_path: Path, code: int, message: str) -> None:
    with StepFolder(tmp_path, FakeLaunch((code, ""), (0, "{}"))) as folder:
        with pytest.raises(StepError, match=f"step one .*{message}"):
            folder.run(ONE, None)
        assert folder.run(ONE, None) == {}


def test_a_store_that_others_are_still_making_is_not_done(tmp_path: Path) -> None:
    outcome = json.dumps({"complete": False, "in_progress": ["epoch 0, shard 1: process 7 on there"]})
    with StepFolder(tmp_path, FakeLaunch((0, outcome))) as folder, pytest.raises(StepError, match="process 7"):
        folder.run(ONE, None)


def test_no_step_begins_when_the_time_is_up(tmp_path: Path) -> None:
    launch = FakeLaunch()
    with StepFolder(tmp_path, launch) as folder:
        assert folder.run(ONE, time.monotonic()) is None
    assert launch.ran == []


def test_another_command_in_the_folder_is_refused_with_both(tmp_path: Path) -> None:
    other = Step(name="one", words=("train", "--seed", "7"))
    with StepFolder(tmp_path, FakeLaunch((143, ""))) as folder:
        folder.run(ONE, None)
        folder.check([ONE, TWO], {})
        with pytest.raises(MismatchError, match="step one") as refused:
            folder.check([TWO, other], {})
    assert refused.value.stored == "logitstore train --seed 1"
    assert refused.value.present == "logitstore train --seed 7"


def test_other_data_under_the_same_name_is_refused(tmp_path: Path) -> None:
    with StepFolder(tmp_path) as folder:
        folder.check([], {"--data": "2 images of a"})
        folder.check([], {"--data": "2 images of a", "--pretrain-data": "3 images of b"})
        with pytest.raises(MismatchError, match="--data") as refused:
            folder.check([], {"--data": "2 images of c"})
    assert (refused.value.stored, refused.value.present) == ("2 images of a", "2 images of c")


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.framework.steps._WAIT_FOR_LOCK", 0.0)
    with StepFolder(tmp_path), pytest.raises(InputError, match="Another run works"), StepFolder(tmp_path):
        pass
    with StepFolder(tmp_path):
        pass


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Step]:
    """Makes steps whose command is a small program: it waits, and says in a file that it was asked to stop."""
    (tmp_path / "patient_worker.py").write_text(
        "import pathlib, signal, sys, time\n"
        "folder, seconds, code = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])\n"
        "def stop(*_):\n    (folder / 'asked').touch()\n    time.sleep(0.3)\n"
        "    (folder / 'saved').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "(folder / 'began').touch()\n"
        "time.sleep(seconds)\n"
        "print('{\"top1\": 1}' if code == 0 else '')\n"
        "sys.exit(code)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(seconds: float, code: int = 0) -> Step:
        return Step(name="work", words=(str(tmp_path), str(seconds), str(code)), module="patient_worker")

    return make


def test_a_command_in_a_process_gives_its_result_or_its_exit_code(tmp_path: Path, worker: Callable[..., Step]) -> None:
    with StepFolder(tmp_path) as folder:
        with pytest.raises(StepError, match="exit code 5"):
            folder.run(worker(0, code=5), None)
        assert folder.run(worker(0), time.monotonic() + 60) == {"top1": 1}


def test_a_command_may_save_what_it_has_when_the_time_is_up(tmp_path: Path, worker: Callable[..., Step]) -> None:
    with StepFolder(tmp_path) as folder:
        assert folder.run(worker(60), time.monotonic() + 1) is None
    assert (tmp_path / "saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_with_the_run_and_is_waited_for(
    tmp_path: Path, worker: Callable[..., Step], how: signal.Signals
) -> None:
    step = worker(60)
    code = (
        "import sys; from pathlib import Path\n"
        "from benchmarks.framework.steps import Step, StepFolder, sigterm_unwinds\n"
        f"with sigterm_unwinds(), StepFolder(Path({str(tmp_path)!r})) as folder:\n"
        f"    folder.run(Step(name='work', words={step.words!r}, module='patient_worker'), None)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})  # fmt: skip
    wait_for(tmp_path / "began", run)
    run.send_signal(how)
    run.communicate()
    with StepFolder(tmp_path):  # waits for what the other left behind
        assert (tmp_path / "saved").exists()
    assert run.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: -2}[how]


def wait_for(path: Path, process: subprocess.Popen[Any], seconds: float = 60) -> None:
    """Until a file is there, or the process that is to write it has ended, which fails."""
    patience = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < patience, f"{path.name} was not written"
        time.sleep(0.01)


# The report


def trained(top1: float, images: int = 1000) -> dict[str, Any]:
    return {"accuracy": {"top1_share": top1, "images": images}, "out": "nowhere"}


@pytest.fixture
def protocol(data: dict[str, str], tmp_path: Path) -> Protocol:
    return Protocol.of(Setting(**data, students=("swin_n",), seeds=(0, 1), out=tmp_path))  # type: ignore[arg-type]


def results_of(protocol: Protocol, shares: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """Results of Table IX's rows, a share for each seed."""
    names = {row.setting: row.variant.name for row in protocol.setting.rows}
    return {f"{names[setting]}-seed{seed}": trained(share)
            for setting, found in shares.items() for seed, share in enumerate(found)}  # fmt: skip


def test_a_row_shows_mean_seeds_interval_and_the_paper(protocol: Protocol) -> None:
    results = results_of(protocol, {"scratch": (0.60, 0.64)}) | {"teacher-swin_t": {"top1": 0.9, "num_samples": 500}}
    teacher, scratch, distilled, *_ = report.accuracy_rows(protocol, results)
    assert teacher["top-1 %"] == 90 and teacher["paper %"] == 87.35 and teacher["difference"] == 2.65
    assert scratch["top-1 %"] == 62 and scratch["each seed"] == "60.00, 64.00" and scratch["paper %"] == 66.32
    assert scratch["95% interval"] == "59.0 to 65.0"  # Wilson's for 620 of 1000
    assert scratch["difference"] == pytest.approx(-4.32)
    assert "top-1 %" not in distilled and distilled["paper %"] == 76.13


def test_the_order_found_is_reported_whatever_it_is(protocol: Protocol) -> None:
    shares = {"scratch": (0.5, 0.5), "distilled": (0.8, 0.8), "copied": (0.6, 0.9), "both": (0.82, 0.83)}
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, shares)))
    assert order["paper"] == "scratch < distilled < copied < both"
    assert order["found"] == "scratch < copied < distilled < both" and not order["same"]
    first, second, third = order["steps"]
    assert "distilled against scratch: +30.00 points, higher in 2 of 2 seeds; the intervals lie apart" in first
    assert "copied against distilled: -5.00 points, higher in 1 of 2 seeds" in second
    assert "the paper: +2.50" in third


def test_no_order_is_found_while_a_row_is_missing(protocol: Protocol) -> None:
    shares = dict.fromkeys(ORDER[:3], (0.5, 0.5))
    assert report.orders(report.accuracy_rows(protocol, results_of(protocol, shares))) == []


def test_close_accuracies_decide_nothing(protocol: Protocol) -> None:
    shares = {"scratch": (0.5, 0.5), "distilled": (0.51, 0.51), "copied": (0.52, 0.52), "both": (0.53, 0.53)}
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, shares)))
    assert order["same"] and all("undecided" in line for line in order["steps"])


def test_equal_accuracies_are_not_the_papers_order(protocol: Protocol) -> None:
    (order,) = report.orders(report.accuracy_rows(protocol, results_of(protocol, dict.fromkeys(ORDER, (0.5, 0.5)))))
    assert not order["same"] and order["found"] == "scratch = distilled = copied = both"


def test_the_report_says_how_the_settings_differ(protocol: Protocol) -> None:
    found = report.summary(protocol, {}, 1.0)
    lines = {line["what"]: line for line in found["setting"]}
    assert lines["teacher before fine-tuning"]["here"] == "timm's pretrained weights (ImageNet-1k)"
    assert lines["epochs"] == {"what": "epochs", "paper": "60 (Table IV: 30)", "here": "60"}
    assert found["claim"] is None and not found["complete"] and found["steps_done"] == 0


def test_digits_are_compared_with_nothing(tmp_path: Path) -> None:
    protocol = Protocol.of(Setting(students=("swin_n",), out=tmp_path))
    found = report.summary(protocol, results_of(protocol, {"scratch": (0.5,)}), 1.0)
    assert found["claim"] == report.NO_CLAIM
    assert found["rows"][1]["top-1 %"] == 50 and not any("difference" in row for row in found["rows"])
    assert "difference" not in report.columns(found["rows"])


def test_a_teacher_pretrained_on_the_same_images_is_said_to_be(data: dict[str, str], tmp_path: Path) -> None:
    setting = Setting(**data, pretrain_data=data["data"], pretrain_epochs=9, out=tmp_path)  # type: ignore[arg-type]
    found = report.summary(Protocol.of(setting), {}, 1.0)
    (origin,) = [line["here"] for line in found["setting"] if line["what"] == "teacher before fine-tuning"]
    assert origin == "pre-trained from random weights on the training images themselves, 9 epochs"


def test_table_x_stands_beside_the_papers(protocol: Protocol) -> None:
    figures = [{"name": name, "images_per_second": 2 * speed, "parameters": int(1e6 * size)}
               for name, (speed, size) in MODELS.items()]  # fmt: skip
    rows = report.model_rows({"models": figures})
    assert rows[0] == {"model": "swin_n", "img/s": 1147.6, "paper img/s": 573.8, "M parameters": 20.5, "paper M": 20.5}
    assert report.model_rows(None) == []


# The whole


def weights(folder: Path, step: str) -> str:
    """SHA-256 of the weights that a training left."""
    sha256: str = json.loads((folder / step / "model.json").read_text())["sha256"]
    return sha256


@pytest.mark.skipif(sys.platform != "linux", reason="finds the step's process under /proc")
def test_a_run_that_is_killed_in_a_training_ends_as_if_it_had_not_been(tmp_path: Path, data: dict[str, str]) -> None:
    flags = ["--data", data["data"], "--val-data", data["val_data"], "--quick", "--subset", "64", "--size", "32",
             "--epochs", "1", "--teacher-epochs", "3", "--teacher-init", "random", "--workers", "1"]  # fmt: skip
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    script = [sys.executable, str(ROOT / "benchmarks" / "swin_framework.py"), *flags, "--out", str(killed)]
    run = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(killed / "teacher-swin_t" / "checkpoint.pt", run, 120)
    step = int(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0])
    os.kill(run.pid, signal.SIGKILL)
    os.kill(step, signal.SIGKILL)
    run.wait()
    assert not (killed / "teacher-swin_t" / "model.safetensors").exists()

    def finish(out: Path) -> dict[str, Any]:
        setting = swin_framework.setting_of(swin_framework.parser().parse_args([*flags, "--out", str(out)]))
        protocol = Protocol.of(setting)
        with StepFolder(out, in_this_process) as folder:
            results = swin_framework.run(protocol, folder, None)
        return report.summary(protocol, results, 0.0)

    found = finish(killed)
    assert found["complete"] and found["steps_done"] == 6 and found["data"] == "train"
    assert [row["training"] for row in found["rows"]] == ["teacher, fine-tuned", *ORDER]
    assert all(0 <= row["top-1 %"] <= 100 and row["test_images"] == 20 for row in found["rows"])
    assert len(found["orders"][0]["steps"]) == 3
    here = {line["what"]: line["here"] for line in found["setting"]}
    assert here["weight decay"] == "0.01" and here["peak learning rate"] == "5e-05"  # 2e-4 at a batch of 128
    assert not (killed / "teacher-swin_t" / "checkpoint.pt").exists()

    setting = swin_framework.setting_of(swin_framework.parser().parse_args([*flags, "--out", str(unbroken)]))
    with StepFolder(unbroken, in_this_process) as folder:
        assert folder.run(Protocol.of(setting).steps["teacher-swin_t"], None) is not None
    assert weights(killed, "teacher-swin_t") == weights(unbroken, "teacher-swin_t")


def run_script(*flags: str) -> tuple[int, dict[str, Any] | None, str]:
    """Exit code, JSON line and everything else of a run of the script."""
    script = str(ROOT / "benchmarks" / "swin_framework.py")
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    line = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
    return done.returncode, line, done.stdout + done.stderr


def test_without_time_the_script_reports_and_says_that_there_is_more(tmp_path: Path, data: dict[str, str]) -> None:
    code, line, text = run_script("--data", data["data"], "--val-data", data["val_data"], "--out", str(tmp_path),
                                  "--time-limit", "0")  # fmt: skip
    assert code == swin_framework.MORE_TO_DO
    assert line is not None and not line["complete"] and "the same command goes on" in text


def test_the_script_refuses_in_a_sentence(tmp_path: Path) -> None:
    code, line, text = run_script("--data", str(tmp_path / "absent.npz"))
    assert code == 2 and line is None and "absent.npz" in text and "Traceback" not in text


@pytest.mark.slow
def test_pieces_of_a_run_give_what_an_unbroken_run_gives(tmp_path: Path) -> None:
    flags = ("--quick", "--seeds", "0,1", "--students", "swin_n,swin_m", "--rows", "IX,V", "--workers", "1")
    code, unbroken, text = run_script(*flags, "--out", str(tmp_path / "unbroken"))
    assert code == 0 and unbroken is not None and "No claim about accuracy comes from digits" in text
    pieces = 0
    while True:
        code, pieced, _ = run_script(*flags, "--out", str(tmp_path / "pieces"), "--time-limit", "25")
        pieces += 1
        if code != swin_framework.MORE_TO_DO:
            break
    assert code == 0 and pieces > 2 and pieced is not None
    assert {**pieced, "seconds": 0} == {**unbroken, "seconds": 0}
