"""A run under way: when steps, epochs, checkpoints, validation and stopping happen.

What a step is lives in ``learner``, what it is fed in ``feed``, where things are written in ``folder``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from logitstore.accuracy import Accuracy
from logitstore.cards import Card, save_model
from logitstore.device import Compute
from logitstore.learning.feed import Feed
from logitstore.learning.folder import RunFolder
from logitstore.learning.learner import Learner
from logitstore.learning.metrics import MetricsLog
from logitstore.loader import Batch
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.scoring import score
from logitstore.signals import StopRequest, stop_requests


@dataclass(kw_only=True)
class Run:
    """A run under way."""

    feed: Feed
    learner: Learner
    folder: RunFolder
    epochs: int
    """Passes over the data."""
    card: Card
    """Of the weights, but for what the run finds out: accuracy and epochs done."""
    kind: str
    """``student`` or ``teacher``: what the run makes, for messages."""
    notes: tuple[str, ...] = ()
    """What the user should know before the first step."""
    keep_best: bool = False
    """Save the model of the epoch that validates best, too."""
    checkpoint_steps: int = 500
    """Steps between two checkpoints; there is one at the end of each epoch, too."""
    log_steps: int = 10
    """Steps between two lines of metrics."""
    validated: int = 0
    """Epochs that were validated and logged."""
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of the losses of this epoch's steps so far, on the device."""
    epoch_loss: float | None = None
    """Mean loss of the last whole epoch."""
    accuracy: dict[str, Any] | None = None
    """Of the last epoch."""
    best: dict[str, Any] | None = None
    """Of the best epoch; None where the best model is not kept."""
    seconds: float = 0.0
    """Spent in steps by this call."""
    images: int = 0
    """Trained on by this call."""
    bad: set[str] = field(default_factory=set)
    """Names of images that do not decode."""

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.feed.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether an earlier call has done all there is to do, and what it made is still there."""
        done = self.learner.step == self.total_steps and self.validated == self.epochs
        return done and self.folder.weights.exists()

    @property
    def images_per_second(self) -> float:
        """Training images per second of this call, validation and checkpoints left out; 0 where none were left."""
        return self.images / self.seconds if self.seconds else 0.0

    def carry_out(self, label: str, progress: ProgressFactory | None, *, fresh: bool, tensorboard: bool) -> None:
        """All that is left of the run in the folder: everything, or what comes after its last checkpoint.

        Ctrl-C and SIGTERM end it after the step, with a checkpoint.

        Args:
            label: what is being done, for the progress bar.
            progress: how to show progress; None is silent.
            fresh: start anew where the folder holds a run.
            tensorboard: write TensorBoard events.

        Raises:
            MismatchError: the folder holds another run. Nothing is written.
            InputError: the folder holds a model of something else, or another process is at work there.
            NonFiniteError: the loss is NaN or infinite.
        """
        with closing(self.folder):
            state = self.folder.load(fresh=fresh)
            if state is not None:
                self.load_state_dict(state)
            batch = self.feed.loader.batch_size
            total, done = self.total_steps * batch, self.learner.step * batch
            with start(progress, total, "img", label, done=done) as bar:
                self._announce(bar, resumed=state is not None)
                if not self.finished:
                    self.feed.probe(self.learner.step)
                    self.folder.begin(anew=state is None)
                    with (
                        MetricsLog(self.folder.path, step=self.learner.step, tensorboard=tensorboard) as log,
                        stop_requests() as stop,
                    ):
                        self._go(bar, log, stop)
                    stop.obey()

    def _announce(self, bar: Progress, *, resumed: bool) -> None:
        """Say in full what is about to be trained, before the first step."""
        bar.say(self.folder.description.rstrip())
        for note in (*self.notes, *self.feed.notes):
            bar.say(note)
        if self.finished:
            bar.say(f"All {self.total_steps} steps are done; the {self.kind} is {self.folder.weights}.")
        elif resumed:
            bar.say(f"Resuming at step {self.learner.step} of {self.total_steps} from {self.folder.path}.")

    def _go(self, bar: Progress, log: MetricsLog, stop: StopRequest) -> None:
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
        if self.learner.step == self.total_steps and not self.folder.weights.exists():  # taken away since
            self._save_model(self.folder.weights)
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
                if done % self.log_steps == 0:
                    self.learner.require_finite()
                    numbers = loss.numbers()
                    log.write("train", done, {"epoch": epoch, **numbers, "lr": rate})
                    notes = {"epoch": epoch + 1, "loss": f"{numbers['loss']:.4f}"}
                bar.advance(len(batch), **notes)
                self._say_bad(batch, bar)
                if stop.signum is not None:
                    break
                if done % self.checkpoint_steps == 0 and done % self.feed.steps_per_epoch:
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
        """Validate, log, keep the best and the last model, write a checkpoint."""
        self.learner.require_finite()
        self.validated += 1
        self.epoch_loss = float(self.loss_sum) / self.feed.steps_per_epoch
        self.loss_sum.zero_()
        values: dict[str, int | float | str | None] = {"epoch": self.validated - 1, "train_loss": self.epoch_loss}
        text = f"epoch {self.validated} of {self.epochs}: loss {self.epoch_loss:.4f}"
        if self.feed.validation is not None:
            accuracy = self._validate()
            self.accuracy = accuracy.to_dict()
            values |= {"top1": self.accuracy["top1_share"], "top5": self.accuracy["top5_share"]}
            text += f", {accuracy}"
            if self.keep_best and (self.best is None or self.accuracy["top1"] > self.best["top1"]):
                self.best = self.accuracy
                self._save_model(self.folder.best_weights)
        log.write("epoch", self.learner.step, values)
        bar.say(text)
        if self.learner.step == self.total_steps:
            self._save_model(self.folder.weights)
        self._save()

    def _validate(self) -> Accuracy:
        assert self.feed.validation is not None
        return score(
            self.learner.result,
            self.feed.validation,
            size=self.feed.loader.size,
            preprocessing=self.learner.preprocessing,
            compute=Compute(
                device=self.learner.device,
                dtype=self.learner.dtype,
                batch_size=self.feed.loader.batch_size,
                workers=self.feed.loader.workers,
            ),
        )

    def _save_model(self, path: Path) -> None:
        self.learner.require_finite_weights()
        card = replace(self.card, accuracy=self.accuracy, epochs=self.validated)
        save_model(path, self.learner.result.state_dict(), card)

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
