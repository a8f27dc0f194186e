"""What a fine-tuning is asked to do, and what it gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from os import PathLike, fspath
from typing import Any

from logitstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What to train, and how. Every field is an option of ``logitstore finetune``."""

    teacher: str
    """``swin_t`` or any other short or timm name, with a tag of pretrained weights or without."""
    data: str = "digits"
    """The data set, as ``open_images`` takes it; its ``train`` split, with labels."""
    val_data: str | None = None
    """Data set to measure accuracy on; None is the ``val`` split of ``data``, where it has one."""
    checkpoint: str | None = None
    """Weights to start from instead of timm's; a classifier of other classes is replaced."""
    pretrained: bool | None = None
    """Start from timm's pretrained weights. None does so everywhere but on digits; False starts at random."""
    freeze_backbone: bool = False
    """Train the classifier alone; the rest stays as it is, in eval mode."""
    epochs: int | None = None
    """Passes over the data; None is 12 on digits and 30 elsewhere."""
    warmup_epochs: float = 1.0
    """Length of the linear warm-up, at most a fifth of the run."""
    lr: float | None = None
    """Peak learning rate; None is 5e-4 from random weights, 1e-4 from given ones, 1e-3 for the classifier alone."""
    weight_decay: float = 0.05
    """AdamW's decoupled decay; never on 1-D parameters, biases and attention biases."""
    drop_path: float = 0.1
    """Rate of stochastic depth, for models that have it."""
    label_smoothing: float = 0.0
    """Mass of the label spread over all classes. It also blurs what a student can learn from the teacher."""
    ema_decay: float | None = None
    """Decay per step of the average of the weights; None averages over about a tenth of the run."""
    view: str | None = None
    """View spec; None is ``crop_flip``, on digits without the flip and with crops of at least 60% of the area."""
    size: int | None = None
    """Side of the views in pixels; None is the data set's: 32 on digits, else 224."""
    subset: int | None = None
    """Use only this many samples, evenly spaced."""
    seed: int = 0
    """Run seed: initial weights, views, order, drop path."""
    out: str | None = None
    """The run's folder; None is ``runs/finetune/<teacher>-<data>``, where ``dump`` looks."""
    fresh: bool = False
    """Start anew where the folder holds a run, instead of resuming it."""
    tensorboard: bool = True
    """Write TensorBoard events."""
    batch_size: int | None = None
    """Images per step; None is 64 on a CPU and 128 on a GPU."""
    workers: int | None = None
    """Threads that decode and render; None is one per core, half as many on a CPU. Never changes a view."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        if ":" in self.teacher and not self.teacher.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
            raise InputError(f"finetune trains timm's models, and {self.teacher} is a function: train it yourself.")
        for name in ("epochs", "batch_size", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if self.lr is not None and self.lr <= 0:
            raise InputError(f"--lr must be above 0, got {self.lr}.")
        for name in ("drop_path", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"--{name.replace('_', '-')} must lie in [0, 1), got {value}.")
        if self.weight_decay < 0 or self.warmup_epochs < 0:
            raise InputError("--weight-decay and --warmup-epochs must not be negative.")
        if self.checkpoint is not None and self.pretrained:
            raise InputError("--checkpoint and --pretrained both say where to start from; leave one out.")
        if self.freeze_backbone and not self.starts_from_weights:
            raise InputError(
                "--freeze-backbone trains a classifier on weights that are already good, and there are none to start "
                "from: give --checkpoint, or leave --freeze-backbone out."
            )

    @property
    def uses_tag(self) -> bool:
        """Whether timm's pretrained weights are the start."""
        if self.checkpoint is not None:
            return False
        return self.data != "digits" if self.pretrained is None else self.pretrained

    @property
    def starts_from_weights(self) -> bool:
        """Whether anything but random weights is the start."""
        return self.checkpoint is not None or self.uses_tag

    @property
    def num_epochs(self) -> int:
        """``epochs``, or the default for the data set."""
        return self.epochs or (12 if self.data == "digits" else 30)

    @property
    def rate(self) -> float:
        """``lr``, or the default for the kind of start."""
        if self.lr is not None:
            return self.lr
        if self.freeze_backbone:
            return 1e-3
        return 1e-4 if self.starts_from_weights else 5e-4

    def options(self) -> dict[str, Any]:
        """The options that repeat this run, as JSON types. ``fresh`` is left out: it is about what was there before."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "fresh"}
        return {
            name: fspath(value) if isinstance(value, PathLike) else value
            for name, value in given.items()
            if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What a fine-tuning left behind."""

    checkpoint: str
    """The weights; their card lies beside."""
    model: str
    """timm's name."""
    num_classes: int
    """C."""
    epochs: int
    """Passes over the data."""
    steps: int
    """Optimiser steps of the whole run, over all its parts."""
    loss: float
    """Mean training loss of the last epoch."""
    accuracy: dict[str, Any] | None
    """``cards.Accuracy.to_dict`` of the saved weights; None without validation images."""
    images_per_second: float
    """Training images per second of this call, validation and checkpoints left out; 0 where none were left."""
    seconds: float
    """That this call took from its first step to the saved card."""
    sha256: str
    """Of the weights."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)
