"""What goes into a training step, and what comes out of it.

Shape suffixes: B batch, C colours, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from logitstore.learning.criterion import Coefficients, Parts, Targets
from logitstore.loader import Batch


@dataclass(frozen=True, kw_only=True)
class StepLoss:
    """The losses of a batch before its step, on the device, detached."""

    parts: Parts
    """Distillation loss, loss on labels, and those on what is inside of student and teacher."""
    coefficients: Coefficients
    """How they were joined."""
    total: Tensor
    """What was minimised."""

    def numbers(self) -> dict[str, float]:
        """By name, for a log: ``loss``, each part of it that there is before it is weighted, and ``alpha``.

        Waits for the device.
        """
        named = {
            "loss": self.total,
            "loss_distillation": self.parts.distillation,
            "loss_labels": self.parts.labels,
            "loss_attention": self.parts.attention,
            "loss_hidden": self.parts.hidden,
            "alpha": self.coefficients.alpha,
        }
        return {name: float(value) for name, value in named.items() if value is not None}


@dataclass(frozen=True, kw_only=True, eq=False)
class Placed:
    """A batch, or this process's part of one, with what a step needs of it on the device."""

    batch: Batch
    """As the loader made it."""
    views_BCHW: Tensor
    """Its views, uint8."""
    targets: Targets
    """What they are trained towards."""

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def weight(self) -> float:
        """Sum of the weights of its rows."""
        return float(self.batch.weight_B.sum())
