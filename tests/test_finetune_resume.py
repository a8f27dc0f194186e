"""A fine-tuning that ends before it is done, and the folder it leaves: resume, interruption, what is refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from train_cases import Spy, metrics, same_weights
from train_cases import config as train_config

import cli
from logitstore.cards import load_card, load_model
from logitstore.errors import InputError, MismatchError
from logitstore.finetune import FinetuneConfig, FinetuneResult, finetune
from logitstore.learning.folder import RunFolder
from logitstore.progress import Progress
from logitstore.train import train

TEACHER = "test_efficientnet"  # with BatchNorm, stochastic depth and a classifier
STEPS = 18  # three epochs of six
STOPPED = ["checkpoint.pt", "metrics.jsonl", "run.yaml"]


def config(out: Path, **options: Any) -> FinetuneConfig:
    """Three epochs of six steps, with drop path and a slow average of the weights; writes no events."""
    values: dict[str, Any] = {
        "teacher": TEACHER,
        "out": str(out),
        "epochs": 3,
        "subset": 192,
        "batch_size": 32,
        "drop_path": 0.2,
        "ema_decay": 0.8,
        "workers": 1,
        "device": "cpu",
        "tensorboard": False,
    }
    return FinetuneConfig(**{**values, **options})


class Watch(Spy):
    """A spy of the steps alone: the check of the files before them is no step."""

    def __call__(self, total: int | None, unit: str, label: str) -> Progress:
        self.label = label
        return super().__call__(total, unit, label)

    def advance(self, units: int = 1, **notes: object) -> None:
        if self.label == "finetune":
            super().advance(units, **notes)


def stopping(step: int, signum: signal.Signals = signal.SIGINT) -> Watch:
    """Sends itself a signal after a step."""
    return Watch({step: lambda: signal.raise_signal(signum)})


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return finetune(config(tmp_path_factory.mktemp("unbroken") / "run"))


def assert_same(resumed: FinetuneResult, unbroken: FinetuneResult) -> None:
    """All that lasts of two runs is equal: weights, card, metrics, result."""
    assert same_weights(resumed.checkpoint, unbroken.checkpoint)
    assert load_card(resumed.checkpoint) == load_card(unbroken.checkpoint)
    folders = [Path(run.checkpoint).parent for run in (resumed, unbroken)]
    assert metrics(folders[0]) == metrics(folders[1])
    assert files(folders[0]) == files(folders[1])
    first, second = resumed.to_dict(), unbroken.to_dict()
    assert {name for name in first if first[name] != second[name]} <= {"checkpoint", "images_per_second", "seconds"}


def test_what_a_run_leaves_behind(unbroken: FinetuneResult) -> None:
    out = Path(unbroken.checkpoint).parent
    assert files(out) == sorted([*STOPPED, "model.json", "model.safetensors"])
    lines = metrics(out)
    assert [line["step"] for line in lines if line["group"] == "train"] == [10]
    assert [line["step"] for line in lines if line["group"] == "epoch"] == [6, 12, STEPS]
    assert unbroken.accuracy is not None
    assert (lines[-1]["top1"], lines[-1]["train_loss"]) == (unbroken.accuracy["top1_share"], unbroken.loss)


RUN = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_finetune_resume import config
from logitstore.finetune import finetune
finetune(config(Path(sys.argv[1])))
"""


def test_a_killed_run_ends_in_the_same_weights(unbroken: FinetuneResult, tmp_path: Path) -> None:
    out, here = tmp_path / "run", Path(__file__).parent
    code = RUN.format(paths=[str(here), str(here.parent)])
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], env=os.environ.copy())
    try:
        deadline = time.monotonic() + 60
        while not (out / "checkpoint.pt").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert not (out / "model.safetensors").exists()
    spy = Watch()
    resumed = finetune(config(out), spy)
    assert any(text.startswith("Resuming at step") for text in spy.said)
    assert_same(resumed, unbroken)


@pytest.mark.parametrize("step", [3, 6, 16])
def test_a_stopped_run_ends_in_the_same_weights(step: int, unbroken: FinetuneResult, tmp_path: Path) -> None:
    spy = stopping(step)
    with pytest.raises(KeyboardInterrupt):
        finetune(config(tmp_path), spy)
    assert spy.said[-1] == f"Stopped at step {step} of {STEPS}; the same command goes on from there."
    assert files(tmp_path) == STOPPED
    assert_same(finetune(config(tmp_path)), unbroken)


def test_a_frozen_backbone_stays_through_a_resume(unbroken: FinetuneResult, tmp_path: Path) -> None:
    probe = {"checkpoint": unbroken.checkpoint, "freeze_backbone": True, "seed": 1}
    whole = finetune(config(tmp_path / "whole", **probe))
    with pytest.raises(KeyboardInterrupt):
        finetune(config(tmp_path / "cut", **probe), stopping(8))
    assert_same(finetune(config(tmp_path / "cut", **probe)), whole)
    before, after = load_model(unbroken.checkpoint)[0], load_model(whole.checkpoint)[0]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_a_finished_run_is_not_repeated(unbroken: FinetuneResult) -> None:
    spy = Watch()
    again = finetune(config(Path(unbroken.checkpoint).parent), spy)
    assert spy.said[-1] == f"All {STEPS} steps are done; the teacher is {unbroken.checkpoint}."
    assert again.images_per_second == 0
    assert_same(again, unbroken)


def test_a_teacher_that_was_taken_away_is_written_again(unbroken: FinetuneResult, tmp_path: Path) -> None:
    first = finetune(config(tmp_path))
    Path(first.checkpoint).unlink()
    assert_same(finetune(config(tmp_path)), unbroken)


class TestOtherRunsInTheFolder:
    """What is there belongs to somebody: it is continued, or left alone."""

    @pytest.fixture
    def begun(self, tmp_path: Path) -> Path:
        with pytest.raises(KeyboardInterrupt):
            finetune(config(tmp_path / "run"), stopping(2))
        return tmp_path / "run"

    @pytest.mark.parametrize(
        ("options", "stored", "present"),
        [
            ({"lr": 1e-3, "seed": 1}, "learning_rates.peak=0.0005", "learning_rates.peak=0.001"),
            ({"epochs": 4}, "training.epochs=3", "training.epochs=4"),
            ({"teacher": "test_vit"}, "teacher=test_efficientnet", "teacher=test_vit"),
            ({"subset": 160}, "data.count=192", "data.count=160"),
        ],
    )
    def test_another_configuration_is_refused(
        self, options: dict[str, Any], stored: str, present: str, begun: Path
    ) -> None:
        before = {path: path.stat().st_mtime_ns for path in begun.iterdir()}
        with pytest.raises(MismatchError) as caught:
            finetune(config(begun, **options))
        assert stored in str(caught.value.stored) and present in str(caught.value.present)
        assert "--fresh" in caught.value.remedy
        assert {path: path.stat().st_mtime_ns for path in begun.iterdir()} == before

    def test_other_starting_weights_are_another_configuration(self, unbroken: FinetuneResult, begun: Path) -> None:
        with pytest.raises(MismatchError) as caught:
            finetune(config(begun, checkpoint=unbroken.checkpoint, lr=5e-4))
        assert (caught.value.stored, caught.value.present) == ("start=random", f"start={unbroken.sha256}")

    def test_many_differences_are_counted(self, begun: Path) -> None:
        other = {"lr": 1e-3, "epochs": 4, "subset": 160, "seed": 1, "size": 24, "weight_decay": 0.1, "drop_path": 0.1}
        with pytest.raises(MismatchError) as caught:
            finetune(config(begun, **other))
        for side in (str(caught.value.stored), str(caught.value.present)):
            entries = side.split(", ")
            assert [entry.count("=") for entry in entries] == [1] * 8 + [0]
            assert re.fullmatch(r"and [1-9]\d* more", entries[-1])
        assert "data.count=160" in str(caught.value.present)

    def test_the_folder_of_a_teacher_is_not_a_students(self, begun: Path) -> None:
        with pytest.raises(MismatchError, match="The kind of the run in") as caught:
            train(train_config(begun, hard_labels_only=True, subset=64, epochs=1))
        assert str(caught.value.stored) == f"finetune, teacher={TEACHER}"

    def test_fresh_starts_anew(self, unbroken: FinetuneResult, tmp_path: Path) -> None:
        other = finetune(config(tmp_path, epochs=1, seed=1))
        assert other.sha256 != unbroken.sha256
        assert_same(finetune(config(tmp_path, fresh=True)), unbroken)

    def test_a_model_that_no_run_left(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"a teacher")
        for fresh in (False, True):
            with pytest.raises(InputError, match="no training run left there"):
                finetune(config(tmp_path, fresh=fresh))
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

    def test_a_student(self, tmp_path: Path) -> None:
        student = train(train_config(tmp_path, hard_labels_only=True, subset=64, epochs=1))
        kinds = (f"train, student={TEACHER}", f"finetune, teacher={TEACHER}")
        with pytest.raises(MismatchError, match="holds a run of another kind: give this one its own") as caught:
            finetune(config(tmp_path))
        assert (caught.value.stored, caught.value.present) == kinds
        assert load_card(student.checkpoint) is not None

    def test_the_weights_to_start_from(self, unbroken: FinetuneResult) -> None:
        out = Path(unbroken.checkpoint).parent
        for given in (unbroken.checkpoint, str(out)):
            with pytest.raises(InputError, match=r"The weights of --checkpoint lie in .*: give another --out"):
                finetune(config(out, checkpoint=given, fresh=True))

    def test_another_process(self, begun: Path) -> None:
        other = RunFolder(begun, {}, {})
        with pytest.raises(MismatchError):
            other.load(fresh=False)
        try:
            with pytest.raises(InputError, match="Another process is training in"):
                finetune(config(begun))
        finally:
            other.close()
        assert finetune(config(begun)).steps == STEPS


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_says_that_it_goes_on(
    signum: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["finetune", "--teacher", TEACHER, "--subset", 64, "--batch-size", 32, "--epochs", 2, "--workers", 1]
    place = ["--device", "cpu", "--no-tensorboard", "--out", tmp_path / "run"]

    def command(progress: Callable[..., Progress], *more: str) -> Any:
        monkeypatch.setattr(cli, "Progress", progress)
        return CliRunner().invoke(cli.main, [*map(str, words), *map(str, place), *more])

    stopped = command(stopping(1, signum))
    assert stopped.exit_code == code
    assert stopped.stderr.endswith("what is done is kept, and the same command goes on from there.\n")
    done = command(Watch(), "--json")
    assert done.exit_code == 0 and '"steps": 4' in done.stdout


def test_tensorboard_events(tmp_path: Path) -> None:
    finetune(config(tmp_path, tensorboard=True, epochs=1))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("epoch/top1")] == [6]
