"""Inner chunks of a stored object and their decoding, without zarr: one chunk costs microseconds, not milliseconds.

Zarr's ``sharding_indexed`` object is a row of compressed chunks with a table of (offset, length) at its end. Here is
what this takes for the codecs that a store is written with; an array whose metadata ask for anything else has no
``ChunkFormat``, and zarr reads it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numpy.typing import NDArray

# As zarr sets it, too: a chunk is decoded by the thread that asks for it, without blosc's own pool and its lock.
blosc.use_threads = False

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
_INDEX_CODECS = [_LITTLE, {"name": "crc32c"}]
_COMPRESSORS = {"blosc": blosc.decompress, "zstd": zstd.decompress}
_CHECKSUM_BYTES = 4
_ABSENT = (1 << 64) - 1


@dataclass(frozen=True, kw_only=True)
class ChunkFormat:
    """How the objects of one array are cut into chunks and how a chunk is compressed."""

    dtype: np.dtype[Any]
    fill: int | float
    """What stands in chunks that are absent."""
    chunk: tuple[int, ...]
    """Entries compressed together: ``(positions,)`` or ``(positions, ranks)``."""
    grid: tuple[int, int]
    """Chunks in an object along positions and along ranks."""
    compressors: tuple[str, ...]
    """In the order of writing."""

    @classmethod
    def of(cls, document: bytes) -> Self | None:
        """The format that an array's ``zarr.json`` describes; None where only zarr knows it."""
        array = json.loads(document)
        codecs = array["codecs"]
        if [codec["name"] for codec in codecs] != ["sharding_indexed"] or sys.byteorder != "little":
            return None
        sharding = codecs[0]["configuration"]
        if sharding.get("index_location", "end") != "end" or sharding["index_codecs"] != _INDEX_CODECS:
            return None
        (_, *shard), (_, *chunk) = array["chunk_grid"]["configuration"]["chunk_shape"], sharding["chunk_shape"]
        dtype = np.dtype(array["data_type"])
        plain, *compressors = sharding["codecs"]
        if not _is_plain(plain, dtype) or any(codec["name"] not in _COMPRESSORS for codec in compressors):
            return None
        rows, columns = (*(whole // part for whole, part in zip(shard, chunk, strict=True)), 1)[:2]
        fill = array["fill_value"]
        return cls(
            dtype=dtype,
            fill=math.nan if fill == "NaN" else fill,
            chunk=tuple(chunk),
            grid=(rows, columns),
            compressors=tuple(codec["name"] for codec in compressors),
        )

    @property
    def table_bytes(self) -> int:
        """Length of the table at an object's end."""
        return 16 * math.prod(self.grid) + _CHECKSUM_BYTES

    def table(self, data: bytes) -> NDArray[np.uint64]:
        """Where the chunks of an object lie.

        Args:
            data: the object's last ``table_bytes`` bytes.

        Returns:
            offset and length, [chunks along positions, chunks along ranks, 2].

        Raises:
            ValueError: the table differs from its own checksum.
        """
        content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(data) != self.table_bytes or google_crc32c.value(content) != int.from_bytes(checksum, "little"):
            raise ValueError("its table of chunks is damaged")
        return np.frombuffer(content, "<u8").reshape(*self.grid, 2)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Decode one chunk.

        Args:
            data: its stored bytes; none for an absent chunk.
            out: where to, contiguous, of shape ``chunk``.

        Raises:
            ValueError: the bytes hold another number of entries.
            RuntimeError: they are no compressed chunk.
        """
        if not data:
            out.fill(self.fill)
            return
        *first, last = reversed(self.compressors or ("",))
        for name in first:
            data = _COMPRESSORS[name](data)
        if last == "blosc" and _blosc_bytes(data) == out.nbytes:
            blosc.decompress(data, out)
            return
        if last:
            data = _COMPRESSORS[last](data)
        out[...] = np.frombuffer(data, self.dtype).reshape(self.chunk)


def _is_plain(codec: Mapping[str, Any], dtype: np.dtype[Any]) -> bool:
    return codec == _LITTLE or (codec["name"] == "bytes" and dtype.itemsize == 1)


def _blosc_bytes(data: bytes) -> int:
    """How many bytes a blosc frame says that it holds."""
    return int.from_bytes(data[4:8], "little")


def is_absent(place: NDArray[np.uint64]) -> bool:
    """Whether a chunk's entry in the table says that there is none."""
    return bool((place == _ABSENT).all())
