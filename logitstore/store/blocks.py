"""Blocks: the parts of shards that a reader has in memory.

A block is the run of positions that is compressed together, some hundred kilobytes to a few megabytes, so what a reader
holds depends neither on the size of shards nor on that of the data set. How blocks lie in objects is a store's form:
``standard_form`` or ``packed_form``.

Shape suffixes: P positions of a block, Q groups of ranks that are compressed together, R ranks of a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from logitstore.store.cache import Cache
from logitstore.store.commits import Commit
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


class OpenShard(Protocol):
    """A shard all of whose objects are what was committed. What its methods raise is a DamagedError."""

    @property
    def witness(self) -> NDArray[np.uint32]:
        """Its witnesses."""
        ...

    def block(self, part: int) -> Block:
        """One of its blocks; positions beyond N hold the fill value, or are left out."""
        ...

    def whole(self) -> ShardBlock:
        """All of it."""
        ...


class Form(Protocol):
    """How a store's records lie in its objects."""

    @property
    def size(self) -> int:
        """Positions in a block, a divisor of the shard size; the last block of an epoch may be shorter."""
        ...

    @property
    def model_bytes(self) -> int | None:
        """Memory at most that the form takes for what it knows of samples; None where it knows nothing."""
        ...

    def open(self, epoch: int, shard: int, commit: Commit) -> OpenShard:
        """One shard; DamagedError where an object is missing, or not what was committed."""
        ...

    def check(self, commit: Commit) -> None:
        """Refuse a shard that is what was committed, but does not fit to others: DamagedError, or IncompleteError."""
        ...

    def arrays(self, epoch: int, shard: int, block: ShardBlock) -> dict[str, NDArray[Any]]:
        """The arrays of a shard by name, as zarr is to write them."""
        ...


class BlockReader:
    """Blocks of a store by epoch and number, a few of them kept.

    Args:
        form: how they lie in objects.
        shard_size: positions in a shard.
        commit: gives a shard's commit, or raises what a read of the shard should.
        cache_bytes: how much memory the blocks that are kept may take; the last one used is kept in any case.
    """

    def __init__(self, form: Form, *, shard_size: int, commit: Callable[[int, int], Commit], cache_bytes: int) -> None:
        self._form, self._commit = form, commit
        self._parts = shard_size // form.size
        self.size = form.size
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
        return self._shards.get((epoch, shard)).whole()

    def _open(self, place: tuple[int, int]) -> OpenShard:
        return self._form.open(*place, self._commit(*place))

    def _load(self, place: tuple[int, int]) -> Block:
        epoch, number = place
        shard, part = divmod(number, self._parts)
        return self._shards.get((epoch, shard)).block(part)
