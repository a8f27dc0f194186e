"""``train``: from a configuration to a trained student.

The loop knows when things happen (steps, epochs, checkpoints, validation, stopping); what a step is lives in
``learner``, what it is fed in ``feed``, where things are written in ``folder``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.cards import Accuracy, Card, run_folder, save_model, weights_path
from logitstore.device import default_workers, dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.errors import InputError
from logitstore.initial import InitialWeights, take_over
from logitstore.loader import Batch
from logitstore.models import build_model, model_name, own_preprocessing
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.scoring import score
from logitstore.signals import StopRequest, stop_requests
from logitstore.train.config import TrainConfig, TrainResult
from logitstore.train.criterion import make_criterion
from logitstore.train.feed import Feed, open_feed
from logitstore.train.folder import RunFolder
from logitstore.train.learner import Learner
from logitstore.train.metrics import MetricsLog
from logitstore.train.notes import misfits
from students import build_arguments
from students.recipes import Recipe


def train(config: TrainConfig, progress: ProgressFactory | None = None) -> TrainResult:
    """Train a student, or go on with the run in its folder.

    Called again with the same configuration it resumes where the last checkpoint was written, exactly: the weights it
    ends with are those of an unbroken run. Ctrl-C and SIGTERM end it after the step, with a checkpoint.

    Args:
        config: what to train, and how.
        progress: how to show progress; None is silent.

    Raises:
        MismatchError: store, data set and view spec do not belong together, or the folder holds another run. Nothing
            is written.
        InputError: something the user named cannot be used.
        NonFiniteError: the loss is NaN or infinite.
    """
    run = _prepare(config)
    with closing(run.folder):
        state = run.folder.load(fresh=config.fresh)
        if state is not None:
            run.load_state_dict(state)
        batch = run.recipe.batch_size
        total, done = run.total_steps * batch, run.learner.step * batch
        with start(progress, total, "img", f"train {config.student}", done=done) as bar:
            run.announce(bar, resumed=state is not None)
            if not run.finished:
                run.feed.probe(run.learner.step)
                run.folder.begin(anew=state is None)
                with (
                    MetricsLog(run.folder.path, step=run.learner.step, tensorboard=config.tensorboard) as log,
                    stop_requests() as stop,
                ):
                    run.go(bar, log, stop)
                stop.obey()
        return run.result()


def _prepare(config: TrainConfig) -> _Run:
    student = model_name(config.student)
    recipe = config.effective_recipe()
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    feed = open_feed(config, recipe)
    drop_path = recipe.drop_path_of(student)
    model = build_model(
        config.student, num_classes=feed.num_classes, size=feed.loader.size, drop_path=drop_path, seed=config.seed
    )
    out = Path(config.out) if config.out else run_folder("train", config.student, feed.images.name)
    if config.out is None and not config.opens_store:
        out = out.with_name(out.name + "-labels")
    initial = _take_over(config, feed, model, out)
    preprocessing = own_preprocessing(model, feed.loader.size)
    require_runs(model, feed.loader.size, name=student)
    stored, initialised = feed.store is not None, initial is not None
    unfit = misfits(recipe, student, model, feed.loader.spec, stored=stored, initialised=initialised)
    learner = Learner(
        model,
        make_criterion(recipe),
        recipe,
        preprocessing=preprocessing if initial is None else initial.preprocessing(preprocessing),
        steps_per_epoch=feed.steps_per_epoch,
        seed=config.seed,
        device=device,
        dtype=dtype,
        accumulate=config.accumulate,
    )
    identity = {
        "student": student,
        "drop_path": drop_path,
        **({} if initial is None else {"init_from": initial.identity()}),
        **feed.identity(),
        "topk": config.topk,
        "shuffle": config.shuffle,
        "seed": config.seed,
        "accumulate": config.accumulate,
        "device": device.type,
        "dtype": dtype_name(dtype),
        "learning_rates": vars(recipe.learning_rates(recipe.batch_size)),
        "recipe": recipe.to_dict(),
    }
    return _Run(
        config=config,
        recipe=recipe,
        feed=feed,
        initial=initial,
        learner=learner,
        folder=RunFolder(out, identity, config.options()),
        unfit=unfit,
    )


def _take_over(config: TrainConfig, feed: Feed, model: nn.Module, out: Path) -> InitialWeights | None:
    """Give the student the weights that it is to start from, if any."""
    if config.init_from is None:
        return None
    if weights_path(config.init_from).resolve().parent == out.resolve():
        raise InputError(f"The weights of --init-from lie in {out}, which this run would replace: give another --out.")
    return take_over(
        config.init_from, model, cut=config.cut, freeze_copied=config.freeze_copied, class_names=feed.class_names
    )


@dataclass(kw_only=True)
class _Run:
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
