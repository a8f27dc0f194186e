"""Runs on every loss, from a store of digits: what they log, what they refuse, and that they resume exactly."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import write_images
from torch.nn import functional
from train_cases import STUDENT, Spy, config, make_store, metrics, same_weights

from logitstore.device import normalise
from logitstore.errors import DataError, InputError, LogitStoreError
from logitstore.learning.metrics import MetricsLog
from logitstore.models import build_model, own_preprocessing
from logitstore.teacher import load_teacher
from logitstore.train import train
from logitstore.train.feed import open_feed

DENSE = {"topk": 10, "floor": 0.0, "values": "f16", "logz": True}
LAST = 11  # of twelve steps, from 0
RUNS: dict[str, dict[str, Any]] = {
    "mse": {"distillation": "mse"},
    "kl": {"distillation": "kl", "temperature": 4.0},
    "harmonic": {"distillation": "mse", "joint": "harmonic", "label_smoothing": 0.1},
    "ratio": {"joint": "ratio"},
    "schedule": {"distillation": "kl", "temperature": 2.0, "joint": "alpha", "alpha": (0.0, 0.5)},
    "pieces": {"distillation": "mse", "joint": "harmonic", "harmonic_weights": (1.0, 1.0), "accumulate": 4},
}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("sparse") / "store")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With views mixed in pairs."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "mixed.yaml").write_text("base: crop_flip\nmixup: 0.8\ncutmix: 1.0\nhflip: 0.0\n")
    return make_store(folder / "store", view=str(folder / "mixed.yaml"), **DENSE)


@pytest.fixture(scope="module")
def logged(sparse: Path, dense: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each run logs at its steps."""
    found = {}
    for name, options in RUNS.items():
        store = dense if options.get("distillation") == "mse" else sparse
        out = tmp_path_factory.mktemp(name) / "run"
        quick = {"base_lr": 0.05, "warmup_epochs": 0.0, "drop_path": 0.0, "tensorboard": name == "harmonic"}
        result = train(config(out, store=str(store), **quick, **options))
        assert result.steps == LAST + 1 and Path(result.checkpoint).is_file()
        found[name] = [line for line in metrics(out) if line["group"] == "train"]
        if name == "harmonic":
            assert tags(out) >= {"train/loss_distillation", "train/loss_labels"}
    return found


def tags(out: Path) -> set[str]:
    """Names of the curves that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return set(events.Tags()["scalars"])


@pytest.mark.parametrize("name", RUNS)
def test_a_student_learns_from_every_loss(logged: dict[str, list[dict[str, Any]]], name: str) -> None:
    steps = logged[name]
    assert len(steps) == LAST + 1
    parts = [key for key in ("loss_distillation", "loss_labels") if key in steps[0]]
    assert parts == (["loss_distillation"] if name in ("mse", "kl") else ["loss_distillation", "loss_labels"])
    for step in steps:
        assert all(np.isfinite(step[key]) and step[key] > 0 for key in ("loss", *parts))
    first, last = (np.mean([step["loss_distillation"] for step in some]) for some in (steps[:3], steps[-3:]))
    assert last < 0.95 * first


def test_the_logged_loss_is_the_joint_of_the_logged_parts(logged: dict[str, list[dict[str, Any]]]) -> None:
    def parts(step: dict[str, Any]) -> tuple[float, float]:
        return step["loss_distillation"], step["loss_labels"]

    for name, (weight_d, weight_s) in {"harmonic": (13, 1), "pieces": (1, 1)}.items():
        for step in logged[name]:
            d, s = parts(step)
            assert step["loss"] == pytest.approx((weight_d + weight_s) / (weight_d / d + weight_s / s), rel=1e-5)
            assert "alpha" not in step
    for step in logged["ratio"]:
        d, s = parts(step)
        assert step["alpha"] == pytest.approx(d / (d + s), rel=1e-5)
        assert step["loss"] == pytest.approx(2 * d * s / (d + s), rel=1e-5)
    for number, step in enumerate(logged["schedule"]):
        d, s = parts(step)
        assert step["alpha"] == pytest.approx(0.5 * number / LAST)
        assert step["loss"] == pytest.approx((1 - step["alpha"]) * d + step["alpha"] * s, rel=1e-5)


def live(store: Path, **options: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of student and teacher, and the mixed labels, for the first batch of a run, with no record read."""
    whole = config(Path("unused"), store=str(store), **options)
    feed = open_feed(whole, whole.effective_recipe())
    batch = next(feed.batches(0))
    model = build_model(STUDENT, num_classes=10, size=32, drop_path=0.0, seed=0).train()
    prepared = own_preprocessing(model, 32)
    images_BCHW = normalise(torch.from_numpy(batch.views_BCHW), prepared.mean, prepared.std, torch.device("cpu"))
    with torch.no_grad():
        student_BC = model(images_BCHW)
    teacher_BC = load_teacher("train_cases:pooled_teacher", size=32, device="cpu").logits(batch.views_BCHW)
    own_B1 = torch.from_numpy(batch.own_B)[:, None]
    one_hot = torch.eye(10, dtype=torch.float64)
    label_BC = own_B1 * one_hot[batch.label_B] + (1 - own_B1) * one_hot[batch.partner_label_B]
    return student_BC.double(), teacher_BC.double(), label_BC


def test_the_first_loss_is_that_of_the_live_teacher_and_of_labels_mixed_as_the_views(
    dense: Path, tmp_path: Path
) -> None:
    options = {"drop_path": 0.0, "epochs": 1}
    student_BC, teacher_BC, label_BC = live(dense, **options)
    assert ((label_BC > 0).sum(1) == 2).any(), "nothing is mixed"
    divergence = functional.kl_div(
        (student_BC / 4).log_softmax(1), (teacher_BC / 4).softmax(1), reduction="batchmean"
    )
    expected = {"mse": functional.mse_loss(student_BC, teacher_BC), "kl": 16 * divergence}
    labels = functional.cross_entropy(student_BC, label_BC)
    for loss, distillation in expected.items():
        temperature = {"temperature": 4.0} if loss == "kl" else {}
        joint = {"distillation": loss, "joint": "alpha", "alpha": (0.25, 0.25), **temperature}
        train(config(tmp_path / loss, store=str(dense), **options, **joint))
        step = metrics(tmp_path / loss)[0]
        assert step["loss_distillation"] == pytest.approx(distillation.item(), rel=2e-3)
        assert step["loss_labels"] == pytest.approx(labels.item(), rel=1e-4)


def test_a_schedule_goes_on_exactly(sparse: Path, tmp_path: Path) -> None:
    options = {"store": str(sparse), **RUNS["schedule"]}
    whole = train(config(tmp_path / "whole", **options))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run", **options), Spy({5: lambda: signal.raise_signal(signal.SIGINT)}))
    assert max(int(str(line["step"])) for line in metrics(tmp_path / "run")) == 5
    resumed = train(config(tmp_path / "run", **options))
    assert same_weights(resumed.checkpoint, whole.checkpoint)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_logits_are_found_whatever_the_order_and_the_size(dense: Path, tmp_path: Path) -> None:
    options = {"store": str(dense), "epochs": 1, "distillation": "mse"}
    for name, more in {"shuffled": {"shuffle": "shards"}, "larger": {"size": 48}}.items():
        train(config(tmp_path / name, **options, **more))
        assert all(0 < line["loss"] < 100 for line in metrics(tmp_path / name) if line["group"] == "train")


def test_samples_that_were_skipped_do_not_reach_the_losses(tmp_path: Path) -> None:
    data = tmp_path / "images"
    write_images(data, [f"{'ab'[number % 2]}/{number}.png" for number in range(64)])
    broken = data / "a" / "8.png"
    broken.write_bytes(broken.read_bytes()[:60])
    store = make_store(
        tmp_path / "store", data=str(data), subset=None, size=32, epochs=1, skip_bad=True, view="crop_flip",
        teacher="test_train_losses:two_classes", **{**DENSE, "topk": 2},
    )  # fmt: skip
    for name, options in {"one": {}, "pieces": {"accumulate": 2}}.items():
        joint = {"distillation": "mse", "joint": "harmonic", **options}
        train(config(tmp_path / name, store=str(store), data=str(data), epochs=2, **joint))
        lines = [line for line in metrics(tmp_path / name) if line["group"] == "train"]
        assert len(lines) == 4 and all(np.isfinite(line["loss"]) for line in lines)


def two_classes() -> torch.nn.Module:
    """What ``--teacher test_train_losses:two_classes`` calls."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))


def test_without_a_distillation_loss_a_run_trains_on_labels(tmp_path: Path) -> None:
    shared = {"epochs": 1, "subset": 200}
    named = train(config(tmp_path / "none", distillation="none", **shared))
    flagged = train(config(tmp_path / "flag", hard_labels_only=True, **shared))
    assert same_weights(named.checkpoint, flagged.checkpoint)
    assert {"loss", "loss_labels"} <= metrics(tmp_path / "none")[0].keys()


def refused(tmp_path: Path, error: type[LogitStoreError], match: str, **options: Any) -> str:
    """``train`` raises this and writes nothing."""
    with pytest.raises(error, match=match) as caught:
        train(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()
    return str(caught.value)


def test_logits_are_refused_where_the_store_has_none(sparse: Path, tmp_path: Path) -> None:
    message = refused(tmp_path, InputError, "logits do not come back", store=str(sparse), distillation="mse")
    assert "keeps the top 5 of 10 classes above 0.001 as q8 without their log-sum-exp" in message
    command = "logitstore dump --teacher train_cases:pooled_teacher --topk 10 --floor 0 --values f16 --logz"
    assert command in message
    assert "\n" not in message


def test_topk_has_no_meaning_with_logits(dense: Path, tmp_path: Path) -> None:
    refused(tmp_path, InputError, "compares logits of all classes", store=str(dense), distillation="mse", topk=3)


@pytest.fixture(scope="module")
def without_labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Images without classes, and a store of them."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_images(folder / "images", [f"{number}.png" for number in range(64)])
    data = str(folder / "images")
    return {"data": data, "store": str(make_store(folder / "store", data=data, subset=None, size=32, epochs=1))}


@pytest.mark.parametrize(
    "options",
    [{"joint": "harmonic"}, {"joint": "ratio"}, {"joint": "alpha", "alpha": (0.0, 0.5)}],
    ids=lambda options: options["joint"],
)
def test_data_without_labels_refuses_losses_on_them(
    without_labels: dict[str, str], tmp_path: Path, options: dict[str, Any]
) -> None:
    match = f"has no labels for the loss on hard labels in the joint loss {options['joint']}"
    refused(tmp_path, DataError, match, **without_labels, **options)


def test_data_without_labels_is_distilled_where_alpha_is_zero(without_labels: dict[str, str], tmp_path: Path) -> None:
    train(config(tmp_path / "run", **without_labels, epochs=1, joint="alpha"))
    assert metrics(tmp_path / "run")[0].keys() & {"loss_labels", "alpha"} == set()


def test_data_without_labels_refuses_labels_alone(without_labels: dict[str, str], tmp_path: Path) -> None:
    refused(
        tmp_path, DataError, "has no labels to train on, as the recipe .* does with distillation none",
        data=without_labels["data"], distillation="none",
    )  # fmt: skip


def test_metrics_are_whole_if_the_process_dies_while_they_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 5):
            log.write("train", step, {"loss": 1.0})
    before = (tmp_path / "metrics.jsonl").read_text()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        MetricsLog(tmp_path, step=2, tensorboard=False).__enter__()
    assert (tmp_path / "metrics.jsonl").read_text() == before
    with MetricsLog(tmp_path, step=2, tensorboard=False):
        pass
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]
