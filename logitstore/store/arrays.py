"""One array of a store: its objects opened, compared with their commit, and decoded in parts.

Shape suffixes: P positions that are compressed together, Q groups of ranks that are, R ranks of a group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DamagedError
from logitstore.store.chunks import ChunkFormat, is_absent
from logitstore.store.commits import StoredObject, check_object, readable
from logitstore.store.layout import ArrayLayout
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects, OpenObject


class StoredArray:
    """An array whose objects can be opened.

    Args:
        objects: where the store's bytes lie.
        manifest: what the store holds.
        layout: of the array.
        document: its ``zarr.json``, which decides how objects are decoded.
    """

    def __init__(self, objects: LocalObjects, manifest: Manifest, layout: ArrayLayout, document: bytes) -> None:
        self.objects, self.manifest, self.layout, self.document = objects, manifest, layout, document
        known = ChunkFormat.of(document)
        self.format = known if known is not None and known.dtype == layout.dtype else None
        """None where zarr must decode whole objects."""

    @property
    def chunk(self) -> tuple[int, ...]:
        """Entries that are decoded together: ``(positions,)`` or ``(positions, ranks)``."""
        return (self.layout.shard, *self.layout.inner) if self.format is None else self.format.chunk

    def open(self, epoch: int, shard: int, expected: StoredObject) -> OpenArray:
        """One shard's part of the array.

        Raises:
            DamagedError: its object is missing, or not what was committed.
        """
        opened = check_object(self.objects, self.layout.key(epoch, shard), expected)
        return OpenArray(array=self, epoch=epoch, shard=shard, opened=opened, size=expected.size)


@contextlib.contextmanager
def decodable(where: str) -> Iterator[None]:
    """What keeps a committed object from being decoded, as a DamagedError that names it."""
    try:
        with readable(where):
            yield
    except (ValueError, RuntimeError) as exc:
        raise DamagedError(f"{where} is what was committed, but does not decode: {exc}") from exc


@dataclass(frozen=True, kw_only=True)
class OpenArray:
    """One shard's part of an array. What its methods raise is a DamagedError."""

    array: StoredArray
    epoch: int
    shard: int
    opened: OpenObject
    size: int
    """Bytes of the object."""

    @property
    def where(self) -> str:
        """Path of the object, for messages."""
        return f"{self.array.objects.root}/{self.array.layout.key(self.epoch, self.shard)}"

    def part(self, number: int) -> NDArray[Any]:
        """The positions of one row of chunks as they are stored, [P], or [Q, P, R] of an array with ranks.

        Args:
            number: of the row, from 0; its positions beyond N hold the fill value, or are left out.
        """
        with decodable(self.where):
            return self._part(number)

    def whole(self) -> NDArray[Any]:
        """All positions of the shard, [S] or [S, K]."""
        layout, chunk = self.array.layout, self.array.chunk[0]
        length = min(layout.shard, layout.length - self.shard * layout.shard)
        parts = [self.part(number) for number in range(-(-length // chunk))]
        if layout.inner:
            parts = [np.concatenate(list(part_QPR), axis=1) for part_QPR in parts]
        return np.concatenate(parts)[:length]

    def _part(self, number: int) -> NDArray[Any]:
        known = self.array.format
        if known is None:
            return self._through_zarr()
        table = known.table(self.opened.read(self.size - known.table_bytes, known.table_bytes))[number]
        out = np.empty((len(table), *known.chunk), known.dtype)
        for place, group in zip(table, out, strict=True):
            start, length = (0, 0) if is_absent(place) else map(int, place)
            known.decode(self.opened.read(start, length), group)
        return out if self.array.layout.inner else out[0]

    def _through_zarr(self) -> NDArray[Any]:
        from logitstore.store.shards import ShardCoder  # zarr loads where it is needed

        name = self.array.layout.name
        coder = ShardCoder(self.array.manifest, {name: self.array.document})
        values = coder.decode(name, self.epoch, self.shard, self.opened.read(0, self.size))
        return values[None] if self.array.layout.inner else values
