"""A run under way: when steps, epochs, checkpoints, validation and stopping happen.

What a step is lives in ``learner``, what it is fed in ``feed``, where things are written in ``folder``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from logitstore.cards import Accuracy, Card, save_model
from logitstore.device import default_workers
from logitstore.initial import InitialWeights
from logitstore.learning.folder import RunFolder
from logitstore.learning.learner import Learner
from logitstore.learning.metrics import MetricsLog
from logitstore.loader import Batch
from logitstore.progress import Progress
from logitstore.scoring import score
from logitstore.signals import StopRequest
from logitstore.train.config import TrainConfig, TrainResult
from logitstore.train.feed import Feed
from students import build_arguments
from students.recipes import Recipe


@dataclass(kw_only=True)
class Run:
    """A run under way."""

    config: TrainConfig
    recipe: Recipe
    feed: Feed
    initial: InitialWeights | None
    learner: Learner
    folder: RunFolder
    unfit: tuple[str, ...]
    """What of the recipe does not fit, for the user."""
    validated: int = 0
    """Epochs that were validated and logged."""
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of the losses of this epoch's steps so far, on the device."""
    epoch_loss: float | None = None
    """Mean loss of the last whole epoch."""
    accuracy: dict[str, Any] | None = None
    """Of the last epoch."""
    best: dict[str, Any] | None = None
    """Of the best epoch."""
    seconds: float = 0.0
    """Spent in steps by this call."""
    images: int = 0
    """Trained on by this call."""
    bad: set[str] = field(default_factory=set)
    """Names of images that do not decode."""

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.feed.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether an earlier call has done all there is to do."""
        return self.learner.step == self.total_steps and self.validated == self.recipe.epochs

    def announce(self, bar: Progress, *, resumed: bool) -> None:
        """Say in full what is about to be trained, before the first step."""
        bar.say(self.folder.description.rstrip())
        if self.initial is not None:
            bar.say("\n".join(self.initial.lines()))
        for note in (*self.unfit, *self.feed.notes):
            bar.say(note)
        if self.finished:
            bar.say(f"All {self.total_steps} steps are done; the student is {self.folder.weights}.")
        elif resumed:
            bar.say(f"Resuming at step {self.learner.step} of {self.total_steps} from {self.folder.path}.")

    def go(self, bar: Progress, log: MetricsLog, stop: StopRequest) -> None:
        """All steps that are left, unless a stop is requested."""
        self.loss_sum = self.loss_sum.to(self.learner.device)
        per_epoch = self.feed.steps_per_epoch
        while True:
            epoch, step = divmod(self.learner.step, per_epoch)
            if step == 0 and epoch > self.validated:
                self._end_epoch(bar, log)
            if self.learner.step == self.total_steps or stop.signum is not None:
                break
            self._steps(epoch, step, bar, log, stop)
        if stop.signum is not None:
            self._save()
            bar.say(f"Stopped at step {self.learner.step} of {self.total_steps}; the same command goes on from there.")

    def _steps(self, epoch: int, step: int, bar: Progress, log: MetricsLog, stop: StopRequest) -> None:
        """The rest of one pass; ends early when a stop is requested."""
        began = time.monotonic()
        with closing(self.feed.batches(epoch, step)) as batches:
            for batch in batches:
                rate = self.learner.rate
                loss = self.learner.train_step(batch)
                self.loss_sum += loss.total
                self.images += len(batch)
                done = self.learner.step
                notes: dict[str, object] = {}
                if done % self.config.log_steps == 0:
                    self.learner.require_finite()
                    numbers = loss.numbers()
                    log.write("train", done, {"epoch": epoch, **numbers, "lr": rate})
                    notes = {"epoch": epoch + 1, "loss": f"{numbers['loss']:.4f}"}
                bar.advance(len(batch), **notes)
                self._say_bad(batch, bar)
                if stop.signum is not None:
                    break
                if done % self.config.checkpoint_steps == 0 and done % self.feed.steps_per_epoch:
                    self.seconds += time.monotonic() - began
                    self._save()
                    began = time.monotonic()
        self.seconds += time.monotonic() - began

    def _say_bad(self, batch: Batch, bar: Progress) -> None:
        """Name each image that does not decode once."""
        for name in batch.bad:
            if name not in self.bad:
                bar.say(f"{name} does not decode and is left out.")
        self.bad.update(batch.bad)

    def _end_epoch(self, bar: Progress, log: MetricsLog) -> None:
        """Validate, log, keep the best and the last student, write a checkpoint."""
        self.learner.require_finite()
        self.validated += 1
        self.epoch_loss = float(self.loss_sum) / self.feed.steps_per_epoch
        self.loss_sum.zero_()
        values: dict[str, int | float | str | None] = {"epoch": self.validated - 1, "train_loss": self.epoch_loss}
        text = f"epoch {self.validated} of {self.recipe.epochs}: loss {self.epoch_loss:.4f}"
        if self.feed.validation is not None:
            accuracy = self._validate()
            self.accuracy = accuracy.to_dict()
            values |= {"top1": self.accuracy["top1_share"], "top5": self.accuracy["top5_share"]}
            text += f", {accuracy}"
            if self.best is None or self.accuracy["top1"] > self.best["top1"]:
                self.best = self.accuracy
                self._save_student(self.folder.best_weights)
        log.write("epoch", self.learner.step, values)
        bar.say(text)
        if self.learner.step == self.total_steps:
            self._save_student(self.folder.weights)
        self._save()

    def _validate(self) -> Accuracy:
        assert self.feed.validation is not None
        return score(
            self.learner.student,
            self.feed.validation,
            size=self.feed.loader.size,
            preprocessing=self.learner.preprocessing,
            device=self.learner.device,
            dtype=self.learner.dtype,
            batch_size=self.recipe.batch_size,
            workers=self.config.workers or default_workers(self.learner.device),
        )

    def _save_student(self, path: Path) -> None:
        self.learner.require_finite_weights()
        save_model(path, self.learner.student.state_dict(), self._card())

    def _card(self) -> Card:
        feed = self.feed
        return Card(
            model=str(self.folder.identity["student"]),
            model_args=build_arguments(self.config.student, feed.loader.size),
            num_classes=feed.num_classes,
            class_names=feed.class_names,
            size=feed.loader.size,
            preprocessing=self.learner.preprocessing,
            accuracy=self.accuracy,
            epochs=self.validated,
            data=self.folder.identity["data"],
            training={name: value for name, value in self.folder.identity.items() if name != "data"},
        )

    def _save(self) -> None:
        self.learner.require_finite()
        self.learner.require_finite_weights()
        self.folder.save(
            {
                **self.learner.state_dict(),
                "validated": self.validated,
                "loss_sum": self.loss_sum,
                "epoch_loss": self.epoch_loss,
                "accuracy": self.accuracy,
                "best": self.best,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.learner.load_state_dict(dict(state))
        self.validated, self.loss_sum = state["validated"], state["loss_sum"]
        self.epoch_loss, self.accuracy, self.best = state["epoch_loss"], state["accuracy"], state["best"]

    def result(self) -> TrainResult:
        """What the run left behind."""
        return TrainResult(
            out=str(self.folder.path),
            checkpoint=str(self.folder.weights),
            epochs=self.validated,
            steps=self.learner.step,
            loss=self.epoch_loss,
            accuracy=self.accuracy,
            best_checkpoint=None if self.best is None else str(self.folder.best_weights),
            best_accuracy=self.best,
            images_per_second=self.images / self.seconds if self.seconds else 0.0,
        )
