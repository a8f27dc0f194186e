"""Two models on the same images: agreement with a teacher, gains over a baseline.

Each model sees the images in its own size and with its own preprocessing. Shape suffixes: B batch, C classes, N images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitstore.accuracy import Z_95, wilson_interval
from logitstore.images import ImageSet
from logitstore.scoring import label_ranks
from logitstore.trained import TrainedModel

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a student's answers compare with a teacher's, over the classes that both know."""

    teacher: str
    """Its file of weights."""
    model: str
    """timm's name of it."""
    size: int
    """Side of its views in pixels."""
    num_classes: int
    """Classes compared: the student's."""
    images: int
    """Images compared."""
    same_top1: int
    """Of these, with the same class first."""
    kl: float
    """Mean of KL(teacher || student) over the images, in nats."""

    def to_dict(self) -> dict[str, Any]:
        """With the share of equal top-1 and its 95% Wilson interval."""
        return {
            **asdict(self),
            "share": self.same_top1 / self.images,
            "interval": list(wilson_interval(self.same_top1, self.images)),
        }


def agreement(
    student: TrainedModel, teacher: TrainedModel, images: ImageSet, advance: Callable[[int], object] | None = None
) -> Agreement:
    """Compare a student's answers with a teacher's, image by image.

    Both models are in memory; of the logits there is one batch of each. Where the teacher knows more classes, its
    probabilities are those of the common classes, normalised to one.

    Args:
        student: whose classes are compared.
        teacher: must know them all.
        images: labels do not matter.
        advance: called with the number of images done since the last call.

    Raises:
        InputError: the teacher does not know all of the student's classes.
    """
    column_C = torch.from_numpy(teacher_columns(student, teacher))
    same, total = 0, 0.0
    with student.logits(images, advance) as ours, teacher.logits(images) as theirs:
        for (_, student_BC), (_, teacher_BC) in zip(ours, theirs, strict=True):
            common_BC = teacher_BC.index_select(1, column_C.to(teacher_BC.device))
            same += int((_first(common_BC) == _first(student_BC)).sum())
            total += float(_kl(common_BC, student_BC).sum())
    return Agreement(
        teacher=teacher.path,
        model=teacher.name,
        size=teacher.size,
        num_classes=student.num_classes,
        images=len(images),
        same_top1=same,
        kl=total / len(images),
    )


def teacher_columns(student: TrainedModel, teacher: TrainedModel) -> NDArray[np.int64]:
    """Where the student's classes are among the teacher's logits.

    Raises:
        InputError: the teacher does not know them all.
    """
    return teacher.columns_of(student, who="--teacher", others="--checkpoint")


def _first(logits_BC: Tensor) -> Tensor:
    """The most probable class [B]; of equal ones the lowest."""
    class_C = torch.arange(logits_BC.shape[1], device=logits_BC.device)
    best_B1 = logits_BC.amax(1, keepdim=True)
    return torch.where(logits_BC == best_B1, class_C, logits_BC.shape[1]).amin(1)


def _kl(teacher_BC: Tensor, student_BC: Tensor) -> Tensor:
    """KL(teacher || student) of each image [B], float64: differences of large logarithms."""
    logp_BC, logq_BC = teacher_BC.double().log_softmax(1), student_BC.double().log_softmax(1)
    # A class that the teacher rules out adds nothing, though its logarithm may be infinite.
    term_BC = torch.where(logp_BC.isneginf(), 0.0, logp_BC.exp() * (logp_BC - logq_BC))
    return term_BC.sum(1).clamp(min=0)  # which rounding may miss for equal logits


@dataclass(frozen=True, kw_only=True)
class ClassGain:
    """One class of the data set under both models."""

    number: int
    """The checkpoint's number of the class."""
    name: str
    """Its name; its number where it has none."""
    images: int
    """Images of it."""
    correct: int
    """Of these, classified correctly by the checkpoint."""
    baseline_correct: int
    """Of these, classified correctly by the baseline."""

    @property
    def difference(self) -> float:
        """The checkpoint's top-1 accuracy on this class minus the baseline's, in [-1, 1]."""
        return (self.correct - self.baseline_correct) / self.images

    def to_dict(self) -> dict[str, Any]:
        """With both accuracies and their difference."""
        shares = {"top1": self.correct / self.images, "baseline_top1": self.baseline_correct / self.images}
        return {**asdict(self), **shares, "difference": self.difference}

    def __str__(self) -> str:
        return f"{self.name} {100 * self.difference:+.1f} ({self.baseline_correct} to {self.correct} of {self.images})"


@dataclass(frozen=True, kw_only=True)
class Gains:
    """What a checkpoint gains over a baseline in top-1 accuracy, overall and class by class."""

    baseline: str
    """Its file of weights."""
    model: str
    """timm's name of it."""
    size: int
    """Side of its views in pixels."""
    images: int
    """Images compared."""
    baseline_correct: int
    """Of these, classified correctly by the baseline."""
    gained: int
    """Right with the checkpoint and wrong with the baseline."""
    lost: int
    """Wrong with the checkpoint and right with the baseline."""
    classes: tuple[ClassGain, ...]
    """All classes that have images, the largest gain first."""

    @property
    def difference(self) -> float:
        """The checkpoint's top-1 accuracy minus the baseline's, in [-1, 1]."""
        return (self.gained - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of ``difference``."""
        return paired_interval(self.gained, self.lost, self.images)

    def largest(self) -> list[ClassGain]:
        """The classes that gain most."""
        return [entry for entry in self.classes[:_SHOWN] if entry.difference > 0]

    def lowest(self) -> list[ClassGain]:
        """The classes that lose most, the largest loss first."""
        return [entry for entry in self.classes[: -_SHOWN - 1 : -1] if entry.difference < 0]

    def to_dict(self) -> dict[str, Any]:
        """With the shares and the interval of their difference."""
        return {
            **{name: value for name, value in asdict(self).items() if name != "classes"},
            "baseline_top1": self.baseline_correct / self.images,
            "difference": self.difference,
            "interval": list(self.interval),
            "classes": [entry.to_dict() for entry in self.classes],
        }


def baseline_gains(
    checkpoint: TrainedModel,
    right_N: NDArray[np.bool_],
    baseline: TrainedModel,
    images: ImageSet,
    advance: Callable[[int], object] | None = None,
) -> Gains:
    """Compare top-1 accuracies on the same images, class by class.

    Args:
        checkpoint: the model that is asked about.
        right_N: which images it classified correctly.
        baseline: the other one.
        images: with labels that number the checkpoint's classes.
        advance: called with the number of images done since the last call.

    Raises:
        InputError: the baseline's classes are others.
    """
    number_C = baseline_columns(checkpoint, baseline)
    label_N = images.require_labels("to compare accuracies class by class")
    baseline_N = np.empty(len(images), bool)
    with baseline.logits(images, advance) as batches:
        for rows, logits_BC in batches:
            baseline_N[rows] = label_ranks(logits_BC, number_C[label_N[rows], None]) < 1
    names = images.class_names
    classes = [
        ClassGain(
            number=int(number),
            name=names[number] if names else str(number),
            images=int((label_N == number).sum()),
            correct=int(right_N[label_N == number].sum()),
            baseline_correct=int(baseline_N[label_N == number].sum()),
        )
        for number in np.unique(label_N)
    ]
    return Gains(
        baseline=baseline.path,
        model=baseline.name,
        size=baseline.size,
        images=len(images),
        baseline_correct=int(baseline_N.sum()),
        gained=int((right_N & ~baseline_N).sum()),
        lost=int((~right_N & baseline_N).sum()),
        classes=tuple(sorted(classes, key=lambda entry: (-entry.difference, entry.number))),
    )


def baseline_columns(checkpoint: TrainedModel, baseline: TrainedModel) -> NDArray[np.int64]:
    """The baseline's number of each class of the checkpoint.

    Raises:
        InputError: either knows a class that the other does not: the choice among fewer is the easier one.
    """
    checkpoint.columns_of(baseline, who="--checkpoint", others="--baseline")
    return baseline.columns_of(checkpoint, who="--baseline", others="--checkpoint")


def paired_interval(gained: int, lost: int, images: int) -> tuple[float, float]:
    """95% interval of the difference of two shares that were measured on the same images.

    Wald's interval on the discordant pairs, which McNemar's test (1947) also rests on, with half a pair added to each
    of the four cells, so that it keeps its level in small samples and has a width where no pair is discordant (Agresti
    and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24, 2005).

    Args:
        gained: images that only the first got right.
        lost: images that only the second got right.
        images: all of them, at least 1.
    """
    first, second, pairs = gained + 0.5, lost + 0.5, images + 2.0
    middle = (first - second) / pairs
    half = Z_95 * sqrt(first + second - (first - second) ** 2 / pairs) / pairs
    return max(-1.0, middle - half), min(1.0, middle + half)
