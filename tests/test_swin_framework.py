"""The Swin framework's protocol: the paper's rows, the commands that measure them, the whole killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from framework_cases import ROOT, in_this_process, make_data, wait_for

import cli
from benchmarks import swin_framework
from benchmarks.framework import report, session
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import ORDER, STUDENTS, TABLES, rows_of
from benchmarks.framework.setting import Setting
from benchmarks.framework.steps import StepFolder
from logitstore.errors import InputError, LogitStoreError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("pictures"))


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
        needed = {Path(word).name for option, word in pairwise(step.words)
                  if option in ("--init-from", "--checkpoint") or (option == "--store" and step.words[0] == "train")}
        assert needed == set(step.needs) <= made, step.name
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


def test_other_labels_are_other_data(tmp_path: Path, data: dict[str, str]) -> None:
    arrays = dict(np.load(data["data"]))
    np.savez(tmp_path / "train.npz", **{**arrays, "labels": arrays["labels"][::-1]})
    before = Setting(**data, out=tmp_path).inputs()  # type: ignore[arg-type]
    after = Setting(**{**data, "data": str(tmp_path / "train.npz")}, out=tmp_path).inputs()  # type: ignore[arg-type]
    assert before["--val-data"] == after["--val-data"] and before["--data"] != after["--data"]


def test_flags_keep_the_settings_defaults() -> None:
    args = swin_framework.parser().parse_args([])
    assert swin_framework.setting_of(args) == Setting()
    args = swin_framework.parser().parse_args(
        ["--quick", "--seeds", "0,3", "--rows", "all", "--teacher-checkpoint", "a", "--teacher-checkpoint", "swin_b=b"]
    )
    setting = swin_framework.setting_of(args)
    assert setting.seeds == (0, 3) and setting.tables == TABLES and setting.subset == 96
    assert setting.teacher_checkpoints == (("swin_t", "a"), ("swin_b", "b"))


def weights(folder: Path, step: str) -> str:
    """SHA-256 of the weights that a training left."""
    sha256: str = json.loads((folder / step / "model.json").read_text())["sha256"]
    return sha256


@pytest.mark.skipif(sys.platform != "linux", reason="finds the step's process under /proc")
def test_a_run_that_is_killed_in_a_training_ends_as_if_it_had_not_been(tmp_path: Path, data: dict[str, str]) -> None:
    flags = ["--data", data["data"], "--val-data", data["val_data"], "--quick", "--subset", "64", "--size", "32",
             "--epochs", "1", "--teacher-epochs", "2", "--teacher-init", "random", "--workers", "1"]  # fmt: skip
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    script = [sys.executable, str(ROOT / "benchmarks" / "swin_framework.py"), *flags, "--out", str(killed)]
    run = subprocess.Popen(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(killed / "teacher-swin_t" / "checkpoint.pt", run, 120)
    threads = Path(f"/proc/{run.pid}/task").glob("*/children")
    (step,) = [int(child) for thread in threads for child in thread.read_text().split()]
    os.kill(run.pid, signal.SIGKILL)
    os.kill(step, signal.SIGKILL)
    run.wait()
    assert not (killed / "teacher-swin_t" / "model.safetensors").exists()

    def finish(out: Path) -> dict[str, Any]:
        setting = swin_framework.setting_of(swin_framework.parser().parse_args([*flags, "--out", str(out)]))
        protocol = Protocol.of(setting)
        with StepFolder(out, in_this_process) as folder:
            results = session.run(protocol, folder, None)
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
    assert code == session.MORE_TO_DO
    assert line is not None and not line["complete"] and "the same command goes on" in text


def test_the_script_refuses_in_a_sentence(tmp_path: Path) -> None:
    code, line, text = run_script("--data", str(tmp_path / "absent.npz"))
    assert code == 2 and line is None and "absent.npz" in text and "Traceback" not in text


@pytest.mark.slow
def test_pieces_of_a_run_give_what_an_unbroken_run_gives(tmp_path: Path) -> None:
    flags = ("--quick", "--students", "swin_m", "--rows", "IX,V", "--workers", "1")
    code, unbroken, text = run_script(*flags, "--out", str(tmp_path / "unbroken"))
    assert code == 0 and unbroken is not None and "No claim about accuracy comes from digits" in text
    pieces = 0
    while True:
        code, pieced, _ = run_script(*flags, "--out", str(tmp_path / "pieces"), "--time-limit", "25", "--jobs", "2")
        pieces += 1
        if code != session.MORE_TO_DO:
            break
    assert code == 0 and pieces > 2 and pieced is not None
    assert {**pieced, "seconds": 0} == {**unbroken, "seconds": 0}
