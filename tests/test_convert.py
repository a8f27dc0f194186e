"""Packed stores and back: nothing is lost, nothing is written twice, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from dump_cases import config as dump_config

import cli
from logitstore.checksums import canonical_json
from logitstore.convert import ConvertConfig, convert
from logitstore.dump import dump
from logitstore.errors import DamagedError, FormatError, IncompleteError, InputError, MismatchError, StoreNotFoundError
from logitstore.progress import Progress
from logitstore.store import Ensemble, Store, claim_shard, create_store, open_store, verify_store
from logitstore.store.codecs.packed import MAX_BASE
from logitstore.store.objects import LocalObjects
from tests.convert_cases import MANIFESTS, SIX, converted, same_records, write_epochs
from tests.store_cases import SMALL, content, state, write_store


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("source") / "s", SIX).path


@pytest.fixture(scope="module")
def packed(source: Path) -> Path:
    out = source.parent / "packed"
    assert converted(source, out).complete
    return out


@pytest.mark.parametrize("case", MANIFESTS)
def test_there_and_back_gives_the_same_store(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logitstore.store.layout.MAX_CHUNK", 64)  # so that shards have several chunks
    manifest = MANIFESTS[case]
    store = write_store(tmp_path / "s", manifest)
    before = state(tmp_path / "s")
    result = converted(tmp_path / "s", tmp_path / "p")
    records = manifest.num_epochs * manifest.num_samples
    assert (result.complete, result.records, result.epochs) == (True, records, manifest.num_epochs)
    there = open_store(tmp_path / "p")
    assert there.form.size == 64 and there.records_id == store.store_id != there.store_id == result.store_id
    assert verify_store(tmp_path / "p").records_checked == records
    same_records(tmp_path / "s", tmp_path / "p", range(manifest.num_epochs))

    back = converted(tmp_path / "p", tmp_path / "b", "standard")
    assert back.store_id == store.store_id and back.model_bytes is None
    assert content(tmp_path / "b") == content(tmp_path / "s")
    assert state(tmp_path / "s") == before


def test_seeds_that_are_not_derived_are_kept(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", replace(SIX, num_epochs=3))
    write_epochs(store, 0, 1, own_seeds=True)
    write_epochs(store, 2)
    converted(tmp_path / "s", tmp_path / "p", base_epochs=1)
    same_records(tmp_path / "s", tmp_path / "p", range(3))


@pytest.mark.parametrize(("start", "stop", "topk"), [(0, 300, None), (127, 129, None), (299, 300, 2), (60, 270, 3)])
def test_reading_gives_what_the_standard_store_gives(
    source: Path, packed: Path, start: int, stop: int, topk: int | None
) -> None:
    for epoch in (0, 3, 5):
        ours, theirs = (open_store(path).read(epoch, start, stop, topk=topk) for path in (packed, source))
        for name, array in vars(theirs).items():
            assert array is None or np.array_equal(array, getattr(ours, name)), name
        found, expected = (open_store(path).witnesses(epoch, start, stop) for path in (packed, source))
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_workers_change_no_byte(source: Path, packed: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "p", workers=1)
    converted(source, tmp_path / "q", workers=5)
    assert content(tmp_path / "p") == content(tmp_path / "q") == content(packed)


def test_epochs_that_were_dumped_since_are_added(tmp_path: Path, packed: Path) -> None:
    store = create_store(tmp_path / "s", replace(SIX, num_epochs=4))
    write_epochs(store, 0, 1, 2, 3)
    first = converted(tmp_path / "s", tmp_path / "p")
    assert (first.epochs, first.shards) == (4, 12)
    before = state(tmp_path / "p")
    again = converted(tmp_path / "s", tmp_path / "p")
    assert (again.shards, again.records, again.complete) == (0, 0, True)
    assert state(tmp_path / "p") == before

    store = create_store(tmp_path / "s", SIX)
    write_epochs(store, 5)
    more = converted(tmp_path / "s", tmp_path / "p")
    assert (more.epochs, more.shards, more.complete) == (5, 3, True)
    write_epochs(store, 4)
    converted(tmp_path / "s", tmp_path / "p")
    assert content(tmp_path / "p") == content(packed)
    after = state(tmp_path / "p")
    files = {name for name in before if Path(name).suffix != "" or "/c/" in name}
    untouched = {name for name in files if (tmp_path / "p" / name).is_file() and not name.endswith("zarr.json")}
    assert len(untouched) == 3 * 12
    assert all(after[name] == before[name] for name in untouched)


def test_shards_in_other_hands_are_left_to_them(source: Path, tmp_path: Path, packed: Path) -> None:
    out = open_store(shutil.copytree(packed, tmp_path / "p"))
    (tmp_path / "p/commits/0005.00001.json").unlink()
    claim = claim_shard(out, 5, 1)
    assert claim is not None
    with claim:
        result = converted(source, tmp_path / "p")
    assert (result.complete, result.shards, result.epochs) == (False, 0, 5)
    assert len(result.in_progress) == 1 and result.in_progress[0].startswith("epoch 5, shard 1: process ")
    assert converted(source, tmp_path / "p").complete


def test_only_complete_epochs_are_converted(tmp_path: Path) -> None:
    store = create_store(tmp_path / "s", SIX)
    with pytest.raises(IncompleteError, match=r"no complete epoch yet.*`logitstore dump`"):
        converted(tmp_path / "s", tmp_path / "p")
    assert not (tmp_path / "p").exists()
    write_epochs(store, 1, 2)
    shutil.rmtree(tmp_path / "s/seed/c/2")
    (tmp_path / "s/commits/0002.00001.json").unlink()
    result = converted(tmp_path / "s", tmp_path / "p")
    assert open_store(tmp_path / "p").complete_epochs() == [1] and result.complete
    assert "Only 1 of 6 epochs are complete" in result.notes[0]
    report = verify_store(tmp_path / "p")
    assert len(report.errors) == 5 and report.records_checked == 300


def test_base_epochs_may_be_chosen_once(source: Path, tmp_path: Path) -> None:
    assert converted(source, tmp_path / "p", base_epochs=2).notes == ()
    assert open_store(tmp_path / "p").manifest.codec.to_dict()["base"] == [0, 1]
    with pytest.raises(MismatchError, match=r"(?s)number of base epochs.*stored:  2\n.*present: 3"):
        converted(source, tmp_path / "p", base_epochs=3)
    assert converted(source, tmp_path / "p", base_epochs=2).shards == 0
    with pytest.raises(IncompleteError, match=r"--base-epochs 8 needs as many complete epochs.*has 6"):
        converted(source, tmp_path / "q", base_epochs=8)


def test_a_base_epoch_that_is_nowhere_complete_any_more(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "s")
    converted(tmp_path / "s", tmp_path / "p")
    for folder in ("s", "p"):
        (tmp_path / folder / "commits/0001.00002.json").unlink()
    with pytest.raises(IncompleteError, match=r"Epoch 1 is a base epoch of the store at .*dump it again"):
        converted(tmp_path / "s", tmp_path / "p")


def test_a_second_dump_of_the_same_settings_is_refused(source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "p")
    write_epochs(create_store(tmp_path / "s", SIX), *range(6), own_seeds=True)
    before = state(tmp_path / "p")
    with pytest.raises(MismatchError, match=r"(?s)array seed of epoch 0, shard 0, entry 0.*another folder"):
        converted(tmp_path / "s", tmp_path / "p")
    assert state(tmp_path / "p") == before


def test_the_same_records_in_other_bytes_are_not(source: Path, tmp_path: Path) -> None:
    """A compressor of another version, say."""
    converted(source, tmp_path / "p")
    for commit in (tmp_path / "p/commits").glob("0*.json"):
        commit.write_bytes(canonical_json({**json.loads(commit.read_bytes()), "info": {}}))
    before = state(tmp_path / "p")
    assert converted(source, tmp_path / "p").complete
    assert state(tmp_path / "p") == before


@pytest.mark.parametrize(
    ("store", "out", "codec", "error", "message"),
    [
        ("s", "s", "packed", InputError, "is the store itself"),
        ("s", "within", "packed", InputError, "is the store itself, or in it"),
        ("s", "new", "standard", InputError, "is standard already: give --codec packed"),
        ("p", "new", "packed", InputError, "is packed already: give --codec standard"),
        ("s", "other", "packed", MismatchError, "What the store at .*run_seed"),
        ("s", "standard", "packed", MismatchError, "(?s)The codec of the store at .*stored:  standard"),
        ("p", "p2", "standard", MismatchError, "(?s)The codec of the store at .*stored:  packed"),
        ("s", "strange", "packed", FormatError, "is not empty and no store"),
        ("nowhere", "new", "packed", StoreNotFoundError, "no store at"),
    ],
)
def test_what_does_not_fit_is_refused(
    source: Path, packed: Path, tmp_path: Path, store: str, out: str, codec: str, error: type[Exception], message: str
) -> None:
    places = {"s": source, "p": packed, "within": source / "within"}
    if out == "other":
        other = write_store(tmp_path / "o", replace(SMALL, run_seed=8)).path
        converted(other, tmp_path / "other")
    elif out == "standard":
        write_store(tmp_path / "standard", SMALL)
    elif out == "p2":
        converted(source, tmp_path / "p2")
    elif out == "strange":
        (tmp_path / "strange").mkdir()
        (tmp_path / "strange/thesis.tex").write_text("\\end{document}")
    before = state(tmp_path)
    with pytest.raises(error, match=message) as caught:
        converted(places.get(store, tmp_path / store), places.get(out, tmp_path / out), codec)
    assert not isinstance(caught.value, MismatchError) or caught.value.remedy
    assert state(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "zip"}, "--codec is packed or standard, got zip"),
        ({"base_epochs": 0}, "--base-epochs must be at least 1"),
        ({"base_epochs": MAX_BASE + 1}, f"--base-epochs must be at most {MAX_BASE}"),
        ({"codec": "standard", "base_epochs": 4}, "--base-epochs means nothing with --codec standard"),
        ({"workers": 0}, "--workers must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvertConfig(store="s", out="p", **options)


def test_what_does_not_read_back_is_not_committed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that loses a bit between writing and reading."""
    put = LocalObjects.put

    def forgetful(self: LocalObjects, key: str, data: bytes, **options: Any) -> None:
        put(self, key, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if key == "packed/c/1/2/0" else data, **options)

    monkeypatch.setattr(LocalObjects, "put", forgetful)
    with pytest.raises(DamagedError, match="packed/c/1/2/0 was altered"):
        converted(source, tmp_path / "p")
    monkeypatch.undo()
    store = open_store(tmp_path / "p")
    assert (1, 2) not in store.committed() and not [e for e, _ in store.committed() if e > 1]
    assert converted(source, tmp_path / "p").complete and verify_store(tmp_path / "p").errors == ()


def test_a_damaged_shard_of_the_source_stops_it_with_its_name(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "s")
    (tmp_path / "s/logp/c/2/1/0").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"s/logp/c/2/1/0 is truncated"):
        converted(tmp_path / "s", tmp_path / "p")
    assert not [shard for shard in open_store(tmp_path / "p").committed() if shard[0] > 2 or shard == (2, 1)]


def test_progress_counts_what_is_there(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(ConvertConfig(store=str(source), out=str(tmp_path / "p")), Progress)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("convert  1,800/1,800 record (100%)") and "B/record" in line


def test_the_command(source: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["convert", str(source), str(tmp_path / "p"), "--workers", "2", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["codec"], report["complete"], report["records"], report["epochs"]) == ("packed", True, 1800, 6)
    before, after = report["bytes_per_record_before"], report["bytes_per_record_after"]
    assert before == open_store(source).info()["bytes_per_record"] > after
    info = json.loads(CliRunner().invoke(cli.main, ["info", str(tmp_path / "p"), "--json"]).stdout)
    assert info["bytes_per_record"] == after and info["codec"]["base"] == [0, 1, 2, 3]
    assert info["model_bytes"] == report["model_bytes"] == 300 * report["model_bytes_per_sample"]
    store = open_store(tmp_path / "p")
    assert 0 < _model(store).nbytes <= info["model_bytes"]


def test_a_store_and_its_packed_form_are_no_two_teachers(source: Path, packed: Path) -> None:
    with pytest.raises(InputError, match="are the same"):
        Ensemble([open_store(source), open_store(packed)])


def _model(store: Store) -> Any:
    return store.form.base.at(4)  # type: ignore[attr-defined]


def test_dump_goes_on_with_the_standard_store(tmp_path: Path) -> None:
    config = dump_config(tmp_path, epochs=1)
    dump(config)
    converted(tmp_path / "store", tmp_path / "p")
    before = state(tmp_path / "p")
    with pytest.raises(MismatchError, match=r"(?s)codec of the store.*stored:  packed.*Dump into a standard store"):
        dump(replace(config, store=str(tmp_path / "p"), epochs=2))
    assert state(tmp_path / "p") == before
    back = converted(tmp_path / "p", tmp_path / "b", "standard")
    assert dump(replace(config, store=str(tmp_path / "b"), epochs=2)).shards == 5 and back.epochs == 1
    views = dump(replace(config, store=str(tmp_path / "v"), views_from=str(tmp_path / "p"), view=None))
    assert views.complete and open_store(tmp_path / "v").store_id == open_store(tmp_path / "store").store_id
