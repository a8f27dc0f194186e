"""Class correlation: which classes a model takes for related, beside its teacher (TinyViT, Fig. 3).

Over a few images of each class, Pearson's correlation coefficient between the logits of each two classes is one entry
of a model's map [C, C]. The maps of a teacher, a student and, if wanted, a baseline (the student trained without the
teacher, for example) are drawn side by side, and the mean absolute difference of a map to the teacher's is its
distance: 0 for the same map, 2 at most. The numbers are made in ``pearson``, the picture in ``heatmaps``.

Memory: the map being made takes 8 C^2 bytes on the device and each map that is kept 4 C^2 in the computer's memory: for
two models of 21,841 classes 3.8 GB and 3.8 GB. Shape suffixes: B batch, N images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.device import Compute
from logitstore.drawing import require_drawing
from logitstore.errors import InputError
from logitstore.images import ImageSet, open_images
from logitstore.progress import ProgressFactory, start
from logitstore.report.heatmaps import draw_maps
from logitstore.report.pearson import ClassCorrelation, off_diagonal_mean
from logitstore.trained import TrainedModel, load_trained

MAX_CLASSES = 25_000
_SAID_FROM = 1e9  # bytes


@dataclass(frozen=True, kw_only=True)
class CorrelationConfig:
    """What to compare, and on what. Every field is an option of ``logitstore correlation``."""

    teacher: str
    """Model file with its card, or the folder of a run."""
    student: str
    """Model file with its card. Its classes are compared; the other models must know them all."""
    baseline: str | None = None
    """Model file with its card: another student, to see what distillation changed."""
    data: str = "digits"
    """The data set, as ``open_images`` takes it, with labels."""
    split: str = "val"
    """The split of it, where it has splits."""
    per_class: int = 8
    """Images of each class: its first ones in the data set's order; TinyViT takes 8."""
    out: str | None = None
    """Picture to write; its suffix chooses the format (``.png``, ``.pdf``, ``.svg``). None draws nothing."""
    batch_size: int | None = None
    """Images per step of the model; None is 64 on a CPU and 256 on a GPU."""
    workers: int | None = None
    """Threads that decode and resize; None is one per core, half as many on a CPU."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        for name in ("per_class", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


@dataclass(frozen=True, kw_only=True)
class ModelMap:
    """What is reported of one model's map."""

    checkpoint: str
    """The file of weights."""
    model: str
    """timm's name."""
    size: int
    """Side of its views in pixels."""
    mean_absolute: float
    """Mean absolute correlation between two classes, in [0, 1]."""
    constant_classes: int
    """Classes whose logit is the same for all images; their correlations count as 0."""
    distance: float
    """Mean absolute difference to the teacher's map, over the entries off the diagonal, in [0, 2]."""


@dataclass(frozen=True, kw_only=True)
class CorrelationResult:
    """What was compared, and how far the maps lie apart."""

    data: str
    """The data set's name."""
    split: str
    """Its split."""
    num_classes: int
    """Side of the maps: the student's classes."""
    num_samples: int
    """Images looked at."""
    per_class: int
    """Images wanted of each class."""
    fewer: int
    """Classes that have fewer, but some."""
    without: int
    """Classes that have none. Their logits on the other images count all the same."""
    teacher: ModelMap
    """Its distance is 0."""
    student: ModelMap
    """The student's map."""
    baseline: ModelMap | None
    """The baseline's map; None where there is none."""
    out: str | None
    """The picture; None where none was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def lines(self) -> dict[str, str]:
        """As text: one entry per line."""
        lines = {
            "data": f"{self.data} ({self.split}), {self.num_samples} images, up to {self.per_class} a class",
            "classes": f"{self.num_classes}, of which {self.fewer} have fewer images and {self.without} none",
        }
        for name, entry in (("teacher", self.teacher), ("student", self.student), ("baseline", self.baseline)):
            if entry is not None:
                distance = "" if name == "teacher" else f", distance {entry.distance:.4f}"
                lines[name] = (
                    f"{entry.checkpoint} ({entry.model}, {entry.size} px): mean |r| {entry.mean_absolute:.4f}{distance}"
                )
        return lines if self.out is None else {**lines, "picture": self.out}


def correlate(config: CorrelationConfig, progress: ProgressFactory | None = None) -> CorrelationResult:
    """Compare how models relate the classes to each other.

    The models run one after the other, each with the size and the preprocessing of its card.

    Args:
        config: what to compare.
        progress: how to show progress; None is silent.

    Raises:
        ModelError: weights or card cannot be read.
        DataError: no such data set, or it has no labels.
        InputError: the models have different classes, too many or only one; or the picture cannot be drawn.
    """
    if config.out is not None:
        require_drawing(config.out)
    compute = Compute.of(
        device=config.device, dtype=config.dtype, batch_size=config.batch_size, workers=config.workers
    )
    models = {
        name: load_trained(path, option=f"--{name}", compute=compute)
        for name, path in (("teacher", config.teacher), ("student", config.student), ("baseline", config.baseline))
        if path is not None
    }
    columns = {
        name: model.columns_of(models["student"], who=f"--{name}", others="--student") for name, model in models.items()
    }
    num_classes = models["student"].num_classes
    say = start(progress, None, "img").say
    _check_size(num_classes, len(models), say)
    images, count_C = _choose(config, models["student"], say)
    maps: dict[str, NDArray[np.float32]] = {}
    reports: dict[str, ModelMap] = {}
    with start(progress, len(models) * len(images), "img", "correlation") as bar:
        for name, model in models.items():
            found = _gather(model, images, columns[name], bar.advance)
            maps[name] = found.matrix()
            reports[name] = ModelMap(
                checkpoint=model.path,
                model=model.name,
                size=model.size,
                mean_absolute=off_diagonal_mean(maps[name]),
                constant_classes=found.constant_classes,
                distance=off_diagonal_mean(maps[name], maps["teacher"]),
            )
    if config.out is not None:
        title = f"Correlation of classes: {images.name} ({images.split}), {len(images)} images"
        draw_maps({_title(name, reports[name]): maps[name] for name in maps}, config.out, title=title)
    return CorrelationResult(
        data=images.name,
        split=images.split,
        num_classes=num_classes,
        num_samples=len(images),
        per_class=config.per_class,
        fewer=int(((count_C > 0) & (count_C < config.per_class)).sum()),
        without=int((count_C == 0).sum()),
        teacher=reports["teacher"],
        student=reports["student"],
        baseline=reports.get("baseline"),
        out=config.out,
    )


def _choose(
    config: CorrelationConfig, student: TrainedModel, say: Callable[[str], object]
) -> tuple[ImageSet, NDArray[np.int64]]:
    """The first images of each of the student's classes, and how many there are of each [C]."""
    images = student.numbering(open_images(config.data, split=config.split, whole=True), say)
    label_N = images.require_labels("to choose images of each class")
    by_class_N = np.argsort(label_N, kind="stable")
    count_C = np.bincount(label_N, minlength=student.num_classes)
    place_N = np.arange(len(label_N)) - np.repeat(np.cumsum(count_C) - count_C, count_C)  # within its class, from 0
    chosen = np.sort(by_class_N[place_N < config.per_class])
    return images.select(chosen), np.minimum(count_C, config.per_class)


def _check_size(num_classes: int, models: int, say: Callable[[str], object]) -> None:
    if not 2 <= num_classes <= MAX_CLASSES:
        raise InputError(
            f"Maps are made of 2 to {MAX_CLASSES} classes, and these models have {num_classes}: a map of more would "
            "not fit into the memory of most machines, and one class has nothing to be compared with."
        )
    device, host = 8.0 * num_classes**2, 4.0 * num_classes**2 * models
    if device + host > _SAID_FROM:
        say(f"The maps of {num_classes} classes take {device / 1e9:.1f} GB on the device, {host / 1e9:.1f} GB beside.")


def _gather(
    model: TrainedModel, images: ImageSet, column_C: NDArray[np.int64], advance: Callable[[int], object]
) -> ClassCorrelation:
    found = ClassCorrelation(len(column_C), model.compute.device)
    chosen_C = torch.from_numpy(column_C).to(model.compute.device)
    with model.logits(images, advance) as batches:
        for _, logits_BC in batches:
            found.add(logits_BC.index_select(1, chosen_C))
    return found


def _title(name: str, report: ModelMap) -> str:
    distance = "" if name == "teacher" else f"\ndistance to the teacher's {report.distance:.4f}"
    return f"{name}: {report.model}{distance}"
