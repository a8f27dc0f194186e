"""A training run from end to end: resume, interruption, what it prints and leaves behind."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_cases import BATCH, STUDENT, Spy, config, make_store, metrics, same_weights

from logitstore.cards import load_card
from logitstore.errors import InputError, MismatchError, NonFiniteError
from logitstore.evaluate import EvalConfig, evaluate
from logitstore.train import TrainConfig, TrainResult, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def unbroken(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(config(tmp_path_factory.mktemp("unbroken") / "run", store=str(store)))


def test_what_a_run_leaves_behind(store: Path, unbroken: TrainResult) -> None:
    assert unbroken.steps == 12
    assert unbroken.epochs == 2
    assert unbroken.loss is not None and math.isfinite(unbroken.loss)
    card = load_card(unbroken.checkpoint)
    assert card is not None
    assert (card.model, card.num_classes, card.size) == (STUDENT, 10, 32)
    assert card.accuracy == unbroken.accuracy
    assert card.training["store"]
    assert [teacher["name"] for teacher in card.training["teachers"]] == ["train_cases:pooled_teacher"]
    assert str(store.parent) not in json.dumps(card.to_dict())
    lines = metrics(unbroken.out)
    assert [line["step"] for line in lines if line["group"] == "train"] == list(range(1, 13))
    assert [line["step"] for line in lines if line["group"] == "epoch"] == [6, 12]
    assert unbroken.best_checkpoint is not None and Path(unbroken.best_checkpoint).is_file()
    measured = evaluate(EvalConfig(checkpoint=unbroken.out, workers=1))
    assert unbroken.accuracy is not None
    assert round(measured.top1 * 360) == unbroken.accuracy["top1"]


def test_the_effective_recipe_comes_first_and_a_finished_run_is_not_repeated(
    store: Path, unbroken: TrainResult
) -> None:
    spy = Spy()
    again = train(config(Path(unbroken.out), store=str(store)), spy)
    assert f"student: {STUDENT}" in spy.said[0]
    assert spy.said[0] == (Path(unbroken.out) / "run.yaml").read_text().rstrip()
    for word in ("base_lr", "weight_decay", "peak", "rand_augment_layers", "ema_decay", "seed"):
        assert word in spy.said[0]
    assert spy.said[-1].startswith("All 12 steps are done")
    assert again.accuracy == unbroken.accuracy
    assert again.images_per_second == 0


def test_no_global_generator_is_touched(store: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(config(tmp_path / "run", store=str(store), epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_weights_do_not_depend_on_threads_of_the_loader(
    store: Path, unbroken: TrainResult, tmp_path: Path
) -> None:
    result = train(config(tmp_path / "run", store=str(store), workers=3))
    assert same_weights(result.checkpoint, unbroken.checkpoint)


RUN = """
import sys
sys.path[:0] = {paths!r}
from train_cases import config
from logitstore.train import train
from pathlib import Path
train(config(Path(sys.argv[1]), store=sys.argv[2], checkpoint_steps=2))
"""


@pytest.mark.parametrize(
    "steps", [8, pytest.param(3, marks=pytest.mark.slow)], ids=["second-epoch", "first-epoch"]
)
def test_a_killed_run_ends_in_the_same_weights(
    store: Path, unbroken: TrainResult, tmp_path: Path, steps: int
) -> None:
    out = tmp_path / "run"
    here = Path(__file__).parent
    code = RUN.format(paths=[str(here), str(here.parent)])
    process = subprocess.Popen([sys.executable, "-c", code, str(out), str(store)], env=os.environ.copy())
    try:
        deadline = time.monotonic() + 60
        while not (out / "checkpoint.pt").exists() or len(metrics(out)) < steps:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()
    assert not (out / "model.safetensors").exists()
    (out / ".checkpoint.pt.1.tmp").write_bytes(b"cut off")
    spy = Spy()
    resumed = train(config(out, store=str(store), checkpoint_steps=2), spy)
    assert any(text.startswith("Resuming at step") for text in spy.said)
    assert same_weights(resumed.checkpoint, unbroken.checkpoint)
    assert resumed.best_checkpoint is not None and unbroken.best_checkpoint is not None
    assert same_weights(resumed.best_checkpoint, unbroken.best_checkpoint)
    assert metrics(out) == metrics(unbroken.out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in Path(unbroken.out).iterdir())


def test_ctrl_c_saves_and_resumes(store: Path, unbroken: TrainResult, tmp_path: Path) -> None:
    spy = Spy({4: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run", store=str(store)), spy)
    assert spy.said[-1].startswith("Stopped at step 4 of 12")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = train(config(tmp_path / "run", store=str(store)))
    assert same_weights(resumed.checkpoint, unbroken.checkpoint)


def test_sigterm_reaches_the_callers_handler_after_the_checkpoint(store: Path, tmp_path: Path) -> None:
    class TerminatedError(Exception):
        pass

    def handler(*_: object) -> None:
        assert (tmp_path / "run" / "checkpoint.pt").exists()
        raise TerminatedError

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(TerminatedError):
            train(config(tmp_path / "run", store=str(store)), Spy({6: lambda: signal.raise_signal(signal.SIGTERM)}))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 6


def test_another_configuration_is_refused_and_fresh_starts_anew(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = load_file(train(config(out, store=str(store), epochs=1)).checkpoint)
    with pytest.raises(MismatchError) as caught:
        train(config(out, store=str(store), epochs=1, base_lr=1e-3, seed=1))
    assert "recipe.base_lr=0.004" in str(caught.value.stored)
    assert "recipe.base_lr=0.001" in str(caught.value.present)
    assert "seed=1" in str(caught.value.present)
    assert "--fresh" in caught.value.remedy
    train(config(out, store=str(store), epochs=1, base_lr=1e-3, seed=1, fresh=True))
    after = load_file(out / "model.safetensors")
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
    assert len(metrics(out)) == 7


def test_a_folder_of_something_else_is_left_alone(store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a teacher")
    for fresh in (False, True):
        with pytest.raises(InputError, match="no training run left there"):
            train(config(tmp_path, store=str(store), fresh=fresh))
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_checkpoint_that_is_none(store: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        train(config(tmp_path, store=str(store)))


def test_a_loss_that_explodes_stops_the_run(store: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"The loss is \S+ at step \d+: lower --base-lr"):
        train(config(tmp_path / "run", store=str(store), base_lr=1e30, warmup_epochs=0.0, ema_decay=None))
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 31}, "--batch-size must be even"),
        ({"batch_size": 2048}, "fewer than one batch of 2048"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"recipe": "nonsense"}, "no recipe 'nonsense'"),
        ({"shuffle": "samples"}, "--shuffle must be shards"),
        ({"topk": 0}, "--topk must be at least 1"),
        ({"accumulate": 0}, "--accumulate must be at least 1"),
        ({"workers": -1}, "--workers must be at least 1"),
        ({"hard_labels_only": True}, "--hard-labels-only opens no store, so --store has no meaning"),
        ({"student": "tinyvit_5n"}, "no model called tinyvit_5n"),
        ({"student": "test_vit", "size": 50}, "test_vit does not run on images of 50 px"),
    ],
)
def test_unusable_input_is_one_sentence(store: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(config(tmp_path / "run", **{"store": str(store), **options}))
    assert not (tmp_path / "run").exists()


def test_default_store_and_folder(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = {"student": STUDENT, "epochs": 1, "batch_size": BATCH, "workers": 1, "tensorboard": False}
    with pytest.raises(InputError, match=r"no store of digits under runs/dump: make one with logitstore dump"):
        train(TrainConfig(**plain))
    (tmp_path / "runs" / "dump").mkdir(parents=True)
    (tmp_path / "runs" / "dump" / "one").symlink_to(store)
    assert train(TrainConfig(**plain)).out == f"runs/train/{STUDENT}-digits"
    (tmp_path / "runs" / "dump" / "two").symlink_to(store)
    with pytest.raises(InputError, match="There are 2 stores of digits"):
        train(TrainConfig(**plain))


def test_tensorboard_events_survive_a_resume(store: Path, tmp_path: Path) -> None:
    options = {"store": str(store), "tensorboard": True, "epochs": 1}
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run", **options), Spy({3: lambda: signal.raise_signal(signal.SIGINT)}))
    train(config(tmp_path / "run", **options))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("epoch/top1")] == [6]
