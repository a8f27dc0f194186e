"""Candidates on the bench: how many parameters they have, how fast they are, how well they do when trained briefly."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from logitstore.contract.config import ContractConfig
from logitstore.contract.journal import Entry, Journal
from logitstore.device import dtype_name, resolve_device, resolve_dtype
from logitstore.errors import InputError, NonFiniteError
from logitstore.learning.feed import Feed
from logitstore.models import build_model, model_name
from logitstore.progress import Progress, ProgressFactory
from logitstore.speed import MEASURED_BATCH, TimedModel, device_name, relative_speed
from logitstore.train import train
from logitstore.train.feed import open_feed
from students import build_arguments
from students.contract import Factors, Trial, count_parameters, published_factors, published_name


@dataclass(frozen=True, kw_only=True)
class Task:
    """What candidates are made and trained for, found out before the first one."""

    model: str
    """timm's name of the start."""
    start: Factors
    """What the start is made of, at this size."""
    size: int
    """Side of the images in pixels."""
    num_classes: int
    """C."""
    data: str
    """Name of the data set."""
    identity: dict[str, Any]
    """What decides the outcome of candidates, as JSON types."""
    notes: tuple[str, ...]
    """What the user should know, a sentence each."""

    @classmethod
    def of(cls, config: ContractConfig) -> Task:
        """Open what candidates are trained on, check it, and close it again.

        Raises:
            ModelError: no model goes by the start's name.
            InputError: the start is no TinyViT, or there is nothing to compare candidates on.
            LogitStoreError: what candidates are to be trained on cannot be used.
        """
        model = model_name(config.start)
        if published_factors(model, 224) is None:
            raise InputError(f"--from {config.start} is no TinyViT, and no other family can be contracted yet.")
        training = config.training()
        recipe = training.effective_recipe()
        feed: Feed = open_feed(training, recipe)
        with closing(feed.loader):
            if feed.validation is None:
                raise InputError(
                    f"Candidates are compared by accuracy, and {feed.images.name} has nothing to validate on: name "
                    "images with labels by --val-data."
                )
            size = feed.loader.size
            factors = published_factors(model, size)
            assert factors is not None, "checked above"
            device = resolve_device(config.device)
            identity = {
                "from": model,
                "max_params": config.max_params,
                "min_throughput": config.min_throughput,
                "steps": config.steps,
                "candidates": config.candidates,
                **feed.identity(),
                "val_data": feed.validation.fingerprint,
                "topk": config.topk,
                "shuffle": config.shuffle,
                "seed": config.seed,
                "accumulate": config.accumulate,
                "drop_path": recipe.drop_path_of(model),
                "device": device_name(device),
                "dtype": dtype_name(resolve_dtype(config.dtype, device)),
                "recipe": recipe.to_dict(),
            }
            return cls(
                model=model,
                start=factors,
                size=size,
                num_classes=feed.num_classes,
                data=feed.images.name,
                identity=identity,
                notes=feed.notes,
            )

    def count(self, factors: Factors) -> int:
        """Parameters of a model."""
        return count_parameters(factors, self.num_classes)

    def name(self, factors: Factors) -> str | None:
        """Which published TinyViT a model is; None for any other."""
        return published_name(factors, self.model, self.size)


class Bench:
    """Times and trains the candidates of one search. What was done by an earlier call is not done again.

    Args:
        config: the search's.
        task: what candidates are made for.
        journal: where speeds are written down.
        out: the folder of the search.
        progress: how to show progress of trainings; None is silent.
    """

    def __init__(
        self, config: ContractConfig, task: Task, journal: Journal, out: Path, progress: ProgressFactory | None
    ) -> None:
        self.config, self.task, self.journal, self.out = config, task, journal, out
        self.accuracies: dict[int, dict[str, Any]] = {}
        """Of the candidates trained by this call, by number."""
        self._progress = progress
        self._device = resolve_device(config.device)
        self._dtype = resolve_dtype(config.dtype, self._device)
        self._start: TimedModel | None = None

    def throughput_of_start(self) -> float:
        """Images a second of the model that is contracted, taken once in a search."""
        if self.journal.throughput is not None:
            return self.journal.throughput
        return self._timed_start().images_per_second()

    def measure(self, trial: Trial) -> float:
        """Images a second of a candidate: the start's, times how often as fast the candidate is in turns with it."""
        before = self.journal.throughput_of(trial)
        if before is not None:
            return before
        assert self.journal.throughput is not None, "the start is timed first"
        return self.journal.throughput * relative_speed(self._timed(trial.factors), self._timed_start())

    def score(self, trial: Trial) -> float:
        """Top-1 of a candidate after its training, as a share.

        Every candidate starts from random weights of the same seed, so that none gains by what an earlier one learnt
        and accuracies of all steps compare. One whose loss is not finite has learnt nothing: 0.
        """
        assert trial.throughput is not None, "timed before it is trained"
        begun = self.journal.throughput_of(trial) is not None
        if not begun:
            self.journal.time(trial, trial.throughput)
        self._start = None  # the memory is for training
        # What lies in the folder of one that was not begun was left by a version that draws others.
        training = replace(self.config.training_of(trial.factors, str(self.folder(trial))), fresh=not begun)
        try:
            accuracy = train(training, self._bars(trial)).accuracy
        except NonFiniteError:
            return 0.0
        assert accuracy is not None, "there are validation images"
        self.accuracies[trial.number] = accuracy
        return float(accuracy["top1_share"])

    def add(self, trial: Trial) -> Entry:
        """Write down a candidate that is done with, and keep only the weights that it was compared by."""
        entry = Entry(trial=trial, accuracy=self.accuracies.get(trial.number))
        self.journal.add(entry)
        self.tidy(trial)
        return entry

    def tidy(self, trial: Trial) -> None:
        """Remove what a candidate that is in the journal needs no more."""
        for name in ("checkpoint.pt", "best.safetensors", "best.json"):
            (self.folder(trial) / name).unlink(missing_ok=True)

    def folder(self, trial: Trial) -> Path:
        """Of a candidate's run."""
        return self.out / "candidates" / f"{trial.number:03d}"

    def _timed(self, factors: Factors) -> TimedModel:
        task = self.task
        arguments = build_arguments(task.model, task.size, factors.model_args())
        model = build_model(task.model, num_classes=task.num_classes, size=task.size, model_args=arguments)
        batch_size = MEASURED_BATCH.get(self._device.type, 8)
        return TimedModel(model, size=task.size, batch_size=batch_size, device=self._device, dtype=self._dtype)

    def _timed_start(self) -> TimedModel:
        if self._start is None:
            self._start = self._timed(self.task.start)
        return self._start

    def _bars(self, trial: Trial) -> ProgressFactory | None:
        """Bars of a training that say which candidate it is, and nothing of what its folder tells."""
        progress = self._progress
        if progress is None:
            return None

        def muted(total: int | None, unit: str, label: str) -> Progress:
            bar = progress(total, unit, f"candidate {trial.number} of step {trial.step}")
            bar.say = _unsaid  # type: ignore[method-assign, assignment]
            return bar

        return muted


def _unsaid(_text: str) -> None:
    """Say nothing."""

