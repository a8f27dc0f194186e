"""One shard between arrays and the bytes of its objects, through zarr in memory: no file is touched here.

Zarr writes every store, and reads those whose arrays are encoded in ways that ``chunks`` does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from logitstore.checksums import canonical_json
from logitstore.errors import InputError
from logitstore.store.layout import METADATA, ArrayLayout, array_layouts
from logitstore.store.manifest import Manifest


class ShardCoder:
    """Encodes and decodes the objects of single shards.

    Args:
        manifest: of the store.
        documents: ``zarr.json`` of each array by name; by default those the manifest implies.
    """

    def __init__(self, manifest: Manifest, documents: Mapping[str, bytes] | None = None) -> None:
        self._manifest = manifest
        self._layouts = array_layouts(manifest)
        self._documents = documents or {
            name: canonical_json(layout.document(manifest.num_epochs, manifest.codec))
            for name, layout in self._layouts.items()
        }

    def encode(self, epoch: int, shard: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
        """Stored bytes of each array's object of one shard.

        Args:
            epoch: number of the epoch.
            shard: number of the shard in it.
            arrays: every array of the store, of this shard's length, in the store's dtype.
        """
        self._check(shard, arrays)
        return {name: self._encode_one(layout, epoch, shard, arrays[name]) for name, layout in self._layouts.items()}

    def decode(self, name: str, epoch: int, shard: int, data: bytes) -> NDArray[Any]:
        """The array that one object holds: this shard's part of array ``name``."""
        layout = self._layouts[name]
        memory = {METADATA: _buffer(self._documents[name]), self._inner_key(layout, epoch, shard): _buffer(data)}
        array = zarr.open_array(MemoryStore(memory), mode="r")
        return np.asarray(array[self._region(layout, epoch, shard)])

    def _encode_one(self, layout: ArrayLayout, epoch: int, shard: int, values: NDArray[Any]) -> bytes:
        memory = {METADATA: _buffer(self._documents[layout.name])}
        array = zarr.open_array(MemoryStore(memory), mode="r+")
        assert isinstance(array, zarr.Array)
        # Otherwise zarr drops shards that equal the fill value, and a missing object is indistinguishable from zeros.
        array.with_config({"write_empty_chunks": True})[self._region(layout, epoch, shard)] = values
        return bytes(memory[self._inner_key(layout, epoch, shard)].to_bytes())

    def _region(self, layout: ArrayLayout, epoch: int, shard: int) -> tuple[int, slice]:
        start = shard * layout.shard
        return epoch, slice(start, min(start + layout.shard, layout.length))

    def _inner_key(self, layout: ArrayLayout, epoch: int, shard: int) -> str:
        return layout.key(epoch, shard).removeprefix(f"{layout.name}/")

    def _check(self, shard: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        _require_equal("arrays", sorted(arrays), sorted(self._layouts))
        start, stop = self._manifest.shard_range(shard)
        for name, layout in self._layouts.items():
            _require_equal(f"dtype of {name}", arrays[name].dtype, layout.dtype)
            _require_equal(f"shape of {name}", arrays[name].shape, layout.shape(stop - start))


def _require_equal(what: str, given: object, needed: object) -> None:
    if given != needed:
        raise InputError(f"A shard of this store needs {what} {needed}, got {given}.")


def _buffer(data: bytes) -> Any:
    return default_buffer_prototype().buffer.from_bytes(data)
