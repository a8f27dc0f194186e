"""Damage of every kind is found by ``verify_store`` and refused by ``read``, each with its own sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from logitstore.checksums import canonical_json, crc32c_hex, seal
from logitstore.errors import DamagedError, FormatError, IncompleteError, StoreError, StoreNotFoundError
from logitstore.store import create_store, open_store, verify_store
from tests.store_cases import DENSE, SMALL, state, write_shards, write_store

ARRAYS = ("seed/c/1/1", "index/c/1/1/0", "logp/c/1/1/0", "tail/c/1/1", "logz/c/1/1", "witness/c/1/1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("whole") / "s", DENSE).path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "s"))


def flip(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 4
    file.write_bytes(data)


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    assert a != b
    one.write_bytes(b)
    other.write_bytes(a)


def test_a_whole_store(path: Path) -> None:
    before, seen = state(path), []
    report = verify_store(path, lambda done, total: seen.append((done, total)))
    assert report.ok and report.records_checked == 600 and not report.errors and not report.notes
    assert seen == [(i, 6) for i in range(1, 7)]
    assert state(path) == before
    assert json.loads(json.dumps(report.to_dict())) == {
        "ok": True,
        "records_checked": 600,
        "views_checked": 0,
        "witnesses": None,
        "kl": None,
        "errors": [],
        "notes": [],
    }


def damaged(path: Path, expected: str, *, error: type[StoreError] = DamagedError, lost: int = 128) -> None:
    """Found once by verify, and refused by a read of the shard with the same words."""
    before = state(path)
    report = verify_store(path)
    assert not report.ok and len(report.errors) == 1 and expected in report.errors[0], report
    assert report.records_checked == 600 - lost
    with pytest.raises(error) as caught:
        open_store(path).read(1, 128, 256)
    assert expected in str(caught.value) and "\n" not in str(caught.value)
    assert state(path) == before
    open_store(path).read(0, 0, 300)


@pytest.mark.parametrize("key", ARRAYS)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_flipped_bit(path: Path, key: str, place: float) -> None:
    flip(path / key, int(place * (path / key).stat().st_size))
    damaged(path, f"{key} was altered")


@pytest.mark.parametrize("key", ARRAYS)
def test_a_truncated_object(path: Path, key: str) -> None:
    (path / key).write_bytes((path / key).read_bytes()[:-1])
    damaged(path, f"{key} is truncated")


@pytest.mark.parametrize("key", ARRAYS)
def test_an_empty_object(path: Path, key: str) -> None:
    (path / key).write_bytes(b"")
    damaged(path, f"{key} is truncated or of another shard: 0 bytes")


def test_an_object_with_more_behind_it(path: Path) -> None:
    (path / ARRAYS[0]).write_bytes((path / ARRAYS[0]).read_bytes() + b"x")
    damaged(path, "is too long")


@pytest.mark.parametrize("key", ARRAYS)
def test_a_missing_object(path: Path, key: str) -> None:
    (path / key).unlink()
    damaged(path, f"{key} is missing although its shard was committed")


def test_an_object_that_cannot_be_read(path: Path) -> None:
    (path / ARRAYS[0]).unlink()
    (path / ARRAYS[0]).mkdir()
    report = verify_store(path)
    assert len(report.errors) == 1 and f"{ARRAYS[0]} cannot be read: Is a directory" in report.errors[0]
    with pytest.raises(DamagedError, match="cannot be read"):
        open_store(path).read(1, 128, 256)


@pytest.mark.parametrize("key", ARRAYS)
@pytest.mark.parametrize("other", ["1/0", "0/1"])
def test_two_swapped_objects(path: Path, key: str, other: str) -> None:
    swap(path / key, path / key.replace("1/1", other))
    report = verify_store(path)
    assert not report.ok and len(report.errors) == 2 and report.records_checked == 600 - 256
    with pytest.raises(DamagedError, match=r"was altered|is truncated or of another shard|is too long"):
        open_store(path).read(1, 128, 130)


def test_a_shard_that_was_committed_damaged(path: Path) -> None:
    """Right checksum, wrong bytes: what a faulty writer would leave."""
    file, commit = path / ARRAYS[1], path / "commits/0001.00001.json"
    flip(file, 30)
    document = json.loads(commit.read_bytes())
    document["objects"]["index"]["crc32c"] = crc32c_hex(file.read_bytes())
    commit.write_bytes(canonical_json(seal(document, exclude=("info",))))
    with pytest.raises(DamagedError, match="does not decode"):
        open_store(path).read(1, 128, 130)


def test_two_swapped_commits(path: Path) -> None:
    swap(path / "commits/0001.00001.json", path / "commits/0001.00000.json")
    report = verify_store(path)
    assert len(report.errors) == 2 and all("shards were swapped" in error for error in report.errors)
    with pytest.raises(DamagedError, match="shards were swapped"):
        open_store(path).read(1, 128, 130)


def test_two_shards_swapped_with_their_commits(path: Path) -> None:
    swap(path / "commits/0001.00001.json", path / "commits/0001.00000.json")
    for key in ARRAYS:
        swap(path / key, path / key.replace("1/1", "1/0"))
    assert len(verify_store(path).errors) == 2
    with pytest.raises(DamagedError, match="shards were swapped"):
        open_store(path).read(1, 128, 130)


@pytest.mark.parametrize("field", ["epoch", "objects", "counts", "store_id", "crc32c"])
def test_an_altered_commit(path: Path, field: str) -> None:
    file = path / "commits/0001.00001.json"
    document = json.loads(file.read_bytes())
    del document[field]
    file.write_bytes(canonical_json(document))
    damaged(path, "commits/0001.00001.json was altered")


def test_the_info_of_a_commit_counts_for_nothing(path: Path) -> None:
    file = path / "commits/0001.00001.json"
    document = json.loads(file.read_bytes())
    document["info"] = {}
    file.write_bytes(canonical_json(document))
    assert verify_store(path).ok


def test_a_commit_that_is_no_json(path: Path) -> None:
    (path / "commits/0001.00001.json").write_bytes(b"{")
    damaged(path, "is not JSON any more")


def test_a_sealed_commit_of_another_form(path: Path) -> None:
    file = path / "commits/0001.00001.json"
    document = json.loads(file.read_bytes())
    document["objects"]["index"].pop("size")
    file.write_bytes(canonical_json(seal(document, exclude=("info",))))
    damaged(path, "commits/0001.00001.json")


def test_a_shard_of_another_store(path: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", replace(DENSE, run_seed=8)).path
    for key in (*ARRAYS, "commits/0001.00001.json"):
        shutil.copyfile(other / key, path / key)
    damaged(path, "belongs to another store")


def test_a_missing_commit(path: Path) -> None:
    (path / "commits/0001.00001.json").unlink()
    report = verify_store(path)
    assert not report.ok and report.records_checked == 472
    assert report.errors == ("Epoch 1 is incomplete: 1 of 3 shards are not committed (1).",)
    assert len(report.notes) == len(ARRAYS) and all("has no commit and does not count" in n for n in report.notes)
    with pytest.raises(IncompleteError, match="epoch 1, shard 1"):
        open_store(path).read(1, 128, 130)


def test_a_missing_epoch(tmp_path: Path) -> None:
    write_shards(create_store(tmp_path / "s", SMALL), epochs=[1])
    report = verify_store(tmp_path / "s")
    assert report.errors == ("Epoch 0 is missing: none of its 3 shards is committed.",)
    assert report.records_checked == 300 and not report.notes


def test_a_deleted_shard_is_mended_by_writing_again(path: Path, whole: Path) -> None:
    flip(path / ARRAYS[1], 40)
    (path / "commits/0001.00001.json").unlink()
    write_shards(create_store(path, DENSE))
    assert verify_store(path).ok
    assert (path / ARRAYS[1]).read_bytes() == (whole / ARRAYS[1]).read_bytes()


def test_a_stray_file_is_noted_and_harms_nothing(path: Path) -> None:
    (path / "index/c/1/9").mkdir()
    for key in ("index/c/1/9/0", "notes.txt", "commits/0009.00000.json", "commits/0001.00001.claim"):
        (path / key).write_bytes(b"x")
    report = verify_store(path)
    assert report.ok and len(report.notes) == 4
    open_store(path).read(1, 0, 300)


def whole_store_refused(path: Path, expected: str, error: type[Exception]) -> None:
    before = state(path)
    with pytest.raises(error, match=expected):
        open_store(path)
    with pytest.raises(error, match=expected):
        create_store(path, DENSE)
    assert state(path) == before


def _edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(file.read_bytes())
    change(document)
    file.write_bytes(canonical_json(document))


def test_an_altered_manifest(path: Path) -> None:
    _edit(path / "zarr.json", lambda d: d["attributes"]["logitstore"].update(run_seed=8))  # type: ignore[index]
    whole_store_refused(path, "manifest .* was altered", DamagedError)
    report = verify_store(path)
    assert not report.ok and report.records_checked == 0 and "was altered" in report.errors[0]


@pytest.mark.parametrize("name", ["seed", "index", "logp", "tail", "logz", "witness"])
def test_altered_metadata_of_an_array(path: Path, name: str) -> None:
    _edit(path / name / "zarr.json", lambda d: d.update(fill_value=1))
    whole_store_refused(path, f"{name}/zarr.json was altered", DamagedError)
    assert not verify_store(path).ok


def test_missing_metadata_of_an_array(path: Path) -> None:
    (path / "tail/zarr.json").unlink()
    whole_store_refused(path, r"tail/zarr\.json is missing", DamagedError)
    assert not verify_store(path).ok


def test_altered_consolidated_metadata(path: Path) -> None:
    _edit(path / "zarr.json", lambda d: d["consolidated_metadata"]["metadata"].pop("tail"))  # type: ignore[index]
    report = verify_store(path)
    assert not report.ok and "consolidated metadata" in report.errors[0]


def test_missing_metadata_of_the_commits(path: Path) -> None:
    (path / "commits/zarr.json").unlink()
    assert "commits/zarr.json is missing" in verify_store(path).errors[0]


def test_another_format_version(path: Path) -> None:
    _edit(path / "zarr.json", lambda d: d["attributes"]["logitstore"].update(format_version=2))  # type: ignore[index]
    whole_store_refused(path, "format version 2", FormatError)
    with pytest.raises(FormatError, match="Use the logitstore that wrote it"):
        verify_store(path)


def test_metadata_that_is_no_json(path: Path) -> None:
    (path / "zarr.json").write_bytes(b"{")
    whole_store_refused(path, "not JSON", DamagedError)


def test_metadata_that_cannot_be_read(path: Path) -> None:
    (path / "zarr.json").unlink()
    (path / "zarr.json").mkdir()
    with pytest.raises(DamagedError, match="cannot be read: Is a directory"):
        open_store(path)
    assert "cannot be read" in verify_store(path).errors[0]


def test_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        verify_store(tmp_path / "nothing")
    with pytest.raises(FormatError):
        verify_store(tmp_path)
