"""The proof on students: the commands that it is made of, its report, a whole small run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from framework_cases import ROOT, command_line, in_this_process, make_data, wait_for
from quality_cases import TEACHER, make_store, make_teacher

from benchmarks import quality
from benchmarks.framework import session
from benchmarks.framework.steps import StepFolder
from benchmarks.quality_parts import report
from benchmarks.quality_parts.conditions import CONDITIONS
from benchmarks.quality_parts.protocol import CHECK, COMMANDS, QualityProtocol, measured
from benchmarks.quality_parts.setting import QualitySetting
from logitstore.cards import load_card
from logitstore.errors import InputError, LogitStoreError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_data(tmp_path_factory.mktemp("pictures"))


def protocol_of(out: Path, **values: Any) -> QualityProtocol:
    return QualityProtocol.of(QualitySetting(out=out, **values))


def test_every_command_is_one_that_its_command_line_takes(tmp_path: Path, data: dict[str, str]) -> None:
    protocol = protocol_of(
        tmp_path, **data, size=32, teacher_init="random", workers=1, device="cpu", dtype="float32", subset=40
    )
    kinds = []
    for step in protocol.steps.values():
        command = command_line(step).commands[step.words[0]]
        command.make_context(step.words[0], list(step.words[1:]), resilient_parsing=False)
        kinds.append(step.words[0])
    students = 3 * len(CONDITIONS)
    assert kinds.count("dump") == 3 and kinds.count("listen") == 1, "the teacher speaks once for each seed"
    assert kinds.count("live") == 3 and kinds.count("train") == 1 + students - 3 and kinds.count("eval") == students
    assert kinds.count("convert") == 3 and kinds.count("weigh") == 6
    assert kinds.count("cut") == 3 * sum(condition.rule is not None for condition in CONDITIONS.values())


def test_nothing_is_needed_before_it_is_made(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(0, 1))
    made: set[str] = set()
    for step in protocol.steps.values():
        options = ("--checkpoint", "--teacher-checkpoint", "--live-checkpoint", "--chosen-on", "--teacher")
        named = [word for option, word in pairwise(step.words) if option in options]
        named += [word for option, word in pairwise(step.words) if option == "--store" and step.words[0] != "dump"]
        named += {
            "cut": step.words[1:2],
            "weigh": step.words[1:3],
            "listen": step.words[1:2],
            "convert": step.words[1:2],
        }.get(step.words[0], ())
        needed = {Path(word).name for word in named if word.startswith(str(tmp_path))}
        assert needed - {f"teacher-{protocol.setting.teacher}"} <= set(step.needs) <= made, step.name
        made.add(step.name)


def test_students_of_a_seed_differ_in_their_targets_alone(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(0, 7))
    commands = set()
    for condition in CONDITIONS.values():
        step = protocol.steps[f"{condition.name}-seed7"]
        words = list(step.words[5:] if step.words[0] == "live" else step.words[1:])
        for option, count in (("--store", 2), ("--out", 2), ("--hard-labels-only", 1), ("--view", 2)):
            if option in words:
                del words[words.index(option) : words.index(option) + count]
        commands.add(tuple(words))
    assert len(commands) == 1 and ("--seed", "7") in list(pairwise(commands.pop()))


def test_every_seed_keeps_the_same_classes_of_its_own_views(tmp_path: Path) -> None:
    steps = protocol_of(tmp_path, seeds=(3, 4)).steps
    for name in ("tinyvit", "floored", "cycled"):
        first, second = steps[f"store-{name}-seed3"].words, steps[f"store-{name}-seed4"].words
        assert "--chosen-on" not in first and second[-2:] == ("--chosen-on", str(tmp_path / "store-dense-seed3"))
        assert second[1] == str(tmp_path / "store-dense-seed4")
    assert "--chosen-on" not in steps["store-k1-seed4"].words
    assert steps["store-cycled-seed3"].words[-2:] == ("--epochs", "3")  # of 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conditions": ("dense", "k0")}, "--conditions takes live, dense"),
        ({"conditions": ()}, "at least one"),
        ({"teacher_checkpoints": (("swin_t", "a"),)}, "--teacher-checkpoint takes tinyvit_5m"),
        ({"teacher_checkpoints": (("tinyvit_5m", "absent"),)}, "has no card"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"seeds": (1, 1)}, "different seeds"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LogitStoreError, match=message):
        QualitySetting(**values)


def test_a_given_teacher_is_measured_and_not_trained(tmp_path: Path) -> None:
    file = make_teacher(tmp_path / "teacher.safetensors")
    flags = ["--teacher", "test_vit", "--teacher-checkpoint", file, "--out", str(tmp_path / "out")]
    steps = QualityProtocol.of(quality.setting_of(quality.parser().parse_args(flags))).steps
    assert steps["teacher-test_vit"].words[:3] == ("eval", "--checkpoint", file)
    assert file in steps["store-dense-seed0"].words and file in steps["live-seed2"].words
    with pytest.raises(InputError, match="--teacher-checkpoint takes test_vit"):
        quality.setting_of(quality.parser().parse_args([*flags, "--teacher-checkpoint", f"swin_t={file}"]))


def test_flags_keep_the_settings_defaults() -> None:
    assert quality.setting_of(quality.parser().parse_args([])) == QualitySetting()
    setting = quality.setting_of(quality.parser().parse_args(["--quick", "--seeds", "0,3", "--conditions", "live,k1"]))
    assert setting.seeds == (0, 3) and setting.conditions == ("live", "k1") and setting.subset == 96


def told(top1: float, agreement: float, kl: float) -> dict[str, Any]:
    """What ``eval`` prints, as far as the report reads it."""
    return {"top1": top1, "num_samples": 1000, "agreement": {"share": agreement, "images": 1000, "kl": kl}}


def weighed(kl: float, size: float = 20.0) -> dict[str, Any]:
    return {"topk": 10, "floor": 0.0, "mean_kept": 4.0, "kept_mass": 0.95, "bytes_per_record": size, "bytes": 2e6,
            "metadata_bytes": 1.0, "kl": kl}  # fmt: skip


def results_of(protocol: QualityProtocol, kl: dict[str, float], top1: dict[str, float]) -> dict[str, Any]:
    """Results in which accuracy is what is given and two points higher for the second seed."""
    results: dict[str, Any] = {CHECK: {"kl": 1e-6}}
    for seed in protocol.setting.seeds:
        for name, share in top1.items():
            condition = CONDITIONS[name]
            results[measured(condition, seed)] = told(share + 0.02 * seed, share - 0.1, 1 - share)
            if name in kl:
                results[protocol.weighed(condition, seed)] = weighed(kl[name])
    return results


def test_the_report_sets_bytes_and_loss_beside_the_students(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(0, 1))
    top1 = {"live": 0.8, "dense": 0.79, "floored": 0.78, "labels": 0.6}
    found = report.summary(protocol, results_of(protocol, {"dense": 0.0, "floored": 0.03}, top1), 1.0)
    rows = {row["condition"]: row for row in found["rows"]}
    assert rows["live"]["KL"] == 0 and "B/record" not in rows["live"]
    assert rows["dense"]["KL"] == 1e-6 and rows["floored"]["KL"] == 0.03 and "KL" not in rows["labels"]
    assert rows["floored"]["B/record"] == 20 and rows["floored"]["4+4K"] == 44
    assert rows["floored"]["top-1 %"] == 79 and rows["floored"]["each seed"] == "78.00, 80.00"
    assert rows["floored"]["95% interval"] == "76.4 to 81.4"  # Wilson's for 790 of 1000
    assert rows["floored"]["sd"] == pytest.approx(2**0.5) and rows["floored"]["agree %"] == 68
    assert rows["floored"]["against dense"] == "-1.00 (-1.00 to -1.00)", "the same in both seeds"
    assert rows["dense"]["against dense"] == "+0.00 (+0.00 to +0.00)"
    assert "top-1 %" not in rows["k1"] and not found["complete"] and found["claim"] == report.NO_CLAIM


def test_correlation_is_over_the_conditions_that_only_keep_less(tmp_path: Path) -> None:
    protocol = protocol_of(tmp_path, seeds=(0, 1))
    kl = {"dense": 0.0, "tinyvit": 0.01, "floored": 0.02, "k5": 0.03, "k2": 0.1, "k1": 0.5, "cycled": 0.02}
    top1 = {name: 0.8 - value / 10 for name, value in kl.items()} | {"live": 0.1, "labels": 0.1, "cycled": 0.1}
    found = report.summary(protocol, results_of(protocol, kl, top1), 1.0)["correlations"]
    assert list(found) == ["all", "without k1"]
    over_all = found["all"]["top-1 %"]
    assert over_all["conditions"] == 6, "neither fewer views nor labels nor a teacher without records"
    assert over_all["spearman"]["r"] == pytest.approx(-1) and over_all["slope"] == pytest.approx(-10, rel=0.02)
    assert found["without k1"]["top-1 %"]["conditions"] == 5
    assert found["all"]["KL(teacher || student)"]["spearman"]["r"] == pytest.approx(1)


def test_a_whole_run_is_reported_and_not_repeated(tmp_path: Path, data: dict[str, str], capsys: Any) -> None:
    flags = ["--data", data["data"], "--val-data", data["val_data"], "--quick", "--subset", "64", "--size", "32",
             "--teacher-init", "random", "--student", "test_vit", "--workers", "1", "--out", str(tmp_path),
             "--conditions", "live,dense,floored,packed,cycled,labels,k1"]  # fmt: skip
    ran: list[str] = []

    def launch(step: Any, terms: Any) -> tuple[int, str]:
        ran.append(step.name)
        return in_this_process(step, terms)

    def once() -> dict[str, Any]:
        protocol = QualityProtocol.of(quality.setting_of(quality.parser().parse_args(flags)))
        with StepFolder(tmp_path, launch) as folder:
            return report.summary(protocol, session.run(protocol, folder, None), 0.0)

    found = once()
    assert found["complete"] and found["data"] == "train" and found["claim"] is None
    count = len(ran)
    rows = {row["condition"]: row for row in found["rows"]}
    assert all(row["test_images"] == 20 for row in rows.values())
    assert 0 <= rows["dense"]["KL"] < 1e-5 and 0 < rows["floored"]["KL"] < rows["k1"]["KL"]
    assert rows["k1"]["K"] == 1 and rows["dense"]["kept"] == 4 and rows["cycled"]["MB"] < rows["floored"]["MB"]
    assert rows["packed"]["KL"] == rows["floored"]["KL"] and rows["packed"]["B/record"] != rows["floored"]["B/record"]
    assert found["packed_same_students"] == {"packed": {"seeds": 1, "same": 1}}, "the same records, to the bit"
    live, dense = (load_card(tmp_path / f"{name}-seed0" / "model.safetensors") for name in ("live", "dense"))
    assert live is not None and dense is not None
    assert live.training["seed"] == dense.training["seed"] and live.training["store"] == dense.training["store"]
    assert once() == found and len(ran) == count
    quality.show(found)
    said = capsys.readouterr().out
    assert "no correlation to be had" in said and "packed: the students of 1 of 1 seeds are the same" in said


def test_the_script_refuses_in_a_sentence(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*script, "--conditions", "k0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--conditions takes" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run([*script, "--time-limit", "0"], capture_output=True, text=True, check=False)
    line = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == session.MORE_TO_DO and line["steps_done"] == 0 and "goes on from there" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as only POSIX can")
def test_a_live_training_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher.safetensors")
    store = make_store(tmp_path / "store", teacher)

    def command(out: str) -> list[str]:
        options = ("--student", "test_vit", "--store", str(store.path), "--epochs", "12", "--batch-size", "32",
                   "--checkpoint-steps", "2", "--workers", "1", "--no-tensorboard")  # fmt: skip
        spoken = ("--live-teacher", TEACHER, "--live-checkpoint", teacher)
        return [sys.executable, "-m", COMMANDS, "live", *spoken, *options, "--out", str(tmp_path / out)]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "killed" / "checkpoint.pt", killed, 120)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    for out in ("killed", "unbroken"):
        subprocess.run(command(out), env=environment, check=True, capture_output=True)
    cards = [json.loads((tmp_path / out / "model.json").read_text()) for out in ("killed", "unbroken")]
    assert cards[0]["sha256"] == cards[1]["sha256"]
