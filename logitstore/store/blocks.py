"""Blocks: the parts of shards that a reader has in memory.

A block is the run of positions that is compressed together, some hundred kilobytes to a few megabytes, so what a reader
holds depends neither on the size of shards nor on that of the data set.

Shape suffixes: P positions of a block, Q groups of ranks that are compressed together, R ranks of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.store.arrays import OpenArray, StoredArray
from logitstore.store.cache import Cache
from logitstore.store.commits import Commit
from logitstore.store.layout import array_layouts
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.records import ShardBlock

_OPEN_SHARDS = 4  # six files each


@dataclass(frozen=True, kw_only=True)
class Block:
    """The arrays of a run of positions as they are stored; not to be written to."""

    seed: NDArray[np.uint32]
    """[P]"""
    index: NDArray[Any]
    """[Q, P, R]"""
    logp: NDArray[Any]
    """[Q, P, R]"""
    tail: NDArray[Any]
    """[P]"""
    logz: NDArray[np.float32] | None = None
    """[P]"""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(array.nbytes for array in vars(self).values() if array is not None)


@dataclass(frozen=True, kw_only=True)
class _OpenShard:
    """A shard all of whose objects are what was committed."""

    arrays: Mapping[str, OpenArray]
    witness: NDArray[np.uint32]


class BlockReader:
    """Blocks of a store by epoch and number, a few of them kept.

    Args:
        objects: where the store's bytes lie.
        manifest: what it holds.
        documents: ``zarr.json`` of each array by name.
        commit: gives a shard's commit, or raises what a read of the shard should.
        cache_bytes: how much memory the blocks that are kept may take; the last one used is kept in any case.
    """

    def __init__(
        self,
        objects: LocalObjects,
        manifest: Manifest,
        documents: Mapping[str, bytes],
        commit: Callable[[int, int], Commit],
        *,
        cache_bytes: int,
    ) -> None:
        self._shard_size, self._commit = manifest.shard_size, commit
        self._arrays = {
            name: StoredArray(objects, manifest, layout, documents[name])
            for name, layout in array_layouts(manifest).items()
        }
        by_position = [array.chunk for name, array in self._arrays.items() if name != "witness"]
        # An array with ranks has two extents. Where another program cut the arrays differently, a block is a shard.
        self._aligned = len({chunk[0] for chunk in by_position}) == 1 and len({c[1] for c in by_position if c[1:]}) == 1
        self.size = by_position[0][0] if self._aligned else manifest.shard_size
        """Positions in a block, a divisor of the shard size; the last block of an epoch may be shorter."""
        self._shards = Cache(self._open, limit=_OPEN_SHARDS, cost=lambda _: 1)
        self._blocks = Cache(self._load, limit=cache_bytes, cost=lambda block: block.nbytes)

    @property
    def nbytes(self) -> int:
        """Memory that the blocks take now."""
        return self._blocks.cost

    def block(self, epoch: int, number: int) -> Block:
        """The block that begins at position ``number`` times ``size``."""
        return self._blocks.get((epoch, number))

    def witness(self, epoch: int, shard: int) -> NDArray[np.uint32]:
        """The witnesses of a shard."""
        return self._shards.get((epoch, shard)).witness

    def shard(self, epoch: int, shard: int) -> ShardBlock:
        """A whole shard; it is not kept."""
        arrays = self._shards.get((epoch, shard)).arrays
        return ShardBlock(**{name: opened.whole() for name, opened in arrays.items()})

    def _open(self, place: tuple[int, int]) -> _OpenShard:
        commit = self._commit(*place)
        arrays = {name: array.open(*place, commit.objects[name]) for name, array in self._arrays.items()}
        return _OpenShard(arrays=arrays, witness=arrays["witness"].whole())

    def _load(self, place: tuple[int, int]) -> Block:
        epoch, number = place
        shard, part = divmod(number, self._shard_size // self.size)
        arrays = self._shards.get((epoch, shard)).arrays
        if self._aligned:
            return Block(**{name: opened.part(part) for name, opened in arrays.items() if name != "witness"})
        values = {name: opened.whole() for name, opened in arrays.items() if name != "witness"}
        return Block(**{name: array[None] if array.ndim == 2 else array for name, array in values.items()})
