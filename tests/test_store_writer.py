"""Creating a store, making room, committing."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.errors import ClaimLostError, FormatError, InputError, MismatchError, StoreError
from logitstore.store import Store, claim_shard, commit_shard, create_store, open_store, verify_store
from logitstore.store.codecs.standard import StandardCodec
from logitstore.store.layout import metadata_documents
from logitstore.store.objects import LocalObjects
from tests.store_cases import DENSE, SMALL, content, make_block, state, write_shards, write_store


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Content of a store of one run."""
    return content(write_store(tmp_path_factory.mktemp("reference") / "s").path)


def test_two_runs_are_byte_identical(tmp_path: Path, reference: dict[str, Any]) -> None:
    assert content(write_store(tmp_path / "s").path) == reference


def test_the_order_of_shards_and_epochs_leaves_no_trace(tmp_path: Path, reference: dict[str, Any]) -> None:
    store = create_store(tmp_path / "b", SMALL)
    for epoch, shard in [(1, 2), (0, 1), (1, 0), (0, 2), (0, 0), (1, 1)]:
        claim = claim_shard(store, epoch, shard)
        assert claim is not None
        commit_shard(store, claim, make_block(SMALL, epoch, shard))
    assert content(tmp_path / "b") == reference


def test_a_store_grown_epoch_by_epoch_is_the_same_store(tmp_path: Path, reference: dict[str, Any]) -> None:
    for epochs in (1, 2):
        store = create_store(tmp_path / "b", replace(SMALL, num_epochs=epochs))
        assert store.num_epochs == epochs
        write_shards(store)
    assert content(tmp_path / "b") == reference


def test_growth_touches_no_shard_and_a_store_never_shrinks(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    shards = {k: v for k, v in state(tmp_path / "s").items() if "/c/" in k or (k.endswith(".json") and "00" in k)}
    assert create_store(tmp_path / "s", replace(SMALL, num_epochs=7)).num_epochs == 7
    assert create_store(tmp_path / "s", SMALL).num_epochs == 7
    after = state(tmp_path / "s")
    assert all(after[key] == value for key, value in shards.items())
    assert open_store(tmp_path / "s").complete_epochs() == [0, 1]


def test_creating_again_writes_nothing(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    before = state(tmp_path / "s")
    again = create_store(tmp_path / "s", replace(SMALL, versions={"logitstore": "9"}))
    assert again.manifest.versions == SMALL.versions
    assert state(tmp_path / "s") == before


def test_another_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    before = state(tmp_path / "s")
    with pytest.raises(MismatchError, match="run_seed = 7"):
        create_store(tmp_path / "s", replace(SMALL, run_seed=8))
    assert state(tmp_path / "s") == before


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(FormatError, match=r"holds letter\.txt"):
        create_store(tmp_path, SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("dear")
    with pytest.raises(FormatError, match="is a file"):
        create_store(tmp_path / "s", SMALL)
    assert (tmp_path / "s").read_text() == "dear"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert create_store(tmp_path, SMALL).num_shards == 3


@pytest.mark.parametrize("written", [1, 3, len(metadata_documents(DENSE)) - 1])
def test_an_interrupted_creation_goes_on(tmp_path: Path, written: int) -> None:
    objects = LocalObjects(tmp_path / "s", scratch="commits")
    for key, data in list(metadata_documents(DENSE).items())[:written]:
        objects.put(key, data)
    with pytest.raises(FormatError):
        open_store(tmp_path / "s")
    create_store(tmp_path / "s", DENSE)
    create_store(tmp_path / "fresh", DENSE)
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


@pytest.mark.parametrize("written", [1, 3, len(metadata_documents(SMALL)) - 1])
def test_an_interrupted_growth_goes_on_and_harms_no_reader(tmp_path: Path, written: int) -> None:
    larger = replace(SMALL, num_epochs=4)
    store = write_store(tmp_path / "s")
    for key, data in list(metadata_documents(larger).items())[:written]:
        store.objects.put(key, data)
    open_store(tmp_path / "s").read(1, 0, 300)
    assert verify_store(tmp_path / "s").ok
    assert create_store(tmp_path / "s", larger).num_epochs == 4
    create_store(tmp_path / "fresh", larger)
    metadata = {key: digest for key, digest in content(tmp_path / "s").items() if key.endswith("zarr.json")}
    assert metadata == {k: d for k, d in content(tmp_path / "fresh").items() if k.endswith("zarr.json")}


def test_a_store_encoded_otherwise_is_read_but_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    with monkeypatch.context() as patch:
        patch.setattr(StandardCodec, "pipeline", lambda self, array, dtype: plain)
        write_store(tmp_path / "s")
    before = state(tmp_path / "s")
    with pytest.raises(FormatError, match="only the program that began it"):
        create_store(tmp_path / "s", replace(SMALL, num_epochs=3))
    assert verify_store(tmp_path / "s").ok
    assert np.array_equal(open_store(tmp_path / "s").block(1, 2).index, make_block(SMALL, 1, 2).index)
    assert state(tmp_path / "s") == before


def test_many_creators_at_once_make_one_store(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    made: list[Store] = []

    def work(epochs: int) -> None:
        try:
            made.append(create_store(tmp_path / "s", replace(SMALL, num_epochs=epochs)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(made) == 6
    create_store(tmp_path / "fresh", replace(SMALL, num_epochs=3))
    assert content(tmp_path / "s") == content(tmp_path / "fresh")


def test_a_commit_says_what_was_written(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SMALL)
    claim = claim_shard(store, 1, 2)
    assert claim is not None
    block = make_block(SMALL, 1, 2)
    commit = commit_shard(store, claim, block, {"images_per_second": 3.5})
    document = json.loads((tmp_path / "s/commits/0001.00002.json").read_bytes())
    assert (document["epoch"], document["shard"], document["store_id"]) == (1, 2, SMALL.store_id)
    assert document["counts"] == {
        "records": 44,
        "kept": int((block.index != 65535).sum()),
        "skipped": int((block.index[:, 0] == 65535).sum()),
    }
    assert set(document["objects"]) == {"seed", "index", "logp", "tail", "witness"}
    assert document["info"]["images_per_second"] == 3.5 and document["info"]["token"] == claim.token
    assert store.commit(1, 2) == commit
    manifest = (tmp_path / "s/zarr.json").read_text()
    assert document["info"]["token"] not in manifest and document["info"]["host"] not in manifest


def test_shards_of_one_length_have_checksums_of_their_own(tmp_path: Path) -> None:
    """Had every chunk ended in a CRC-32C of itself, the CRC-32C of the whole object would not depend on its content."""
    store = write_store(tmp_path / "s")
    for name in ("seed", "witness"):
        stored = [store.commit(epoch, shard).objects[name] for epoch in (0, 1) for shard in (0, 1)]
        assert len({item.size for item in stored}) == 1 and len({item.crc32c for item in stored}) == 4


def test_a_committed_shard_is_never_rewritten(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SMALL)
    write_shards(store, epochs=[0])
    before = state(tmp_path / "s")
    assert claim_shard(store, 0, 1) is None
    assert {k: v for k, v in state(tmp_path / "s").items() if k != str(tmp_path / "s/commits")} == {
        k: v for k, v in before.items() if k != str(tmp_path / "s/commits")
    }


def test_a_commit_that_another_process_made_first_stays(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SMALL)
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    (tmp_path / "s/commits/0000.00000.json").write_text("{}")
    with pytest.raises(ClaimLostError, match="first"):
        commit_shard(store, claim, make_block(SMALL, 0, 0))
    claim.release()
    assert (tmp_path / "s/commits/0000.00000.json").read_text() == "{}"


@pytest.mark.parametrize(("epoch", "shard"), [(2, 0), (-1, 0), (0, 3), (0, -1)])
def test_claims_outside_the_store_are_refused(tmp_path: Path, epoch: int, shard: int) -> None:
    with pytest.raises(InputError):
        claim_shard(create_store(tmp_path / "s", SMALL), epoch, shard)


def test_a_block_that_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SMALL)
    with claim_shard(store, 0, 0) as claim:  # type: ignore[union-attr]
        before = content(tmp_path / "s")
        with pytest.raises(InputError):
            commit_shard(store, claim, make_block(SMALL, 0, 2))
        assert content(tmp_path / "s") == before
    assert not list((tmp_path / "s/commits").glob("*.claim*"))


def test_an_object_is_on_the_disk_before_its_name_and_its_name_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = create_store(tmp_path / "s", SMALL)
    events: list[str] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("sync data" if path.is_file() else f"sync {path.relative_to(store.path)}")

    replace_file, link = Path.replace, os.link
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append(f"name {to.name}"), replace_file(self, to))[1])
    monkeypatch.setattr(os, "link", lambda old, new: (events.append(f"name {new.name}"), link(old, new))[1])
    claim = claim_shard(store, 0, 0)
    assert claim is not None
    commit_shard(store, claim, make_block(SMALL, 0, 0))
    names = [i for i, event in enumerate(events) if event.startswith("name ")]
    assert len(names) == 7  # claim, five arrays, commit
    for i in names:
        assert "sync data" in events[max(0, i - 4) : i] and events[i + 1].startswith("sync ")
    assert events[-2:] == ["name 0000.00000.json", "sync commits"]
    assert "sync index/c/0/0" in events and "sync index/c/0" in events and "sync index" in events


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create_store(tmp_path / "s", SMALL)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            store.objects.put("seed/c/0/0", b"x")
    assert not list((tmp_path / "s/commits").glob("tmp.*")) and not (tmp_path / "s/seed/c/0/0").exists()


def test_a_file_system_without_hard_links_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="no hard links"):
        create_store(tmp_path / "s", SMALL)


def test_records_come_back_after_the_dump_as_they_went_in(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", DENSE)
    block = store.block(1, 1)
    for name, array in make_block(DENSE, 1, 1).arrays().items():
        assert np.array_equal(block.arrays()[name], array, equal_nan=array.dtype.kind == "f")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="cannot be written to"):
        create_store(tmp_path / "s", SMALL)


def test_a_path_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"file/s cannot be made, .* choose another path"):
        create_store(tmp_path / "file" / "s", SMALL)
