"""The shards of a split, written so that a run which is killed at any moment can go on.

A shard is written beside its place, renamed, and then committed by a **part**: its entries of the index, and after them
a sealed note of how far the source was read. No note, no shard. When the source has ended, ``finish`` puts the parts
together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from logitstore.cards import write_atomically
from logitstore.checksums import canonical_json, is_intact, seal
from logitstore.errors import DataError, MismatchError
from logitstore.images.packed import ENTRY, shard_name

PART = np.dtype([("entry", ENTRY), ("label", "<i8"), ("name_end", "<u8")])
"""What a part keeps of an image: its entry of the index, its label, the end of its name among the part's names."""

NO_LABEL = -1
UNFINISHED = ".*.tmp"
"""Names that ``write_atomically`` gives to files before they are whole."""
_MOST_IMAGES = 1 << 16  # in a shard: their entries wait in memory
_BUFFER = 1 << 20


class Image(NamedTuple):
    """An image as it is packed."""

    data: bytes
    """The JPEG."""
    height: int
    """In pixels, upright."""
    width: int
    """In pixels, upright."""
    label: int | None
    """Class number."""
    name: str | None
    """What to call it in messages."""


class SplitWriter:
    """Writes the shards of one split, from where an earlier writer stopped.

    Args:
        folder: the split's; made where it is missing.
        identity: what decides the bytes, as JSON types. Shards of another identity are not continued.
        shard_bytes: a shard is full when it has so many.

    Raises:
        MismatchError: the folder holds shards of another identity.
        DataError: a committed shard is missing or damaged.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._identity, self._shard_bytes = dict(identity), shard_bytes
        self.parts = read_parts(folder)
        if self.parts and self.parts[0]["identity"] != self._identity:
            raise MismatchError(
                f"What the shards in {folder} are packed from, or how,",
                stored=canonical_json(self.parts[0]["identity"]).decode(),
                present=canonical_json(self._identity).decode(),
                remedy="Repeat the command that began, or pack into another folder.",
            )
        last = self.parts[-1] if self.parts else {}
        self.taken: int = last.get("taken", 0)
        """Samples of the source that are dealt with, packed or left out."""
        self.left_out: int = last.get("left_out", 0)
        """Those of them that did not decode."""
        self.digest: str = last.get("digest", "")
        """Of all that a stream gave so far; empty for other sources."""
        self.images = sum(int(part["images"]) for part in self.parts)
        """Images that are written, committed or not."""
        self.bytes_written = sum(int(part["bytes"]) for part in self.parts)
        """Size of these."""
        self._file: BinaryIO | None = None
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[tuple[int, ...], int, int]] = []
        self._names = bytearray()
        self._size, self._sha256 = 0, hashlib.sha256()

    def add(self, image: Image | None, *, digest: str = "") -> None:
        """Write the next image of the source; None leaves it out.

        Args:
            image: what is packed.
            digest: the stream's, this image included.
        """
        self.taken, self.digest = self.taken + 1, digest
        if image is None:
            self.left_out += 1
            return
        if self._file is None:
            self._file = self._unfinished.open("wb", buffering=_BUFFER)
        self._file.write(image.data)
        self._sha256.update(image.data)
        self._names += (image.name or "").encode(errors="replace")
        crc = google_crc32c.value(image.data)
        entry = (self._size, len(image.data), crc, len(self.parts), image.height, image.width)
        self._rows.append((entry, NO_LABEL if image.label is None else image.label, len(self._names)))
        self._size += len(image.data)
        self.images, self.bytes_written = self.images + 1, self.bytes_written + len(image.data)
        if self._size >= self._shard_bytes or len(self._rows) >= _MOST_IMAGES:
            self.commit()

    def commit(self) -> None:
        """Close the shard that is being written, and make it count."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        number = len(self.parts)
        self._unfinished.replace(self.folder / shard_name(number))
        rows, names = np.array(self._rows, PART), np.frombuffer(bytes(self._names), np.uint8)
        array = part_array(self.folder, number)
        write_atomically(array, lambda temporary: _save(temporary, rows, names))
        note = seal(
            {
                "identity": self._identity,
                "images": len(rows),
                "taken": self.taken,
                "left_out": self.left_out,
                "digest": self.digest,
                "bytes": self._size,
                "sha256": self._sha256.hexdigest(),
                "array": hashlib.sha256(array.read_bytes()).hexdigest(),
            }
        )
        write_atomically(_note(self.folder, number), lambda temporary: temporary.write_bytes(canonical_json(note)))
        self.parts.append(note)
        self._begin()

    def close(self) -> None:
        """Drop the shard that is being written; what is committed stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._unfinished.unlink(missing_ok=True)

    @property
    def _unfinished(self) -> Path:
        return self.folder / "shard.tmp"


def _save(path: Path, rows: NDArray[np.void], names: NDArray[np.uint8]) -> None:
    with path.open("wb") as file:  # given a path, numpy would add .npz to it
        np.savez(file, rows=rows, names=names)


def part_array(folder: Path, number: int) -> Path:
    """The file with a shard's entries: ``rows`` of type ``PART``, and ``names``, the bytes of all names."""
    return folder / f"part-{number:05}.npz"


def _note(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.json"


def read_parts(folder: Path) -> list[dict[str, Any]]:
    """Notes of the committed shards, in order.

    Raises:
        DataError: one is damaged, or its shard is not there in full.
    """
    notes: list[dict[str, Any]] = []
    while (path := _note(folder, len(notes))).exists():
        try:
            note = json.loads(path.read_bytes())
            whole = is_intact(note) and (folder / shard_name(len(notes))).stat().st_size == note["bytes"]
        except (OSError, ValueError, AttributeError):
            whole = False
        if not whole:
            raise DataError(
                f"{path} or its {shard_name(len(notes))} is damaged: restore them, or remove {folder} and pack again."
            )
        notes.append(note)
    return notes


def remove_parts(folder: Path) -> None:
    """Remove what only a run that goes on needs."""
    for pattern in ("part-*.json", "part-*.npz", "shard.tmp"):
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)
    remove_unfinished(folder)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote a file."""
    for file in folder.glob(UNFINISHED):
        file.unlink(missing_ok=True)
