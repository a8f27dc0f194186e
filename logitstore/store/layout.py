"""Names, shapes, keys and zarr metadata of a store's objects: pure functions of the manifest.

Dimensions: E epochs, N positions, K ranks, ceil(N / 64) blocks, chunks of positions and their bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from logitstore.checksums import canonical_json, crc32c_hex, is_intact, seal
from logitstore.errors import DamagedError, FormatError
from logitstore.store.codecs import Codec
from logitstore.store.codecs.packed import MAX_CHUNK, PackedCodec
from logitstore.store.manifest import WITNESS_EVERY, Manifest
from logitstore.store.values import CODES_PER_NAT, PADDING, Values, index_dtype, record_bytes

METADATA = "zarr.json"
COMMITS = "commits"
ATTRIBUTE = "logitstore"

_MAX_SHARD_BYTES = 64 << 20
_MIN_SHARDS = 16
_MIN_SHARD_SIZE = 256
_MAX_CHUNK_SIZE = 1 << 14
_MAX_CHUNK_BYTES = 4 << 20
_MAX_PACKED_BYTES = 16 << 20
_MANY_RANKS = 64


@dataclass(frozen=True, kw_only=True)
class ArrayLayout:
    """One array of a store: shape [E, length, *inner], one object per shard."""

    name: str
    dtype: np.dtype[Any]
    dimensions: tuple[str, ...]
    length: int
    """Extent of the second dimension: N positions, or runs of ``every`` of them."""
    inner: tuple[int, ...]
    """``(K,)``, ``(bytes,)`` or ``()``."""
    shard: int
    """Entries of the second dimension in one object."""
    chunk: int
    """Entries of the second dimension compressed together."""
    inner_chunk: tuple[int, ...]
    """Ranks compressed together, or ``()``."""
    fill: int | float
    attributes: Mapping[str, Any]
    every: int = 1
    """Positions that one entry of the second dimension stands for."""

    def key(self, epoch: int, shard: int) -> str:
        """Key of the object that holds one shard."""
        return "/".join((self.name, "c", str(epoch), str(shard), *("0" for _ in self.inner)))

    def shape(self, positions: int) -> tuple[int, ...]:
        """Shape of this array's part of a shard of so many positions."""
        return (-(-positions // self.every), *self.inner)

    def document(self, num_epochs: int, codec: Codec) -> dict[str, Any]:
        """The array's ``zarr.json``."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        sharding = {
            "chunk_shape": [1, self.chunk, *self.inner_chunk],
            "codecs": codec.pipeline(self.name, self.dtype),
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        grid = {"name": "regular", "configuration": {"chunk_shape": [1, self.shard, *self.inner]}}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [num_epochs, self.length, *self.inner],
            "data_type": self.dtype.name,
            "chunk_grid": grid,
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN" if math.isnan(self.fill) else self.fill,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dimensions),
        }


def array_layouts(manifest: Manifest) -> dict[str, ArrayLayout]:
    """The arrays of a store by name, in the order in which their objects are written."""
    codec = manifest.codec
    records = [_packed_layout(manifest, codec)] if isinstance(codec, PackedCodec) else _standard_layouts(manifest)
    return {array.name: array for array in (*records, _witness_layout(manifest))}


def _standard_layouts(manifest: Manifest) -> list[ArrayLayout]:
    m = manifest
    quantised: dict[str, Any] = {}
    value_fill: float = math.nan
    if m.values in CODES_PER_NAT:
        quantised, value_fill = {"scale_factor": -1 / CODES_PER_NAT[m.values], "_FillValue": PADDING}, PADDING

    def along_positions(
        name: str, dtype: np.dtype[Any], fill: float, attributes: Mapping[str, Any], *, ranked: bool = False
    ) -> ArrayLayout:
        return ArrayLayout(
            name=name,
            dtype=dtype,
            dimensions=("epoch", "position", "rank") if ranked else ("epoch", "position"),
            length=m.num_samples,
            inner=(m.topk,) if ranked else (),
            shard=m.shard_size,
            chunk=m.chunk_size,
            inner_chunk=(_ranks_in_chunk(m.topk),) if ranked else (),
            fill=fill,
            attributes=attributes,
        )

    return [
        along_positions("seed", np.dtype(np.uint32), 0, {}),
        along_positions("index", m.index_dtype, int(np.iinfo(m.index_dtype).max), {}, ranked=True),
        along_positions("logp", m.value_dtype, value_fill, quantised, ranked=True),
        along_positions("tail", m.value_dtype, value_fill, quantised),
        *([along_positions("logz", np.dtype(np.float32), math.nan, {})] if m.logz else []),
    ]


def _packed_layout(manifest: Manifest, codec: PackedCodec) -> ArrayLayout:
    """One row of bytes for each run of positions that are coded together, with zeros behind what it takes."""
    from logitstore.store.packed import RecordShape, chunk_bytes  # what codes records loads where it is used

    width = chunk_bytes(RecordShape.of(manifest), codec.chunk)
    return ArrayLayout(
        name="packed",
        dtype=np.dtype(np.uint8),
        dimensions=("epoch", "chunk", "byte"),
        length=-(-manifest.num_samples // codec.chunk),
        inner=(width,),
        shard=manifest.shard_size // codec.chunk,
        chunk=1,
        inner_chunk=(width,),
        fill=0,
        attributes={},
        every=codec.chunk,
    )


def _witness_layout(manifest: Manifest) -> ArrayLayout:
    return ArrayLayout(
        name="witness",
        dtype=np.dtype(np.uint32),
        dimensions=("epoch", "block"),
        length=-(-manifest.num_samples // WITNESS_EVERY),
        inner=(),
        shard=manifest.shard_size // WITNESS_EVERY,
        chunk=manifest.shard_size // WITNESS_EVERY,
        inner_chunk=(),
        fill=0,
        attributes={},
        every=WITNESS_EVERY,
    )


def metadata_documents(manifest: Manifest) -> dict[str, bytes]:
    """Every ``zarr.json`` of a store by key, the group's last: it makes the store exist, or grow."""
    arrays = {name: a.document(manifest.num_epochs, manifest.codec) for name, a in array_layouts(manifest).items()}
    commits: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    empty = {"consolidated_metadata": _consolidated({})}
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {ATTRIBUTE: _manifest_attribute(manifest, arrays)},
        "consolidated_metadata": _consolidated({**arrays, COMMITS: {**commits, **empty}}),
    }
    documents = {f"{name}/{METADATA}": canonical_json(document) for name, document in arrays.items()}
    return {f"{COMMITS}/{METADATA}": canonical_json(commits), **documents, METADATA: canonical_json(group)}


def array_checksum(document: Mapping[str, Any]) -> str:
    """CRC-32C of an array's metadata, its number of epochs taken as 0: that alone may grow."""
    return crc32c_hex(canonical_json({**document, "shape": [0, *document["shape"][1:]]}))


def read_manifest(group: Mapping[str, Any], *, where: str) -> tuple[Manifest, dict[str, str]]:
    """The manifest in a group's ``zarr.json``, and the checksum it holds of each array's metadata.

    Raises:
        FormatError: not a store, or another format version.
        DamagedError: the manifest is not the one that was written.
    """
    attributes = group.get("attributes")
    stored = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(stored, dict) or "format_version" not in stored:
        raise FormatError(f"{where} is a zarr group but not a logitstore: it has no attribute {ATTRIBUTE!r}.")
    values = {key: value for key, value in stored.items() if key not in ("arrays", "crc32c")}
    if stored["format_version"] == 1 and not is_intact(stored):
        raise DamagedError(f"The manifest in {where}/{METADATA} was altered: it differs from its own checksum.")
    return Manifest.from_dict(values), dict(stored["arrays"])


def choose_shard_size(
    num_samples: int, topk: int, values: Values, logz: bool, inference_batch: int, *, num_classes: int = 1000
) -> int:
    """Default shard size: the largest power of two of at most 64 MiB raw that leaves 16 shards an epoch.

    Never below 256 and never below the inference batch, which must be a power of two.

    Args:
        num_samples: N.
        topk: K.
        values: form of the log-probabilities.
        logz: whether logz is kept.
        inference_batch: images the teacher sees at once.
        num_classes: C, for the width of an index.
    """
    # ceil(N / S) >= 16 is S <= (N - 1) // 15
    fitting = _MAX_SHARD_BYTES // record_bytes(topk, num_classes, values, logz)
    largest = min(fitting, (num_samples - 1) // (_MIN_SHARDS - 1))
    return max(_MIN_SHARD_SIZE, inference_batch, _power_of_two_below(largest))


def choose_chunk_size(shard_size: int, topk: int, *, num_classes: int = 1000) -> int:
    """Default chunk size: 16,384 positions, or the shard; fewer where K is so large that a chunk passed 4 MiB."""
    largest = _power_of_two_below(_MAX_CHUNK_BYTES // (topk * index_dtype(num_classes).itemsize))
    return min(shard_size, _MAX_CHUNK_SIZE, max(WITNESS_EVERY, largest))


def choose_packed_chunk(manifest: Manifest) -> int:
    """Positions that a packed store codes together: 4,096, or the shard; fewer where they could take over 16 MiB."""
    from logitstore.store.packed import RecordShape, chunk_bytes  # what codes records loads where it is used

    largest = _power_of_two_below(_MAX_PACKED_BYTES // chunk_bytes(RecordShape.of(manifest), 1))
    return min(manifest.shard_size, MAX_CHUNK, largest)


def _ranks_in_chunk(topk: int) -> int:
    """Half of many ranks: most records end in the first half, and shorter runs of padding take fewer bits."""
    return topk // 2 if topk >= _MANY_RANKS and topk % 2 == 0 else topk


def _power_of_two_below(value: int) -> int:
    return 1 << max(0, value.bit_length() - 1)


def _manifest_attribute(manifest: Manifest, arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    checksums = {name: array_checksum(document) for name, document in arrays.items()}
    return seal({**manifest.to_dict(), "arrays": checksums})


def _consolidated(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": dict(metadata)}
