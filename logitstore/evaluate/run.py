"""``evaluate``: from a configuration to what was measured. Shape suffixes: N images, L right classes of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logitstore.accuracy import Accuracy
from logitstore.device import Compute
from logitstore.evaluate.compare import agreement, baseline_columns, baseline_gains, teacher_columns
from logitstore.evaluate.config import EvalConfig
from logitstore.evaluate.real import numbered_by_model, real_labels
from logitstore.evaluate.result import EvalResult
from logitstore.images import ImageSet, named_by_number, open_images
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.scoring import accuracy_of, label_ranks
from logitstore.trained import TrainedModel, load_trained


def evaluate(config: EvalConfig, progress: ProgressFactory | None = None) -> EvalResult:
    """Measure a model on a data set: accuracy, and what it shares with a teacher or gains over a baseline.

    Labels are needed for accuracy alone: without them ReaL labels or a teacher must be asked for.

    Args:
        config: what to measure.
        progress: how to show progress; None is silent.

    Raises:
        ModelError: weights cannot be read, or what they are of is not known.
        DataError: no such data set, it has no labels, or its files are not those that ReaL labels are of.
        InputError: its classes are not the model's, or two models that are compared have different classes.
    """
    images = open_images(config.data, split=config.split, subset=config.subset, whole=True)
    if config.baseline is not None or not (config.real or config.teacher):
        images.require_labels("to measure accuracy")
    compute = Compute.of(
        device=config.device, dtype=config.dtype, batch_size=config.batch_size, workers=config.workers
    )
    model = load_trained(
        config.checkpoint,
        option="--checkpoint",
        compute=compute,
        model=config.model,
        size=config.size,
        default_size=images.default_size,
    )
    matched = _how_matched(model, images)
    images = model.numbering(images, start(progress, None, "img").say)
    real_NL = _real(config, model, images)
    teacher, baseline = _others(config, model)
    passes = 1 + (teacher is not None) + (baseline is not None)
    with start(progress, passes * len(images), "img", f"eval {model.name}") as bar:
        own, real, right_N = _measure(model, images, real_NL, bar)
        return EvalResult(
            checkpoint=model.path,
            model=model.name,
            data=images.name,
            split=images.split,
            size=model.size,
            num_samples=len(images),
            matched=matched,
            accuracy=own,
            real=real,
            agreement=None if teacher is None else agreement(model, teacher, images, bar.advance),
            gains=None if baseline is None else baseline_gains(model, right_N, baseline, images, bar.advance),
        )


def _how_matched(model: TrainedModel, images: ImageSet) -> str | None:
    """As ``EvalResult.matched`` says it."""
    if images.labels is None:
        return None
    if images.class_names is None or named_by_number(model.class_names, images.class_names):
        return "number"
    return "order" if model.class_names is None else "name"


def _real(config: EvalConfig, model: TrainedModel, images: ImageSet) -> NDArray[np.int64] | None:
    if not config.real:
        return None
    return numbered_by_model(real_labels(images), model.class_names, model.num_classes)


def _others(config: EvalConfig, model: TrainedModel) -> tuple[TrainedModel | None, TrainedModel | None]:
    """Teacher and baseline, found comparable before the first image is looked at."""
    teacher = baseline = None
    if config.teacher is not None:
        teacher = load_trained(config.teacher, option="--teacher", compute=model.compute)
        teacher_columns(model, teacher)
    if config.baseline is not None:
        baseline = load_trained(config.baseline, option="--baseline", compute=model.compute)
        baseline_columns(model, baseline)
    return teacher, baseline


def _measure(
    model: TrainedModel, images: ImageSet, real_NL: NDArray[np.int64] | None, bar: Progress
) -> tuple[Accuracy | None, Accuracy | None, NDArray[np.bool_]]:
    """Accuracy on the labels, that on the ReaL labels, and which images are right by the labels."""
    never = model.num_classes
    rank_N, real_rank_N = np.full((2, len(images)), never, np.int64)
    with model.logits(images, bar.advance) as batches:
        for rows, logits_BC in batches:
            if images.labels is not None:
                rank_N[rows] = label_ranks(logits_BC, images.labels[rows, None])
            if real_NL is not None:
                real_rank_N[rows] = label_ranks(logits_BC, real_NL[rows])
    own = None if images.labels is None else accuracy_of(rank_N, images.split)
    # Without a right class there is nothing to get right.
    real = None if real_NL is None else accuracy_of(real_rank_N[(real_NL >= 0).any(1)], images.split)
    return own, real, rank_N < 1
