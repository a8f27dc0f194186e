"""Opening and reading a store."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import logitstore
from logitstore.errors import FormatError, IncompleteError, InputError, StoreNotFoundError
from logitstore.pcg import VisitOrder, view_seeds
from logitstore.store import Manifest, Store, create_store, open_store
from logitstore.store.records import decode_records
from tests.store_cases import COARSE, DENSE, SMALL, make_block, state, write_shards, write_store


@pytest.fixture(scope="module", params=[SMALL, COARSE, DENSE], ids=["q8", "q4", "f16"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("stores") / "s"
    write_store(path, request.param)
    return open_store(path)


@pytest.mark.parametrize(("start", "stop"), [(0, 300), (0, 1), (127, 129), (100, 290), (299, 300), (128, 256)])
def test_records_are_those_of_the_shards(store: Store, start: int, stop: int) -> None:
    m = store.manifest
    for epoch in range(m.num_epochs):
        blocks = [make_block(m, epoch, shard).arrays() for shard in range(m.num_shards)]
        whole = {name: np.concatenate([b[name] for b in blocks])[start:stop] for name in blocks[0] if name != "witness"}
        index, prob, tail = decode_records(whole["index"], whole["logp"], whole["tail"], values=m.values)
        records = store.read(epoch, start, stop)
        sample = VisitOrder(num_samples=300, run_seed=7, epoch=epoch).samples(np.arange(start, stop))
        assert len(records) == stop - start
        assert np.array_equal(records.sample, sample) and records.sample.dtype == np.int64
        assert np.array_equal(records.seed, view_seeds(7, epoch, sample)) and records.seed.dtype == np.uint32
        assert np.array_equal(records.index, index) and records.index.dtype == np.uint16
        assert np.array_equal(records.prob, prob) and np.array_equal(records.tail, tail)
        assert np.array_equal(records.kept, (index != 65535).sum(axis=1))
        assert np.array_equal(records.weight, np.where(sample == 13, 0, 1).astype(np.float32))
        if m.logz:
            assert records.logz is not None and np.array_equal(records.logz, whole["logz"])
        else:
            assert records.logz is None


def test_topk_truncates(store: Store) -> None:
    whole, cut = store.read(0, 0, 300), store.read(0, 0, 300, topk=2)
    assert cut.prob.shape == cut.index.shape == (300, 2)
    assert np.array_equal(cut.kept, np.minimum(whole.kept, 2))
    assert np.allclose(cut.tail, whole.tail + whole.prob[:, 2:].sum(axis=1), atol=1e-6)
    assert store.read(0, 0, 300, topk=99).prob.shape == whole.prob.shape


def test_what_was_read_may_be_changed(store: Store) -> None:
    first = store.read(0, 0, 10)
    for array in (first.seed, first.index, first.prob, first.tail):
        array[:] = 0
    assert store.read(0, 0, 10).seed.any() and store.read(0, 0, 10).index.any()


@pytest.mark.parametrize(("start", "stop"), [(0, 300), (1, 64), (1, 65), (100, 260), (64, 65)])
def test_witnesses_stand_at_every_64th_position(store: Store, start: int, stop: int) -> None:
    positions, found = store.witnesses(1, start, stop)
    assert positions.tolist() == [p for p in range(0, 300, 64) if start <= p < stop]
    whole = np.concatenate([make_block(store.manifest, 1, shard).witness for shard in range(3)])
    assert np.array_equal(found, whole[positions // 64]) and found.dtype == np.uint32


@pytest.mark.parametrize(("epoch", "start", "stop"), [(2, 0, 1), (-1, 0, 1), (0, -1, 5), (0, 5, 5), (0, 0, 301)])
def test_outside_the_store_is_refused(store: Store, epoch: int, start: int, stop: int) -> None:
    with pytest.raises(InputError):
        store.read(epoch, start, stop)


def test_topk_below_one_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="topk"):
        store.read(0, 0, 1, topk=0)


def test_info(store: Store) -> None:
    info = store.info()
    m = store.manifest
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    expected = {
        "num_samples": 300,
        "num_epochs": 2,
        "num_classes": 11,
        "topk": m.topk,
        "records": 600,
        "bytes": size,
        "bytes_per_record": size / 600,
        "complete": True,
        "complete_epochs": [0, 1],
        "shards": {"committed": 6, "total": 6},
        "store_id": m.store_id,
        "values": m.values,
        "floor": m.floor,
        "mass": 1.0,
        "gain": 0.0,
        "views_from": None,
        "teacher": m.teacher,
        "dataset": m.dataset,
        "view": m.view,
    }
    assert {name: info[name] for name in expected} == expected


def test_nothing_is_written_by_opening_and_reading(store: Store) -> None:
    before = state(store.path)
    again = open_store(store.path)
    again.read(0, 0, 300)
    again.witnesses(0, 0, 300)
    again.info()
    assert state(store.path) == before


def test_threads_may_share_a_store(store: Store) -> None:
    shared = Store(store.objects, store.manifest, dict(store.documents), cache_bytes=1)
    expected = [store.read(e, 0, 300).prob for e in (0, 1)]
    wrong: list[int] = []

    def work(number: int) -> None:
        for step in range(6):
            epoch = (number + step) % 2
            if not np.array_equal(shared.read(epoch, 0, 300).prob, expected[epoch]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_a_reader_keeps_is_bounded(store: Store) -> None:
    m = store.manifest
    block = 64 * (4 + m.topk * (2 + m.value_dtype.itemsize) + m.value_dtype.itemsize + 4 * m.logz)
    small = Store(store.objects, m, dict(store.documents), cache_bytes=2 * block)
    for epoch in (0, 1):
        small.read(epoch, 0, 64)
        assert small.cached_bytes == block * (epoch + 1)
    small.read(0, 0, 300)
    assert small.cached_bytes == 2 * block
    tiny = Store(store.objects, m, dict(store.documents), cache_bytes=1)
    tiny.read(0, 0, 300)
    assert tiny.cached_bytes == block, "the last one stays in any case"


def test_a_missing_shard_has_its_own_message(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SMALL)
    write_shards(store, epochs=[0])
    assert store.complete_epochs() == [0] and not store.complete and len(store.committed()) == 3
    store.read(0, 0, 300)
    with pytest.raises(IncompleteError, match=r"lacks epoch 1, shard 1.*`logitstore dump` completes it"):
        store.read(1, 128, 140)
    assert store.info()["bytes_per_record"] == store.info()["bytes"] / 300


def test_a_store_without_any_shard(tmp_path: Path) -> None:
    info = create_store(tmp_path / "s", SMALL).info()
    assert info["records"] == 0 and info["bytes_per_record"] is None and not info["complete"]


def test_no_store_at_the_path(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="There is no store at"):
        open_store(tmp_path / "nothing")


@pytest.mark.parametrize("text", [None, '{"zarr_format":3,"node_type":"group"}', "[]"], ids=["empty", "group", "list"])
def test_something_else_at_the_path(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(FormatError):
        open_store(tmp_path)


def test_a_file_at_the_path(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x")
    with pytest.raises(FormatError):
        open_store(tmp_path / "s")


@pytest.mark.parametrize("samples", [1, 2, 3, 63, 64, 65, 129])
def test_odd_numbers_of_samples(tmp_path: Path, samples: int) -> None:
    manifest: Manifest = replace(SMALL, num_samples=samples, num_epochs=1)
    store = write_store(tmp_path / "s", manifest)
    records = store.read(0, 0, samples)
    assert sorted(records.sample) == list(range(samples))
    assert len(store.witnesses(0, 0, samples)[0]) == -(-samples // 64)


def test_the_public_name_is_this_one() -> None:
    assert logitstore.open_store is open_store
