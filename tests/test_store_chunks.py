"""Stored objects decoded without zarr, with zarr as the oracle and as the reader of what else there is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from logitstore.checksums import canonical_json, seal
from logitstore.errors import DamagedError
from logitstore.store import Manifest, Store, create_store, open_store
from logitstore.store.chunks import ChunkFormat
from logitstore.store.layout import array_checksum, array_layouts
from tests.store_cases import COARSE, DENSE, SMALL, write_shards, write_store

WIDE = replace(SMALL, num_classes=70_000, topk=64)  # two groups of ranks, uint32
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": True}}


@pytest.mark.parametrize("manifest", [SMALL, COARSE, DENSE, WIDE], ids=["q8", "q4", "f16", "wide"])
@pytest.mark.parametrize("samples", [1, 64, 129, 300])
def test_every_array_is_what_zarr_reads(tmp_path: Path, manifest: Manifest, samples: int) -> None:
    manifest = replace(manifest, num_samples=samples)
    store = write_store(tmp_path / "s", manifest)
    for name, layout in array_layouts(manifest).items():
        assert ChunkFormat.of(store.documents[name]) is not None, "read without zarr"
        array = zarr.open_array(tmp_path / "s" / name, mode="r")
        for epoch, shard in sorted(store.committed()):
            expected = np.asarray(array[epoch, shard * layout.shard : (shard + 1) * layout.shard])
            found = store.block(epoch, shard).arrays()[name]
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


def _codecs(*codecs: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def change(sharding: dict[str, Any]) -> None:
        sharding["codecs"] = list(codecs)

    return change


def _chunk(*shape: int) -> Callable[[dict[str, Any]], None]:
    return lambda sharding: sharding.update(chunk_shape=list(shape))


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], None], bool]] = {
    "not compressed": ("logp", _codecs(LITTLE), True),
    "zstd alone": ("index", _codecs(LITTLE, ZSTD), True),
    "zstd twice": ("seed", _codecs(LITTLE, ZSTD, ZSTD), True),
    "gzip": ("logp", _codecs(LITTLE, {"name": "gzip", "configuration": {"level": 1}}), False),
    "big-endian": ("index", _codecs({"name": "bytes", "configuration": {"endian": "big"}}, ZSTD), False),
    "transposed": ("index", _codecs({"name": "transpose", "configuration": {"order": [0, 2, 1]}}, LITTLE), False),
    "table at the start": ("tail", lambda sharding: sharding.update(index_location="start"), False),
    "table without a checksum": ("index", lambda sharding: sharding.update(index_codecs=[LITTLE]), False),
    "longer chunks": ("index", _chunk(1, 128, 64), True),
    "shorter chunks": ("tail", _chunk(1, 32), True),
    "other groups of ranks": ("logp", _chunk(1, 64, 16), True),
    "witnesses in parts": ("witness", _chunk(1, 1), True),
}


@pytest.mark.parametrize("case", CHANGES)
def test_arrays_that_another_program_encoded_are_read_by_their_own_metadata(tmp_path: Path, case: str) -> None:
    name, change, without_zarr = CHANGES[case]
    expected = write_store(tmp_path / "ours", WIDE)
    foreign = _foreign(tmp_path / "theirs", name, change)
    assert (ChunkFormat.of(foreign.documents[name]) is not None) == without_zarr
    for start, stop in ((0, 300), (0, 1), (70, 190), (255, 300)):
        found = foreign.read(1, start, stop)
        for field, array in vars(expected.read(1, start, stop)).items():
            assert array is None or np.array_equal(array, getattr(found, field)), field
        assert np.array_equal(expected.witnesses(1, start, stop)[1], foreign.witnesses(1, start, stop)[1])
    assert all(
        np.array_equal(array, foreign.block(0, 2).arrays()[name])
        for name, array in expected.block(0, 2).arrays().items()
    )


def _foreign(path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Store:
    """A store one of whose arrays another program would encode so."""
    create_store(path, WIDE)
    document = json.loads((path / name / "zarr.json").read_bytes())
    change(document["codecs"][0]["configuration"])
    (path / name / "zarr.json").write_bytes(canonical_json(document))
    group = json.loads((path / "zarr.json").read_bytes())
    manifest = group["attributes"]["logitstore"]
    manifest["arrays"][name] = array_checksum(document)
    del manifest["crc32c"]
    group["attributes"]["logitstore"] = seal(manifest)
    group["consolidated_metadata"]["metadata"][name] = document
    (path / "zarr.json").write_bytes(canonical_json(group))
    store = open_store(path)
    write_shards(store)
    return store


def test_a_chunk_that_is_absent_holds_the_fill_value(tmp_path: Path) -> None:
    known = ChunkFormat.of(write_store(tmp_path / "s", DENSE).documents["logp"])
    assert known is not None
    out = np.zeros(known.chunk, known.dtype)
    known.decode(b"", out)
    assert np.isnan(out).all()


def test_an_object_that_shrinks_after_it_was_checked(tmp_path: Path) -> None:
    """A map of the file would end the process here."""
    store = write_store(tmp_path / "s", SMALL)
    store.read(0, 0, 1)
    os.truncate(tmp_path / "s/logp/c/0/0/0", 10)
    store.read(0, 0, 64)
    with pytest.raises(DamagedError, match=r"logp/c/0/0/0 is what was committed, but does not decode"):
        store.read(0, 64, 65)


def test_an_object_that_is_replaced_after_it_was_checked_is_still_the_one_that_was(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", SMALL)
    expected = open_store(tmp_path / "s").read(0, 64, 128)
    store.read(0, 0, 1)
    for name in ("index", "logp"):
        file = tmp_path / "s" / name / "c/0/0/0"
        (tmp_path / "s" / name / "c/0/1/0").replace(file)
    found = store.read(0, 64, 128)
    assert np.array_equal(found.index, expected.index) and np.array_equal(found.prob, expected.prob)
