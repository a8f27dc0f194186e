"""Whether an exported file gives the logits of the model that it was made of, in a process that knows only the file."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.errors import ModelError
from logitstore.export.subject import Subject

BATCH_SIZES = (1, 2, 5)
"""Images in the batches that are compared: one, the number that programs are recorded with, and another."""
TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit where that is above 1."""


def difference(subject: Subject, kind: str, file: Path) -> float:
    """The largest absolute difference between the logits of a file and those of the model.

    Args:
        subject: the model.
        kind: the file's format.
        file: what was exported.

    Raises:
        ModelError: the file cannot be read, or differs by more than ``TOLERANCE``.
    """
    batches = [subject.images(count, seed=count) for count in BATCH_SIZES]
    with torch.no_grad():
        wanted = [subject.model(images).numpy() for images in batches]
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(given, *(images.numpy() for images in batches))
        _read(kind, file, subject.package, given, found)
        with np.load(found) as logits:
            differences = [_largest(logits[name], array) for name, array in zip(logits.files, wanted, strict=True)]
    largest, logit = float(np.max(differences)), max(float(np.abs(array).max()) for array in wanted)
    if not largest <= TOLERANCE * max(1.0, logit):  # nor is NaN
        raise ModelError(
            f"{subject.card.model} does not survive as {kind}: its logits differ by {largest:.3g} from the model's, of "
            f"which the largest is {logit:.3g}. Nothing was written; try another --format."
        )
    return largest


def _largest(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    return float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")


def _read(kind: str, file: Path, package: str, given: Path, found: Path) -> None:
    script = Path(__file__).with_name("read.py")
    # -P: the script's folder, with this package's modules in it, is no place to import from.
    words = [sys.executable, "-P", str(script), kind, str(file), package, _home(package), str(given), str(found)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
        raise ModelError(
            f"The file exported as {kind} cannot be read by itself ({reason}). Nothing was written; try another "
            "--format."
        )


def _home(package: str) -> str:
    """The folder that a package is imported from."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or [spec.origin or "."]) if spec is not None else ["."]
    return str(Path(places[0]).resolve().parent)
