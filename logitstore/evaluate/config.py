"""What an evaluation is asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from logitstore.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to measure, and how. Every field is an option of ``logitstore eval``."""

    checkpoint: str
    """File of weights, or the folder of a run; what ``train`` and ``finetune`` wrote has a card beside it."""
    model: str | None = None
    """Which model the weights are of; None takes the card's word."""
    data: str = "digits"
    """The data set, as ``open_images`` takes it."""
    split: str = "val"
    """The split of it, where it has splits."""
    subset: int | None = None
    """Use only this many samples, evenly spaced."""
    real: bool = False
    """Also measure against ImageNet's ReaL labels; the files must be those of its validation set."""
    teacher: str | None = None
    """Model file with its card: how often, and how closely, the checkpoint agrees with it on these images."""
    baseline: str | None = None
    """Model file with its card: what the checkpoint gains over it, class by class."""
    size: int | None = None
    """Side of the checkpoint's views in pixels; None is the card's, else the data set's default."""
    batch_size: int | None = None
    """Images per step of the model; None is 64 on a CPU and 256 on a GPU."""
    workers: int | None = None
    """Threads that decode and resize; None is one per core, half as many on a CPU."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
