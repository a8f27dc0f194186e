"""Whether an exported file gives the logits of the model that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.errors import ModelError
from logitstore.export.formats import FORMATS
from logitstore.export.subject import Subject

BATCH_SIZES = (1, 2, 5)
"""Images in the batches that are compared: one, the number that programs are recorded with, and another."""
TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit where that is above 1."""


def difference(subject: Subject, name: str, file: Path) -> float:
    """The largest absolute difference between the logits of a file, read as its user will, and those of the model.

    Args:
        subject: the model.
        name: of the file's format.
        file: what was exported.

    Raises:
        ModelError: the file cannot be read, or differs by more than ``TOLERANCE``.
    """
    batches = [subject.images(count, seed=count) for count in BATCH_SIZES]
    with torch.no_grad():
        wanted = [subject.model(images).numpy() for images in batches]
    try:
        found = FORMATS[name].read(file, [images.numpy() for images in batches])
    except Exception as exc:  # runtimes raise kinds of their own
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
        raise ModelError(
            f"{subject.card.model} exported as {name} cannot be read back ({reason}). Nothing was written; try another "
            "--format."
        ) from exc
    largest = max(_largest(one, other) for one, other in zip(found, wanted, strict=True))
    logit = max(float(np.abs(array).max()) for array in wanted)
    if largest > TOLERANCE * max(1.0, logit):
        raise ModelError(
            f"{subject.card.model} does not survive as {name}: its logits differ by {largest:.3g} from the model's, of "
            f"which the largest is {logit:.3g}. Nothing was written; try another --format."
        )
    return largest


def _largest(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference; infinite where there is none to be had."""
    gap = np.abs(found - wanted).max() if found.shape == wanted.shape else np.inf
    return float(np.nan_to_num(gap, nan=np.inf))
