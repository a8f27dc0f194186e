"""A training step with a store against one with hard labels: the same student, recipe, images and kind of views.

Both sides decode, render, mix, normalise and step; only the targets differ. The ceiling is the step with hard labels:
records cannot make it faster.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Protocol

import torch

from benchmarks.common import Row, Work, against_ceiling, interleaved, median_rate, median_ratio
from logitstore.device import resolve_device, resolve_dtype
from logitstore.learning.criterion import Criterion, make_criterion
from logitstore.learning.feed import Feed
from logitstore.learning.learner import Learner
from logitstore.learning.step import Placed, StepLoss
from logitstore.loader import Batch, prefetched
from logitstore.models import build_model, default_preprocessing
from logitstore.train import TrainConfig
from logitstore.train.feed import open_feed

STUDENT = "tinyvit_5m"


class Steps(Protocol):
    """What takes training steps: a learner."""

    device: torch.device

    def place(self, batch: Batch) -> Placed:
        """A batch on the device."""

    def train_step(self, placed: Placed) -> StepLoss:
        """One step."""

    def require_finite(self) -> None:
        """Refuse a loss that is not finite."""


def make_learner(config: TrainConfig, feed: Feed, *, criterion: Criterion | None = None) -> Learner:
    """A student with fresh weights and without drop path, as the configuration trains it, or with another loss."""
    recipe, device = config.effective_recipe(), resolve_device(config.device)
    model = build_model(config.student, num_classes=feed.num_classes, size=feed.loader.size, drop_path=0.0, seed=0)
    return Learner(
        model,
        criterion or make_criterion(recipe),
        recipe,
        preprocessing=default_preprocessing(model),
        steps_per_epoch=feed.steps_per_epoch,
        seed=0,
        device=device,
        dtype=resolve_dtype(None, device),
    )


def stepper(feed: Feed, learner: Steps, steps: int) -> Work:
    """A candidate that trains ``steps`` steps a call, going on where it stopped, views and records included."""
    assert steps <= feed.steps_per_epoch
    epochs = count()

    def work() -> int:
        trained = 0
        for placed in prefetched(feed.batches(next(epochs), 0, steps), learner.place, learner.device):
            learner.train_step(placed)
            trained += len(placed)
        learner.require_finite()  # waits for the device
        return trained

    return work


def trainer(config: TrainConfig, steps: int) -> Work:
    """``stepper`` for a configuration."""
    feed = open_feed(config, config.effective_recipe())
    return stepper(feed, make_learner(config, feed), steps)


def measure(
    store: Path, *, device: str, batch_size: int, images: int, steps: int, repeats: int
) -> tuple[Row, list[Row]]:
    """Time training on a store of digits and on their labels.

    Args:
        store: a store of the first ``images`` digits.
        device: as ``logitstore train`` takes it.
        batch_size: images per step.
        images: digits in the store.
        steps: steps in a repeat.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table.
    """
    with_store = TrainConfig(
        student=STUDENT, store=str(store), subset=images, batch_size=batch_size, device=device, epochs=100
    )
    with_labels = TrainConfig(
        student=STUDENT, hard_labels_only=True, subset=images, batch_size=batch_size, device=device, epochs=100
    )
    print(
        f"\nTraining {STUDENT} at 32 px, {steps} steps of {batch_size} a repeat, {resolve_device(device)}. "
        "The ceiling is the step with hard labels."
    )
    candidates = {
        name: trainer(config, steps) for name, config in {"hard labels": with_labels, "store": with_store}.items()
    }
    timings = interleaved(candidates, repeats=repeats)
    rates = {name: median_rate(timings[name]) for name in candidates}
    rows = against_ceiling(rates, "images_per_s", next(iter(rates)))
    summary = {
        "train_ratio": median_ratio(timings["store"], timings["hard labels"]),
        "train_images_per_s": rows[1]["images_per_s"],
        "train_labels_images_per_s": rows[0]["images_per_s"],
    }
    return summary, rows
