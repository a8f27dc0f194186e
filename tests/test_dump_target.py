"""``dump --target-kl``: the floor is found on a sample, once, and belongs to the store from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dump_cases import CLASSES, config, snapshot

from logitstore.cuts import FLOORS, Cut, Dense
from logitstore.dump import DumpConfig, dump, producer
from logitstore.errors import InputError, MismatchError
from logitstore.progress import Progress
from logitstore.store import open_store

TARGET = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds ``store``, one of two epochs that was dumped for a target."""
    folder = tmp_path_factory.mktemp("target")
    dump(targeted(folder))
    return folder


def targeted(folder: Path, **options: Any) -> DumpConfig:
    return config(folder, **{"topk": CLASSES, "target_kl": TARGET, **options})


def no_sample(*_: object, **__: object) -> Cut:
    raise AssertionError("the teacher was asked again")


def test_the_floor_is_the_largest_within_the_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sample is all images in epochs 0 to 4 here, so a store of these has its divergence."""
    whole = {"topk": CLASSES, "epochs": 5, "values": "f16", "logz": True, "floor": 0.0}
    dense_store = open_store(dump(config(folder, "dense", **whole)).store)
    result = dump(targeted(folder, store=str(folder / "target"), epochs=5), Progress)
    store, floor = open_store(result.store), open_store(result.store).manifest.floor
    assert 0 < floor == open_store(folder / "store").manifest.floor
    divergence = []
    for epoch in range(5):
        records = store.read(epoch, 0, 300)
        dense = Dense.of(dense_store.logits(epoch, 0, 300))
        beyond = Cut(topk=CLASSES, floor=FLOORS[FLOORS.index(floor) + 1])
        divergence.append([dense.kl(records.index, records.prob, records.tail).mean(), dense.kl_of(beyond).mean()])
    found, above = np.mean(divergence, axis=0)
    assert found <= TARGET * 1.001 and above > TARGET / 1.001
    assert f"Floor {floor:g}: KL {found:.4f} ± " in capsys.readouterr().err


def test_a_store_that_exists_keeps_its_floor(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(producer, "find_floor", no_sample)
    before = open_store(folder / "store").manifest.floor
    grown = dump(targeted(folder, epochs=3, target_kl=0.2), Progress)
    assert grown.complete and grown.shards == 5
    assert open_store(folder / "store").manifest.floor == before
    assert f"exists, so its floor {before:g} counts." in capsys.readouterr().err


def test_the_floor_may_be_named_again_but_not_another(folder: Path) -> None:
    floor, before = open_store(folder / "store").manifest.floor, snapshot(folder / "store")
    assert dump(targeted(folder, floor=floor)).shards == 0
    with pytest.raises(MismatchError, match=r"(?s)floor = .*floor = 0\.25"):
        dump(targeted(folder, floor=0.25))
    assert snapshot(folder / "store") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"floor": 1e-3}, "leave out --floor", id="a floor, too"),
        pytest.param({"topk": 1}, "out of reach: with --topk 1,.* raise one of these", id="too few classes"),
        pytest.param({"mass": 0.5, "values": "f16"}, "--mass 0.5 and --values f16", id="too little mass"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dump(targeted(tmp_path, **options))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_no_target_at_all(tmp_path: Path, target: float) -> None:
    with pytest.raises(InputError, match="--target-kl"):
        targeted(tmp_path, target_kl=target)


def test_who_comes_second_takes_the_floor_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes begin at once and find floors that differ by their rounding."""

    def beaten(_inference: object, cut: Cut, *_: object, **__: object) -> Cut:
        dump(config(tmp_path, topk=CLASSES, floor=0.02, epochs=1))
        return replace(cut, floor=0.021)

    monkeypatch.setattr(producer, "find_floor", beaten)
    assert dump(targeted(tmp_path)).complete
    assert open_store(tmp_path / "store").manifest.floor == 0.02
