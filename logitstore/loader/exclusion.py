"""Samples that a run leaves out of its loss: the list that ``audit`` writes, or one made by hand.

Leaving out moves nothing: positions, order, batches and the views of all other samples stay as they are, because they
are functions of the position. Only the weight in the loss becomes 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError, MismatchError
from logitstore.images import ImageSet

AUDIT_FORMAT, AUDIT_VERSION = "logitstore audit", 1
"""What the JSON object that ``audit`` writes says of itself under ``format`` and ``version``."""

_NAMED = 3  # unknown names that a message shows


@dataclass(frozen=True, kw_only=True, eq=False)
class Exclusion:
    """Samples to leave out."""

    source: str
    """The file that named them."""
    sample: NDArray[np.int64]
    """Their numbers in the data set, ascending, each once."""

    def __len__(self) -> int:
        return len(self.sample)

    @cached_property
    def sha256(self) -> str:
        """Of the numbers, one a line: the same list is the same, whatever file it came from."""
        return hashlib.sha256("".join(f"{number}\n" for number in self.sample.tolist()).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What belongs to a run's identity, as JSON types."""
        return {"count": len(self), "sha256": self.sha256}


def read_exclusion(path: str | Path, images: ImageSet) -> Exclusion:
    """Read a list of samples to leave out.

    Args:
        path: the JSON file that ``audit`` wrote, or a text file with a sample number or the name of an image a line. A
            line of digits alone is a number.
        images: the data set that the samples belong to.

    Raises:
        InputError: the file cannot be read, names what is not in the data set, or leaves nothing to train on.
        MismatchError: the audit was made of another data set.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "it is no text"
        raise InputError(f"The list of samples to exclude, {path}, cannot be read ({reason}): give another.") from exc
    numbers = _of_audit(path, text, images) if text.lstrip().startswith("{") else _of_lines(path, text, images)
    if outside := [number for number in numbers if not 0 <= number < len(images)]:
        raise InputError(
            f"{path} excludes sample {outside[0]}, but {images.name} has samples 0 to {len(images) - 1}: give the list "
            "that was made of this data set."
        )
    sample = np.unique(np.asarray(numbers, np.int64))
    if len(sample) == len(images):
        raise InputError(f"{path} excludes all {len(images)} samples of {images.name}: leave some to train on.")
    return Exclusion(source=str(path), sample=sample)


def _of_audit(path: Path, text: str, images: ImageSet) -> list[int]:
    try:
        report = json.loads(text)
        kind = (report["format"], report["version"])
        made_of, numbers = report["dataset"]["fingerprint"], [item["sample"] for item in report["samples"]]
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(
            f"{path} is JSON, but not of logitstore audit ({type(exc).__name__}: {exc}): give what it wrote, or a text "
            "file with a sample number or image name a line."
        ) from exc
    if kind != (AUDIT_FORMAT, AUDIT_VERSION) or not all(type(number) is int for number in numbers):
        raise InputError(
            f"{path} is {kind[0]} of version {kind[1]}, where sample numbers of {AUDIT_FORMAT} of version "
            f"{AUDIT_VERSION} are needed: make it again with logitstore audit."
        )
    if made_of != images.fingerprint:
        raise MismatchError(
            f"The fingerprint of the data set that {path} was made of",
            stored=made_of,
            present=f"{images.fingerprint} for {images.name} ({images.split})",
            remedy="Give the data set (and the --subset) that was audited, or audit this one.",
        )
    return numbers


def _of_lines(path: Path, text: str, images: ImageSet) -> list[int]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbers = [int(line) for line in lines if line.isascii() and line.isdigit()]
    names = {line for line in lines if not (line.isascii() and line.isdigit())}
    return numbers + (_numbers_of(path, names, images) if names else [])


def _numbers_of(path: Path, names: set[str], images: ImageSet) -> list[int]:
    found: dict[str, int] = {}
    for number in range(len(images)):
        name = images.image_name(number)
        if name in names and found.setdefault(name, number) != number:
            raise InputError(f"{path} excludes {name}, and several images are called that: give their numbers.")
    if unknown := sorted(names - set(found)):
        raise InputError(
            f"{path} excludes {len(unknown)} images that {images.name} ({images.split}) does not have "
            f"({_listed(unknown)}); its images are called {_listed([images.image_name(0)])} and so on."
        )
    return list(found.values())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
