"""``verify``: what is damaged, missing or swapped is found and named; views replay; the teacher still says the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from dump_cases import config, snapshot, write_data

import cli
from logitstore.dump import dump
from logitstore.errors import (
    DamagedError,
    FormatError,
    IncompleteError,
    InputError,
    LogitStoreError,
    MismatchError,
)
from logitstore.images import open_images
from logitstore.loader import ViewLoader, stored_spec
from logitstore.recheck import VerifyConfig, _choose, dense, verify
from logitstore.store import WITNESS_EVERY, open_store
from logitstore.teacher import Teacher
from logitstore.views import witness

WITNESSES = 2 * 5  # epochs x blocks of 64 in 300 positions


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recheck")
    dump(config(folder))
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the store to do things to."""
    shutil.copytree(whole / "store", tmp_path / "store")
    return tmp_path / "store"


def check(store: Path, whole: Path, **options: Any) -> VerifyConfig:
    return VerifyConfig(**{"store": str(store), "data": str(whole / "data.npz"), "workers": 2, **options})


def test_a_whole_store(whole: Path) -> None:
    before = snapshot(whole / "store")
    report = verify(check(whole / "store", whole, teacher="dump_cases:teacher"))
    assert report.ok
    assert (report.records_checked, report.views_checked, report.errors, report.notes) == (600, WITNESSES, (), ())
    assert report.kl is not None
    assert report.kl <= 1e-6
    assert snapshot(whole / "store") == before


def test_checksums_alone_need_no_data(whole: Path) -> None:
    report = verify(VerifyConfig(store=str(whole / "store")))
    assert (report.ok, report.records_checked, report.views_checked, report.kl) == (True, 600, 0, None)
    assert report.witnesses is None


@pytest.mark.parametrize(("sample", "checked"), [(3, 3), (1000, WITNESSES)])
def test_no_more_views_than_witnesses_are_checked(sample: int, checked: int, whole: Path) -> None:
    report = verify(check(whole / "store", whole, sample=sample))
    assert (report.ok, report.views_checked, report.witnesses) == (True, checked, WITNESSES)


def _flip_a_bit(store: Path, array: str) -> None:
    path = next((store / array / "c" / "1" / "2").rglob("*")) if array in ("index", "logp") else store / array / "c/1/2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _truncate(store: Path) -> None:
    path = store / "seed/c/1/2"
    path.write_bytes(path.read_bytes()[:-1])


def _swap(store: Path, first: str, second: str) -> None:
    data = (store / first).read_bytes()
    (store / first).write_bytes((store / second).read_bytes())
    (store / second).write_bytes(data)


def _alter_commit(store: Path) -> None:
    path = store / "commits/0001.00002.json"
    document = json.loads(path.read_bytes())
    document["counts"]["kept"] += 1
    path.write_text(json.dumps(document))


DAMAGES: dict[str, tuple[Callable[[Path], object], type[LogitStoreError], str]] = {
    **{
        f"flipped bit in {array}": (lambda store, array=array: _flip_a_bit(store, array), DamagedError, "was altered")
        for array in ("seed", "index", "logp", "tail", "witness")
    },
    "truncated object": (_truncate, DamagedError, "is truncated"),
    "missing object": (lambda store: (store / "tail/c/1/2").unlink(), DamagedError, "is missing although"),
    "swapped objects": (lambda store: _swap(store, "seed/c/1/2", "seed/c/1/1"), DamagedError, "was altered"),
    "swapped commits": (
        lambda store: _swap(store, "commits/0001.00002.json", "commits/0001.00001.json"),
        DamagedError,
        "shards were swapped",
    ),
    "altered commit": (_alter_commit, DamagedError, "differs from its own checksum"),
    "missing shard": (
        lambda store: (store / "commits/0001.00002.json").unlink(),
        IncompleteError,
        "`logitstore dump` completes it",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(copy: Path, whole: Path, name: str) -> None:
    """By ``verify`` with exit code 1, also when it replays; and by the consumer, at the batch that meets it."""
    damage, error, message = DAMAGES[name]
    damage(copy)
    before = snapshot(copy)
    report = verify(check(copy, whole))
    assert not report.ok
    assert report.records_checked in (600 - 64, 600 - 128)
    assert report.views_checked == WITNESSES - (600 - report.records_checked) // 64
    assert any("0001.00002" in line or "/1/2" in line or "(2)" in line for line in report.errors)

    result = CliRunner().invoke(cli.main, ["verify", str(copy), "--json"])
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["ok"]

    store, images = open_store(copy), open_images(str(whole / "data.npz"))
    loader = ViewLoader(images, stored_spec(store), store=store, batch_size=32, workers=1)
    with pytest.raises(error, match=message):
        list(loader.batches(1))
    assert len(list(loader.batches(0))) == 10
    assert snapshot(copy) == before


def test_dump_completes_what_is_missing(copy: Path, whole: Path) -> None:
    (copy / "commits/0001.00002.json").unlink()
    (copy / "tail/c/1/2").unlink()
    assert dump(config(whole, store=str(copy))).shards == 1
    assert snapshot(copy) == snapshot(whole / "store")
    assert verify(check(copy, whole)).ok


def _other_version(store: Path) -> None:
    path = store / "zarr.json"
    group = json.loads(path.read_bytes())
    group["attributes"]["logitstore"]["format_version"] = 2
    path.write_text(json.dumps(group))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param(_other_version, FormatError, "format version 2", id="another format version"),
        pytest.param(shutil.rmtree, LogitStoreError, "There is no store", id="no store"),
        pytest.param(lambda store: (store / "zarr.json").unlink(), FormatError, "is not a store", id="no group"),
    ],
)
def test_unusable_stores_exit_with_2(
    copy: Path, whole: Path, change: Callable[[Path], object], error: type[LogitStoreError], message: str
) -> None:
    change(copy)
    for use in (lambda: verify(VerifyConfig(store=str(copy))), lambda: open_store(copy)):
        with pytest.raises(error, match=message):
            use()
    result = CliRunner().invoke(cli.main, ["verify", str(copy), "--json"])
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_altered_manifest_is_damage(copy: Path, whole: Path) -> None:
    path = copy / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b'"floor":0.001', b'"floor":0.002'))
    report = verify(check(copy, whole))
    assert not report.ok
    assert "manifest" in report.errors[0]


def test_another_data_set_is_refused(whole: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other.npz", first=500)
    with pytest.raises(MismatchError, match="fingerprint"):
        verify(check(whole / "store", whole, data=str(other)))
    fewer = write_data(tmp_path / "fewer.npz", 200)
    with pytest.raises(MismatchError, match="number of images"):
        verify(check(whole / "store", whole, data=str(fewer)))


def test_the_part_that_was_dumped_is_found(whole: Path) -> None:
    dump(config(whole, "part", subset=100))
    assert verify(check(whole / "part", whole)).ok


def test_other_pixels_are_found(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store whose views were rendered otherwise: checksums agree, witnesses do not."""
    with monkeypatch.context() as patch:
        patch.setattr("logitstore.loader.painter.witness", lambda view: witness(view) ^ 1)
        dump(config(whole, str(tmp_path / "store")))
    assert verify(VerifyConfig(store=str(tmp_path / "store"))).ok
    report = verify(check(tmp_path / "store", whole))
    assert (report.ok, report.views_checked, len(report.errors)) == (False, 0, WITNESSES)
    assert "CRC-32C" in report.errors[0]


class TestTeacher:
    def test_another_one_is_refused(self, whole: Path) -> None:
        with pytest.raises(MismatchError, match="teacher's name"):
            verify(check(whole / "store", whole, teacher="train_cases:pooled_teacher"))

    def test_a_function_is_never_imported_on_the_stores_word(self, whole: Path) -> None:
        with pytest.raises(InputError, match="--teacher dump_cases:teacher"):
            verify(check(whole / "store", whole, checkpoint="model.safetensors"))

    def test_it_needs_images(self) -> None:
        with pytest.raises(InputError, match="give --data"):
            VerifyConfig(store="store", checkpoint="model.safetensors")

    def test_other_answers_are_an_error(self, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Teacher, "logits", lambda self, views, original=Teacher.logits: 1.3 * original(self, views))
        report = verify(check(whole / "store", whole, teacher="dump_cases:teacher"))
        assert not report.ok
        assert report.kl is not None
        assert report.kl > 1e-3
        assert "The teacher now differs from its records" in report.errors[0]

    def test_other_answers_on_another_class_of_hardware_are_a_note(
        self, whole: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Teacher, "logits", lambda self, views, original=Teacher.logits: 1.3 * original(self, views))
        report = verify(check(whole / "store", whole, teacher="dump_cases:teacher", dtype="bfloat16"))
        assert report.ok
        assert "bfloat16" in report.notes[0]

    def test_batches_of_another_size_make_no_difference(self, whole: Path) -> None:
        report = verify(check(whole / "store", whole, teacher="dump_cases:teacher", batch_size=5))
        assert report.ok


def test_the_help_says_how_many_views_have_a_witness() -> None:
    text = " ".join(CliRunner().invoke(cli.main, ["verify", "--help"]).output.split())
    assert f"Views to replay, of those with a witness: one in {WITNESS_EVERY}." in text


def test_samples_are_spread_and_nested(whole: Path) -> None:
    store = open_store(whole / "store")
    everything = _choose(store, 1000, 0)
    assert everything == [(epoch, 64 * block) for epoch in range(2) for block in range(5)]
    few, more = set(_choose(store, 3, 5)), set(_choose(store, 6, 5))
    assert len(few) == 3
    assert few < more
    assert few != set(_choose(store, 3, 6))


def test_dense_spreads_the_tail() -> None:
    index = np.array([[2, 0, 65535], [1, 65535, 65535]], np.uint16)
    prob = np.array([[0.5, 0.3, 0], [0.9, 0, 0]], np.float32)
    tail = np.array([0.2, 0.1], np.float32)
    expected = [[0.3, 0.1, 0.5, 0.1], [0.1 / 3, 0.9, 0.1 / 3, 0.1 / 3]]
    assert np.allclose(dense(index, prob, tail, 4), expected)
