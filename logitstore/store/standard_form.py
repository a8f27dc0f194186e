"""The standard form of a store: one array for each thing that a record holds, in codecs that every zarr reader has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.store.arrays import OpenArray, StoredArray
from logitstore.store.blocks import Block
from logitstore.store.commits import Commit
from logitstore.store.layout import array_layouts
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.records import ShardBlock


class StandardForm:
    """Reads and writes ``seed``, ``index``, ``logp``, ``tail``, ``logz`` and ``witness``.

    Args:
        objects: where the store's bytes lie.
        manifest: what it holds.
        documents: ``zarr.json`` of each array by name.
    """

    def __init__(self, objects: LocalObjects, manifest: Manifest, documents: Mapping[str, bytes]) -> None:
        self._arrays = {
            name: StoredArray(objects, manifest, layout, documents[name])
            for name, layout in array_layouts(manifest).items()
        }
        by_position = [array.chunk for name, array in self._arrays.items() if name != "witness"]
        # An array with ranks has two extents. Where another program cut the arrays differently, a block is a shard.
        self._aligned = len({chunk[0] for chunk in by_position}) == 1 and len({c[1] for c in by_position if c[1:]}) == 1
        self._size = by_position[0][0] if self._aligned else manifest.shard_size

    @property
    def size(self) -> int:
        """Positions in a block."""
        return self._size

    @property
    def model_bytes(self) -> None:
        """Nothing is known."""
        return None

    def open(self, epoch: int, shard: int, commit: Commit) -> _OpenShard:
        """One shard, compared with its commit."""
        arrays = {name: array.open(epoch, shard, commit.objects[name]) for name, array in self._arrays.items()}
        return _OpenShard(arrays=arrays, witness=arrays["witness"].whole(), aligned=self._aligned)

    def check(self, commit: Commit) -> None:
        """Nothing: shards do not depend on each other."""

    def arrays(self, epoch: int, shard: int, block: ShardBlock) -> dict[str, NDArray[Any]]:
        """A shard's arrays as they are, wherever it belongs."""
        return block.arrays()


@dataclass(frozen=True, kw_only=True)
class _OpenShard:
    arrays: Mapping[str, OpenArray]
    witness: NDArray[np.uint32]
    aligned: bool
    """Whether all arrays are cut into the same blocks."""

    def block(self, part: int) -> Block:
        opened = {name: array for name, array in self.arrays.items() if name != "witness"}
        if self.aligned:
            return Block(**{name: array.part(part) for name, array in opened.items()})
        values = {name: array.whole() for name, array in opened.items()}
        return Block(**{name: array[None] if array.ndim == 2 else array for name, array in values.items()})

    def whole(self) -> ShardBlock:
        return ShardBlock(**{name: opened.whole() for name, opened in self.arrays.items()})
