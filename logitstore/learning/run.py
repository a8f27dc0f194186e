"""A run under way: when steps, epochs, checkpoints, validation and stopping happen.

What a step is lives in ``learner``, what it is fed in ``feed``, where things are written in ``folder``, and how several
processes agree in ``distributed``: of these the main one alone reads and writes the folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from logitstore.cards import Card, save_model
from logitstore.device import Compute
from logitstore.distributed import Ranks
from logitstore.learning.feed import Feed
from logitstore.learning.folder import RunFolder
from logitstore.learning.learner import Learner
from logitstore.learning.metrics import MetricsLog
from logitstore.learning.step import Placed
from logitstore.learning.validation import shared_accuracy
from logitstore.loader.prefetch import prefetched
from logitstore.progress import Progress, ProgressFactory, start
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
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that carry it out together."""
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
    """Trained on by this call, in all processes."""
    stopped_by: int | None = None
    """The signal that ends this call, as all processes agreed."""
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
        main = self.ranks.is_main
        with closing(self.folder):
            with self.ranks.agreed():
                state = self.folder.load(fresh=fresh) if main else None
            state = self.ranks.from_main(state)
            if state is not None:
                self.load_state_dict(state)
            finished = self.ranks.from_main(self.finished)
            batch = self.feed.loader.batch_size
            total, done = self.total_steps * batch, self.learner.step * batch
            with start(progress if main else None, total, "img", label, done=done) as bar:
                self._announce(bar, resumed=state is not None, finished=finished)
                if not finished:
                    with self.ranks.agreed():
                        self.feed.probe(self.learner.step)
                    with self.ranks.agreed():
                        if main:
                            self.folder.begin(anew=state is None)
                    directory = self.folder.path if main else None
                    with (
                        MetricsLog(directory, step=self.learner.step, tensorboard=tensorboard) as log,
                        stop_requests() as stop,
                    ):
                        self._go(bar, log, stop)
                    stop.signum = stop.signum or self.stopped_by
                    stop.obey()

    def _announce(self, bar: Progress, *, resumed: bool, finished: bool) -> None:
        """Say in full what is about to be trained, before the first step."""
        bar.say(self.folder.description.rstrip())
        for note in (*self.notes, *self.feed.notes, *self.learner.notes):
            bar.say(note)
        if finished:
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
            if self.learner.step == self.total_steps or self.stopped_by is not None:
                break
            self._steps(epoch, step, bar, log, stop)
        if self.learner.step == self.total_steps:
            self._save_model(self.folder.weights, again=False)  # taken away since
        if self.stopped_by is not None:
            self._save()
            bar.say(f"Stopped at step {self.learner.step} of {self.total_steps}; the same command goes on from there.")

    def _steps(self, epoch: int, step: int, bar: Progress, log: MetricsLog, stop: StopRequest) -> None:
        """The rest of one pass; ends early when a stop is requested."""
        began = time.monotonic()
        with (
            closing(self.feed.batches(epoch, step)) as batches,
            closing(prefetched(batches, self.learner.place, self.learner.device)) as ready,
        ):
            while (found := self._next(ready, bar, stop)) is not None:
                batch, weight = found
                rate = self.learner.rate
                done = self.learner.step + 1
                notes: dict[str, object] = {}
                with self.ranks.alike():
                    loss = self.learner.train_step(batch, weight=weight)
                    if done % self.log_steps == 0:
                        self.learner.require_finite()
                self.loss_sum += loss.total
                self.images += self.feed.loader.batch_size
                if done % self.log_steps == 0:
                    numbers = loss.numbers()
                    log.write("train", done, {"epoch": epoch, **numbers, "lr": rate})
                    notes = {"epoch": epoch + 1, "loss": f"{numbers['loss']:.4f}"}
                bar.advance(self.feed.loader.batch_size, **notes)
                if done % self.checkpoint_steps == 0 and done % self.feed.steps_per_epoch:
                    self.seconds += time.monotonic() - began
                    self._save()
                    began = time.monotonic()
        self.seconds += time.monotonic() - began

    def _next(self, ready: Iterator[Placed], bar: Progress, stop: StopRequest) -> tuple[Placed, float] | None:
        """This process's part of the next batch, and the weight of the whole batch.

        All processes agree here, once a step: whether each has its part, and whether any was told to stop.

        Returns:
            None at the end of the pass, or where the run is to stop.
        """
        batch: Placed | None = None
        failure: Exception | None = None
        try:
            batch = next(ready, None)
        except Exception as exc:
            failure = exc
        weight, bad = (0.0, ()) if batch is None else (batch.weight, batch.batch.bad)
        unsaid = [name for name in bad if name not in self.bad]
        row = (weight, stop.signum or 0, failure is not None, len(unsaid))
        weight_W, signum_W, failed_W, unsaid_W = self.ranks.gathered(row).T
        self.ranks.settle(failure, failed_W > 0)
        if unsaid_W.any():
            for name in self.ranks.gathered_names(unsaid):
                bar.say(f"{name} does not decode and is left out.")
                self.bad.add(name)
        self.stopped_by = int(signum_W.max()) or None
        if batch is None or self.stopped_by is not None:
            return None
        return batch, float(weight_W.sum())

    def _end_epoch(self, bar: Progress, log: MetricsLog) -> None:
        """Validate, log, keep the best and the last model, write a checkpoint."""
        with self.ranks.alike():
            self.learner.require_finite()
        self.validated += 1
        self.epoch_loss = float(self.loss_sum) / self.feed.steps_per_epoch
        self.loss_sum.zero_()
        values: dict[str, int | float | str | None] = {"epoch": self.validated - 1, "train_loss": self.epoch_loss}
        text = f"epoch {self.validated} of {self.epochs}: loss {self.epoch_loss:.4f}"
        if self.feed.validation is not None:
            accuracy = shared_accuracy(
                self.learner.result,
                self.feed.validation,
                self.ranks,
                size=self.feed.loader.size,
                preprocessing=self.learner.preprocessing,
                compute=Compute(
                    device=self.learner.device,
                    dtype=self.learner.dtype,
                    batch_size=self.feed.loader.batch_size // self.ranks.world,
                    workers=self.feed.loader.workers,
                ),
                threads=self.feed.loader.threads,
            )
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

    def _save_model(self, path: Path, *, again: bool = True) -> None:
        with self.ranks.agreed():
            if self.ranks.is_main and (again or not path.exists()):
                self.learner.require_finite_weights()
                card = replace(self.card, accuracy=self.accuracy, epochs=self.validated)
                save_model(path, self.learner.result.state_dict(), card)

    def _save(self) -> None:
        with self.ranks.agreed():
            self.learner.require_finite()
            if self.ranks.is_main:
                self.learner.require_finite_weights()
                self.folder.save(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """What a later call goes on from, with any number of processes: nothing in it depends on how many there are."""
        return {
            **self.learner.state_dict(),
            "validated": self.validated,
            "loss_sum": self.loss_sum,
            "epoch_loss": self.epoch_loss,
            "accuracy": self.accuracy,
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.learner.load_state_dict(dict(state))
        self.validated, self.loss_sum = state["validated"], state["loss_sum"]
        self.epoch_loss, self.accuracy, self.best = state["epoch_loss"], state["accuracy"], state["best"]
