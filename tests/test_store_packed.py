"""Packed stores on disk: damage of every kind, base epochs read once, and what any zarr reader sees."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from logitstore.checksums import canonical_json, crc32c_hex, seal
from logitstore.errors import DamagedError, IncompleteError, StoreError
from logitstore.store import Store, create_store, open_store, verify_store
from logitstore.store.layout import array_checksum
from logitstore.store.packed import Base
from tests.convert_cases import SIX, packed_manifest
from tests.store_cases import make_block, state, write_shards, write_store

MANIFEST = packed_manifest(SIX)
"""Base epochs 0 and 1; shards of two chunks, the last one of one."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("whole") / "p", MANIFEST).path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "p"))


def expect(path: Path, sentence: str, *, lost: int, error: type[StoreError] = DamagedError) -> None:
    """Found once by verify, and by a read of the shard, with the same words; the store stays as it is."""
    before = state(path)
    report = verify_store(path)
    assert not report.ok and len(report.errors) == 1 and sentence in report.errors[0], report
    assert report.records_checked == 1800 - lost
    with pytest.raises(error) as caught:
        open_store(path).read(1, 128, 256)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert state(path) == before
    open_store(path).read(0, 0, 300)


@pytest.mark.parametrize("key", ["packed/c/1/1/0", "witness/c/1/1"])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda data: bytes([data[0] ^ 4]) + data[1:], "was altered"),
        (lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:], "was altered"),
        (lambda data: data[:-1], "is truncated"),
        (lambda data: data + b"x", "is too long"),
        (lambda data: b"", "is truncated or of another shard: 0 bytes"),
        (None, "is missing although its shard was committed"),
    ],
    ids=["first byte", "last bytes", "truncated", "longer", "empty", "missing"],
)
def test_damage_is_found_and_named(
    path: Path, key: str, damage: Callable[[bytes], bytes] | None, sentence: str
) -> None:
    if damage is None:
        (path / key).unlink()
    else:
        (path / key).write_bytes(damage((path / key).read_bytes()))
    expect(path, f"{key} {sentence}", lost=128)


def test_damage_in_a_base_epoch_keeps_others_from_being_read(path: Path) -> None:
    key = path / "packed/c/1/1/0"
    good = key.read_bytes()
    key.write_bytes(b"x" * len(good))
    store = open_store(path)
    for _ in range(2):
        with pytest.raises(DamagedError, match=r"packed/c/1/1/0 was altered"):
            store.read(4, 0, 10)
    key.write_bytes(good)
    assert np.array_equal(store.block(4, 0).index, make_block(MANIFEST, 4, 0).index), "the same store goes on"


def test_a_base_epoch_that_lacks_a_shard(path: Path) -> None:
    (path / "commits/0000.00002.json").unlink()
    sentence = "lacks epoch 0, shard 2: it was not committed. `logitstore convert` completes it."
    with pytest.raises(IncompleteError, match=sentence):
        open_store(path).read(5, 0, 1)
    errors = verify_store(path).errors
    assert errors == (f"{path} {sentence}", "Epoch 0 is incomplete: 1 of 3 shards are not committed (2).")


def recommit(path: Path, epoch: int, shard: int, data: bytes) -> None:
    """Put another object where one was committed, and say so in the commit, as a careful forger would."""
    (path / f"packed/c/{epoch}/{shard}/0").write_bytes(data)
    file = path / f"commits/{epoch:04}.{shard:05}.json"
    commit = json.loads(file.read_bytes())
    commit["objects"]["packed"] = {"crc32c": crc32c_hex(data), "size": len(data)}
    del commit["crc32c"]
    file.write_bytes(canonical_json(seal(commit, exclude=("info",))))


def test_a_base_epoch_that_was_replaced(path: Path) -> None:
    """All checksums are right, and the records that others were coded with are gone."""
    store = open_store(path)
    arrays = store.form.arrays(0, 2, make_block(MANIFEST, 0, 2))
    arrays["packed"][-1, 40] ^= 1
    recommit(path, 0, 2, store.coder.encode(0, 2, arrays)["packed"])
    report = verify_store(path)
    # The chunk's header is what it was; all but the first base epoch were coded with what was there.
    assert len(report.errors) == 5 * 3 and report.records_checked == 300
    assert all("was coded with other base epochs (CRC-32C " in error for error in report.errors)
    with pytest.raises(DamagedError, match=r"packed/c/0/2/0 is what was committed, but does not decode"):
        open_store(path).read(0, 256, 300)
    with pytest.raises(DamagedError, match=r"packed/c/0/2/0 is what was committed, but does not decode"):
        open_store(path).read(4, 0, 1)


def test_a_base_epoch_that_decodes_to_the_same_is_not_the_same(path: Path) -> None:
    """Nothing is decoded with a base whose bytes are others, however alike."""
    data = (path / "packed/c/1/0/0").read_bytes()
    memory = zarr.storage.MemoryStore()
    array = zarr.open_array(path / "packed", mode="r")
    copy = zarr.create_array(
        memory, shape=array.shape, chunks=array.chunks, shards=array.shards, dtype="u1", fill_value=0,
        compressors=[zarr.codecs.ZstdCodec(level=1, checksum=False)],
    )  # fmt: skip
    copy[1, 0:2] = array[1, 0:2]
    other = bytes(memory._store_dict["c/1/0/0"].to_bytes())
    assert other != data
    recommit(path, 1, 0, other)
    store = open_store(path)
    assert np.array_equal(store.block(1, 0).index, make_block(MANIFEST, 1, 0).index)
    with pytest.raises(DamagedError, match=r"packed/c/3/0/0 is what was committed, but does not decode: .* model"):
        store.read(3, 0, 1)


def test_swapped_shards_are_found(path: Path) -> None:
    one, other = (path / f"packed/c/{epoch}/1/0" for epoch in (3, 4))
    left, right = one.read_bytes(), other.read_bytes()
    one.write_bytes(right), other.write_bytes(left)
    report = verify_store(path)
    assert len(report.errors) == 2 and report.records_checked == 1800 - 2 * 128
    for epoch in (3, 4):
        with pytest.raises(DamagedError, match=f"packed/c/{epoch}/1/0"):
            open_store(path).read(epoch, 128, 129)


def test_a_swap_that_the_commits_were_made_to_agree_with(path: Path) -> None:
    """Two shards of the same level: only what was coded tells them apart."""
    left, right = ((path / f"packed/c/{epoch}/1/0").read_bytes() for epoch in (3, 4))
    recommit(path, 3, 1, right)
    recommit(path, 4, 1, left)
    for epoch in (3, 4):
        with pytest.raises(DamagedError, match=f"packed/c/{epoch}/1/0 is what was committed, but does not decode"):
            open_store(path).read(epoch, 128, 129)


def test_the_base_epochs_are_read_once_and_only_if_needed(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[int] = []
    add = Base.add
    monkeypatch.setattr(Base, "add", lambda self, blocks: (learnt.append(self.level), add(self, blocks))[1])
    store = open_store(whole)
    assert store.info()["model_bytes"] > 0 and verify_store(whole).ok
    store.read(0, 0, 300)
    assert learnt == [], "the first epoch needs no other"
    store.read(1, 0, 300)
    assert learnt == [0]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda place: store.block(*place), [(e, s) for e in range(6) for s in range(3)] * 2))
    assert learnt == [0, 1]
    for number, block in enumerate(found[:18]):
        assert np.array_equal(block.logp, make_block(MANIFEST, *divmod(number, 3)).logp)


def test_memory_stays_bounded(whole: Path) -> None:
    store = open_store(whole)
    small = Store(store.objects, store.manifest, dict(store.documents), cache_bytes=1)
    for epoch in range(6):
        small.read(epoch, 0, 300)
    assert small.cached_bytes < 64 * (5 * 3 + 8) + 100, "one chunk"


def test_any_zarr_reader_opens_it(whole: Path) -> None:
    group = zarr.open_group(whole, mode="r")
    assert sorted(group.array_keys()) == ["packed", "witness"]
    packed = group["packed"]
    assert isinstance(packed, zarr.Array)
    assert packed.shape[:2] == (6, 5) and packed.dtype == np.uint8
    assert packed.metadata.dimension_names == ("epoch", "chunk", "byte")  # type: ignore[union-attr]
    assert not packed[0, 4, -1:].any(), "zeros behind what a chunk takes"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = xarray.open_zarr(whole, consolidated=True)
    assert data["packed"].sizes == {"epoch": 6, "chunk": 5, "byte": packed.shape[2]}
    assert np.array_equal(data["witness"][3, :2], make_block(MANIFEST, 3, 0).witness)


@pytest.mark.parametrize("cut", ["two chunks together", "half a chunk", "gzip"])
def test_an_array_that_another_program_cut_is_read_by_its_own_metadata(tmp_path: Path, cut: str) -> None:
    path = create_store(tmp_path / "p", MANIFEST).path
    document = json.loads((path / "packed/zarr.json").read_bytes())
    sharding = document["codecs"][0]["configuration"]
    width = document["shape"][2]
    if cut == "gzip":
        sharding["codecs"] = [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]
    elif cut == "half a chunk":
        assert width % 2 == 0
        sharding["chunk_shape"] = [1, 1, width // 2]
    else:
        sharding["chunk_shape"][1] = 2
    replace_metadata(path, document)
    store = open_store(path)
    write_shards(store)
    for epoch, shard in [(0, 0), (1, 2), (5, 1)]:
        assert np.array_equal(open_store(path).block(epoch, shard).index, make_block(MANIFEST, epoch, shard).index)


def replace_metadata(path: Path, document: dict[str, Any]) -> None:
    """Give the array ``packed`` other metadata, with all checksums."""
    (path / "packed/zarr.json").write_bytes(canonical_json(document))
    group = json.loads((path / "zarr.json").read_bytes())
    manifest = group["attributes"]["logitstore"]
    manifest["arrays"]["packed"] = array_checksum(document)
    del manifest["crc32c"]
    group["attributes"]["logitstore"] = seal(manifest)
    group["consolidated_metadata"]["metadata"]["packed"] = document
    (path / "zarr.json").write_bytes(canonical_json(group))
