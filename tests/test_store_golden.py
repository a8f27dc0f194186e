"""Stores that were written once and lie in the repository: this version reads them, and writes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from logitstore.pcg import VisitOrder, view_seeds
from logitstore.store import create_store, open_store, verify_store
from logitstore.store.layout import metadata_documents
from tests.golden_store import FOLDER, PACKED, STORES
from tests.store_cases import make_block, state, write_store

STORE_IDS = {
    "store_v1_q8": "497bcaf8eeb075d4276a2d6fae68706430cb96b14d963f321b2d292d8a25047e",
    "store_v1_q4": "378c396f189a557be63f137a8aaba4fc5c14a1f9d4d654f50ba3256e0a0e1224",
    "store_v1_q2": "3d3806381abffe80d833cdd1c7001992ed4568db3fc33d85e875692d3e52690d",
    "store_v1_f16": "9d95fbb6028bdb38bcba584f31d1507a5c3e7b3f2df8e0f1b3f5f8d1599a94df",
    "store_v1_packed_q8": "2b16b7eba5a4d58fdad9fe9b24a766d280b252af026e53e1509fd4648b4f61e6",
    "store_v1_packed_q4": "3017cb174dde602847a57196159e4dfb5be30a64be1492b2c9da08f3eec4fe06",
    "store_v1_packed_f16": "ec7ca915b151904f67d58cac1a27625d679a7ce1f2c2738ca855f33908c140ea",
}


@pytest.fixture(params=STORES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_whole(name: str) -> None:
    before = state(FOLDER / name)
    report = verify_store(FOLDER / name)
    assert report.ok and not report.notes, report
    assert report.records_checked == 70 * STORES[name].num_epochs
    assert state(FOLDER / name) == before


def test_it_is_the_store_that_its_manifest_describes(name: str) -> None:
    store = open_store(FOLDER / name)
    assert store.manifest == STORES[name]
    assert store.store_id == STORE_IDS[name]
    assert create_store(FOLDER / name, STORES[name]).complete


def test_it_holds_what_was_written(name: str) -> None:
    store = open_store(FOLDER / name)
    for epoch, shard in sorted(store.committed()):
        found, made = store.block(epoch, shard).arrays(), make_block(STORES[name], epoch, shard).arrays()
        assert found.keys() == made.keys()
        for array, values in made.items():
            assert found[array].dtype == values.dtype
            assert np.array_equal(found[array], values, equal_nan=values.dtype.kind == "f")


def test_order_and_seeds_are_those_of_then(name: str) -> None:
    store = open_store(FOLDER / name)
    records = store.read(0, 0, 70)
    order = VisitOrder(num_samples=70, run_seed=7, epoch=0)
    assert np.array_equal(records.sample, order.samples(np.arange(70)))
    assert np.array_equal(records.seed, view_seeds(7, 0, records.sample))


def test_metadata_is_written_the_same_today(name: str) -> None:
    for key, data in metadata_documents(STORES[name]).items():
        assert (FOLDER / name / key).read_bytes() == data, key


def test_commits_differ_in_compressed_bytes_at_most(name: str, tmp_path: Path) -> None:
    """Compressors may change their output between versions; what the commits count may not."""
    write_store(tmp_path / "s", STORES[name])
    for file in (FOLDER / name / "commits").glob("0*.json"):
        then, now = (json.loads(f.read_bytes()) for f in (file, tmp_path / "s/commits" / file.name))
        for varying in ("info", "objects", "crc32c"):
            then.pop(varying), now.pop(varying)
        assert then == now


@pytest.mark.parametrize("name", PACKED)
def test_chunks_are_coded_the_same_today(name: str, tmp_path: Path) -> None:
    """To the byte: integers alone decide it. What may differ is how zstd wraps them."""
    write_store(tmp_path / "s", STORES[name])
    then, now = (zarr.open_array(path / "packed", mode="r")[:] for path in (FOLDER / name, tmp_path / "s"))
    assert np.array_equal(then, now)
    forms = {int(form) for form in np.asarray(now)[:, :, 0].ravel()}
    assert 1 in forms, "some are coded, not stored as they are"
