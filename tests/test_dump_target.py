"""``dump --target-kl``: the gain is found on a sample, once, and belongs to the store from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dump_cases import CLASSES, config, snapshot

from logitstore.cuts import GAINS, Cut, Dense
from logitstore.dump import DumpConfig, dump, producer
from logitstore.errors import InputError, MismatchError
from logitstore.progress import Progress
from logitstore.recheck import VerifyConfig, verify
from logitstore.store import VerifyReport, open_store

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


def test_the_gain_is_the_largest_within_the_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sample is all images in epochs 0 to 4 here, so a store of these has its divergence."""
    whole = {"topk": CLASSES, "epochs": 5, "values": "f16", "logz": True, "floor": 0.0}
    dense_store = open_store(dump(config(folder, "dense", **whole)).store)
    result = dump(targeted(folder, store=str(folder / "target"), epochs=5), Progress)
    store, gain = open_store(result.store), open_store(result.store).manifest.gain
    assert 0 < gain == open_store(folder / "store").manifest.gain
    assert (store.manifest.floor, store.manifest.mass) == (0.0, 1.0)
    divergence = []
    for epoch in range(5):
        records = store.read(epoch, 0, 300)
        dense = Dense.of(dense_store.logits(epoch, 0, 300))
        beyond = Cut(topk=CLASSES, gain=GAINS[GAINS.index(gain) + 1])
        divergence.append([dense.kl(records.index, records.prob, records.tail).mean(), dense.kl_of(beyond).mean()])
    found, above = np.mean(divergence, axis=0)
    assert found <= TARGET * 1.001 and above > TARGET / 1.001
    assert f"Gain {gain:g}: KL {found:.4f} ± " in capsys.readouterr().err


def test_a_store_that_exists_keeps_its_gain(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(producer, "find_gain", no_sample)
    before = open_store(folder / "store").manifest.gain
    grown = dump(targeted(folder, epochs=3, target_kl=0.2), Progress)
    assert grown.complete and grown.shards == 5
    assert open_store(folder / "store").manifest.gain == before
    assert f"exists, so its own cut counts, not a target: floor 0, mass 1, gain {before:g}." in capsys.readouterr().err


def test_the_teacher_still_says_what_was_kept_by_gain(folder: Path) -> None:
    report = verify(VerifyConfig(store=str(folder / "store"), data=str(folder / "data.npz"),
                                 teacher="dump_cases:teacher", batch_size=32))  # fmt: skip
    assert report.ok and isinstance(report, VerifyReport) and report.kl is not None and report.kl < 1e-9


def test_a_store_that_was_cut_otherwise_keeps_that_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "find_gain", no_sample)
    dump(config(tmp_path, topk=CLASSES, floor=0.03, mass=0.9, epochs=1))
    assert dump(targeted(tmp_path)).shards == 5
    manifest = open_store(tmp_path / "store").manifest
    assert (manifest.floor, manifest.mass, manifest.gain) == (0.03, 0.9, 0.0)


def test_the_cut_may_be_named_again_but_not_another(folder: Path) -> None:
    gain, before = open_store(folder / "store").manifest.gain, snapshot(folder / "store")
    assert dump(targeted(folder, gain=gain, floor=0.0)).shards == 0
    assert dump(config(folder, topk=CLASSES, gain=gain)).shards == 0
    for name in ("floor", "mass", "gain"):
        with pytest.raises(MismatchError, match=rf"(?s){name} = .*{name} = 0\.25"):
            dump(targeted(folder, **{name: 0.25}))
    assert snapshot(folder / "store") == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"floor": 0.0}, "leave out --floor, or", id="a floor, too"),
        pytest.param({"gain": 1e-3, "mass": 0.9}, "leave out --mass and --gain, or", id="mass and gain, too"),
        pytest.param({"topk": 1}, "out of reach: with --topk 1 and --values q8.*raise --topk", id="too few classes"),
        pytest.param(
            {"topk": CLASSES, "target_kl": 1e-9, "values": "f16"},
            r"out of reach.* nat; raise --target-kl",
            id="nothing is finer",
        ),
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


def test_who_comes_second_takes_the_cut_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes begin at once and find gains that differ by their rounding."""

    def beaten(_inference: object, cut: Cut, *_: object, **__: object) -> Cut:
        dump(config(tmp_path, topk=CLASSES, gain=0.02, epochs=1))
        return replace(cut, gain=0.021)

    monkeypatch.setattr(producer, "find_gain", beaten)
    assert dump(targeted(tmp_path)).complete
    assert open_store(tmp_path / "store").manifest.gain == 0.02
