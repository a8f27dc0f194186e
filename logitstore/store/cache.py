"""The decoded shards that a reader keeps: least recently used first out, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.store.records import ShardBlock


@dataclass(frozen=True, kw_only=True)
class DecodedShard:
    """A shard in memory, with the samples that it is about."""

    block: ShardBlock
    sample: NDArray[np.int64]
    """Sample numbers, [S]: the visit order costs less for a whole shard at once than batch by batch."""

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.block.nbytes + self.sample.nbytes

    def by_position(self) -> dict[str, NDArray[Any]]:
        """The arrays that have an entry for each position."""
        arrays = {name: array for name, array in self.block.arrays().items() if name != "witness"}
        return {**arrays, "sample": self.sample}


class ShardCache:
    """Decoded shards by (epoch, shard); one thread loads, others that need a shard wait.

    Args:
        load: decodes a shard that is not in the cache.
        limit_bytes: how much memory the shards may take; the last one used is kept in any case.
    """

    def __init__(self, load: Callable[[int, int], DecodedShard], limit_bytes: int) -> None:
        self._load = load
        self._limit_bytes = limit_bytes
        self._shards: OrderedDict[tuple[int, int], DecodedShard] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Memory that the shards take now."""
        return sum(decoded.nbytes for decoded in self._shards.values())

    def get(self, epoch: int, shard: int) -> DecodedShard:
        """The shard, loaded if need be; what ``load`` raises is passed on and nothing is kept."""
        with self._lock:
            if (epoch, shard) not in self._shards:
                self._shards[epoch, shard] = self._load(epoch, shard)
            self._shards.move_to_end((epoch, shard))
            while len(self._shards) > 1 and self.nbytes > self._limit_bytes:
                self._shards.popitem(last=False)
            return self._shards[epoch, shard]
