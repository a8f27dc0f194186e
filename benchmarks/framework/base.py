"""What a protocol is run on, and for how long: data, sizes, epochs, seeds, teacher, machine."""

from __future__ import annotations

import hashlib
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from logitstore.cards import weights_path
from logitstore.errors import InputError
from logitstore.images import ImageSet, open_images

DIGITS_TRAINING = "--base-lr 4e-3"  # recipes' rates are meant for some hundred times as many steps
_COUNTS = ("size", "epochs", "teacher_epochs", "store_epochs", "batch_size", "pretrain_epochs", "workers")


@dataclass(frozen=True, kw_only=True)
class BaseSetting(ABC):
    """What every protocol is run on, and for how long. Validated on construction."""

    EPOCHS: ClassVar[tuple[int, int]]
    """Of each student: elsewhere, and on digits."""
    BATCH: ClassVar[tuple[int, int]]
    """Likewise."""

    data: str = "digits"
    """Training images, as ``open_images`` takes them."""
    val_data: str | None = None
    """Images to measure on; None is the ``val`` split of ``data``."""
    subset: int | None = None
    """Use only this many training images, evenly spaced."""
    size: int | None = None
    """Side of the views in pixels; None is the data set's: 32 on digits, else 224."""
    epochs: int | None = None
    """Of each student; None is ``EPOCHS``."""
    teacher_epochs: int | None = None
    """Of the teacher's training; None is ``epochs``."""
    store_epochs: int | None = None
    """Epochs of views that a shorter store holds, over which students go again and again."""
    batch_size: int | None = None
    """None is ``BATCH``."""
    view: str = "crop_flip"
    """View spec of all training."""
    train_options: str | None = None
    """Further options of ``logitstore train`` for every model, as one would type them; None is a higher learning rate
    on digits, and nothing else."""
    seeds: tuple[int, ...] = (0,)
    """Run seeds of the students: initial weights and views."""
    teacher_checkpoints: tuple[tuple[str, str], ...] = ()
    """Pairs (teacher, file) of teachers that know the data's classes already."""
    teacher_init: str | None = None
    """What the other teachers are fine-tuned from: ``pretrained`` (timm's weights), ``random``, or a file; None is
    ``random`` on digits, else ``pretrained``. ``pretrain_data`` goes before it."""
    pretrain_data: str | None = None
    """Pre-train teachers from random weights on this data set, then fine-tune them."""
    pretrain_epochs: int | None = None
    """Of that; None is as long as the fine-tuning."""
    pretrain_options: str = ""
    """Further options of ``logitstore train`` for that."""
    workers: int | None = None
    """As for the commands; None leaves it to them."""
    device: str = "auto"
    """Likewise."""
    dtype: str = "auto"
    """Likewise."""
    out: Path
    """The folder of all steps."""
    images: ImageSet = field(init=False, repr=False, compare=False)
    """The training images, opened."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"--seeds must name different seeds, got {', '.join(map(str, self.seeds)) or 'none'}.")
        if self.pretrain_data is not None and self.teacher_init is not None:
            raise InputError("--pretrain-data begins with random weights, so --teacher-init has no meaning; leave one.")
        object.__setattr__(self, "images", open_images(self.data, subset=self.subset))
        self.images.require_labels("to train on")

    @property
    @abstractmethod
    def recipe(self) -> str:
        """Name of the recipe that every model is trained by."""

    @cached_property
    def validation(self) -> ImageSet:
        """The images that accuracy is measured on."""
        whole = self.val_data is not None
        images = open_images(self.val_data or self.data, split="val", whole=whole).relabelled(self.images.class_names)
        images.require_labels("to measure accuracy")
        return images

    @property
    def is_digits(self) -> bool:
        """Whether nothing can be claimed from this run."""
        return self.data == "digits"

    @property
    def side(self) -> int:
        """``size``, or the data set's default."""
        return self.size or self.images.default_size

    @property
    def num_epochs(self) -> int:
        """``epochs``, or the default."""
        return self.epochs or self.EPOCHS[self.is_digits]

    @property
    def batch(self) -> int:
        """``batch_size``, or the default."""
        return self.batch_size or self.BATCH[self.is_digits]

    @property
    def options(self) -> tuple[str, ...]:
        """``train_options`` as words, or the default."""
        given = self.train_options
        return tuple(shlex.split(given if given is not None else DIGITS_TRAINING if self.is_digits else ""))

    @property
    def initial(self) -> str:
        """Where a teacher without a checkpoint comes from: ``pretrained``, ``random``, or a file."""
        if self.pretrain_data is not None:
            return "random"
        return self.teacher_init or ("random" if self.is_digits else "pretrained")

    def inputs(self) -> dict[str, Any]:
        """What the data sets and given weights hold, so that a folder goes on with the same ones only."""
        sets = {"--data": self.images, "--val-data": self.validation}
        if self.pretrain_data is not None:
            sets["--pretrain-data"] = open_images(self.pretrain_data)
        found: dict[str, Any] = {name: _described(images) for name, images in sets.items()}
        for name, file in self.teacher_checkpoints:
            found[f"--teacher-checkpoint {name}"] = _file_sha256(file)
        if self.initial not in ("pretrained", "random"):
            found["--teacher-init"] = _file_sha256(self.initial)
        return found


def require_known(option: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Refuse names that an option does not take.

    Raises:
        InputError: with the first unknown name, and those that there are.
    """
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"{option} takes {', '.join(known)}; got {unknown[0]}.")


def _described(images: ImageSet) -> str:
    labels = b"" if images.labels is None else images.labels.tobytes()
    sha256 = hashlib.sha256(labels).hexdigest()[:16]
    return f"{images.num_samples} images of {images.name}, fingerprint {images.fingerprint}, labels {sha256}"


def _file_sha256(path: str) -> str:
    file = weights_path(path)
    if not file.is_file():
        raise InputError(f"There is no file of weights at {file}: name another.")
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
