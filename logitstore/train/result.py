"""What a training run gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training run left behind."""

    out: str
    """The run's folder."""
    checkpoint: str
    """The student's weights after the last step (their average, where the recipe keeps one); their card lies beside."""
    epochs: int
    """Passes over the data."""
    steps: int
    """Optimiser steps of the whole run, over all its parts."""
    loss: float | None
    """Mean loss of the last epoch; None where this call had nothing left to do."""
    accuracy: dict[str, Any] | None
    """``cards.Accuracy.to_dict`` of the student in ``checkpoint``; None without validation images."""
    best_checkpoint: str | None
    """The student of the epoch that validated best."""
    best_accuracy: dict[str, Any] | None
    """Its accuracy: chosen on the images it is measured on, so optimistic."""
    images_per_second: float
    """Training images per second of this call, validation and checkpoints left out; 0 where none were left."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)
