"""``verify`` of packed images: every checksum again, and which images a damaged shard has lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.checksums import is_intact
from logitstore.errors import DataError, DecodeError
from logitstore.images.packed import (
    INDEX,
    MARK,
    PackedImages,
    content_fingerprint,
    packed_splits,
    read_manifest,
    require_size,
    shard_name,
)
from logitstore.pack.finish import file_sha256
from logitstore.progress import ProgressFactory, start

_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What a check of packed images found."""

    ok: bool
    """Whether they are whole."""
    images_checked: int
    """Images whose bytes are what was packed."""
    errors: tuple[str, ...] = ()
    """One sentence for each thing that is missing or altered."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that is odd but harms nothing."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "errors": list(self.errors), "notes": list(self.notes)}


def verify_packed(path: str, progress: ProgressFactory | None = None) -> PackReport:
    """Recompute every checksum of packed images: manifests, arrays, shards.

    Args:
        path: the folder that ``pack`` left.
        progress: how to show progress; None is silent.
    """
    folder = Path(path).expanduser()
    splits, errors, images = packed_splits(folder), [], 0
    if not _is_whole(folder / MARK):
        errors.append(f"{folder / MARK} differs from its own checksum: restore it, or pack again.")
    for begun in sorted(found.parent.name for found in folder.glob("*/part-00000.json")):
        if begun not in splits:
            errors.append(f"The {begun} split of {folder} is not packed to its end: the same logitstore pack goes on.")
    if not splits and not errors:
        errors.append(f"{folder} holds no split that is packed: run logitstore pack again.")
    with start(progress, None, "shard", "checksums") as bar:
        for split in splits:
            try:
                found, damage = _check_split(folder / split, bar.advance)
            except DataError as error:
                found, damage = 0, [str(error)]
            images += found
            errors += damage
    return PackReport(ok=not errors, images_checked=images, errors=tuple(errors))


def _check_split(folder: Path, advance: Callable[[], object]) -> tuple[int, list[str]]:
    """How many images are intact, and what is wrong."""
    manifest = read_manifest(folder)
    errors = [
        f"{folder / name} differs from its checksum: restore it, or pack again."
        for name, stored in manifest["arrays"].items()
        if not (folder / name).is_file() or file_sha256(folder / name) != stored["sha256"]
    ]
    images = PackedImages(folder, manifest)
    if any(INDEX in error for error in errors):
        return 0, errors
    if content_fingerprint(manifest["packed"], images.index) != manifest["fingerprint"]:
        errors.append(f"The fingerprint in {folder} is not that of its images: pack again.")
    lost = 0
    for number, stored in enumerate(manifest["shards"]):
        path = folder / shard_name(number)
        try:
            require_size(path, stored["bytes"], DataError)
        except DataError as error:
            lost += int(np.count_nonzero(images.index["shard"] == number))
            errors.append(str(error))
        else:
            if file_sha256(path) != stored["sha256"]:
                names = _damaged(images, number)
                lost += len(names)
                errors.append(f"{path} differs from its checksum, {_counted(names)}: restore it, or pack again.")
        advance()
    return len(images) - lost, errors


def _counted(names: list[str]) -> str:
    """How many images of a shard are damaged, and the names of the first ones."""
    if not names:
        return "though none of its images is damaged"
    which = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return f"{len(names)} of its images {'is' if len(names) == 1 else 'are'} damaged ({which})"


def _is_whole(mark: Path) -> bool:
    try:
        return is_intact(json.loads(mark.read_bytes()))
    except (OSError, ValueError, AttributeError):
        return False


def _damaged(images: PackedImages, shard: int) -> list[str]:
    """Names of the images of a shard that differ from their checksums."""
    names = []
    for i in np.flatnonzero(images.index["shard"] == shard):
        try:
            images.encoded(int(i))
        except DecodeError:
            names.append(images.image_name(int(i)))
    return names
