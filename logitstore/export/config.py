"""What an export is asked to do, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.errors import InputError

FORMATS = ("safetensors", "onnx", "torch_export")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which model to export, and how. Every field is an option of ``logitstore export``."""

    checkpoint: str
    """File of weights, or the folder of a run; what ``train`` and ``finetune`` wrote has a card beside it."""
    format: str = "safetensors"
    """``safetensors`` (for timm), ``onnx``, or ``torch_export`` (a program that needs no code but torch)."""
    model: str | None = None
    """Which model the weights are of; None takes the card's word."""
    out: str | None = None
    """The folder to write; None is ``runs/export/RUN-FORMAT``, named as the folder of the checkpoint."""
    size: int | None = None
    """Side of the images in pixels, which all formats but the first fix; None is the card's, else 224."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format must be one of {', '.join(FORMATS)}, got {self.format}.")
        if self.size is not None and self.size < 1:
            raise InputError(f"--size must be at least 1, got {self.size}.")


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an export left behind."""

    out: str
    """The folder: the file, its card as JSON, and as ``README.md``."""
    file: str
    """The exported file."""
    format: str
    """As asked for."""
    model: str
    """timm's name."""
    size: int
    """Side of its images in pixels."""
    num_classes: int
    """C."""
    parameters: int
    """Of the whole model, classifier included."""
    macs: int
    """Multiply-accumulates for one image."""
    bytes: int
    """Size of the file."""
    difference: float
    """Largest absolute difference of a logit from the model's own, over batches of several sizes."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)
