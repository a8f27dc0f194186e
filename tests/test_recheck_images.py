"""``verify`` where images are bad, or views are made by a transform of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from dump_cases import config
from helpers import write_images

from logitstore.dump import dump
from logitstore.errors import ViewError
from logitstore.pcg import VisitOrder
from logitstore.recheck import VerifyConfig, verify
from logitstore.store import open_store


class TestBadImages:
    def test_skipped_ones_are_left_out(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        report = verify(VerifyConfig(store=str(tmp_path / "store"), data=str(tmp_path / "images"), workers=1))
        assert report.ok
        assert 0 < report.views_checked < 8

    def test_a_store_of_nothing_else_has_no_divergence(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        for number in range(3):
            (tmp_path / "images" / f"{number}.png").write_bytes(b"none")
        data, store = str(tmp_path / "images"), str(tmp_path / "store")
        dump(config(tmp_path, data=data, skip_bad=True))
        report = verify(VerifyConfig(store=store, data=data, workers=2, teacher="dump_cases:teacher"))
        assert report.ok and report.views_checked == 0 and report.kl is None

    def test_one_that_went_bad_is_an_error(self, tmp_path: Path) -> None:
        self.make(tmp_path)
        store = open_store(tmp_path / "store")
        sample = int(store.order(0).samples(0))
        if store.read(0, 0, 1).weight[0] == 0:
            sample = int(store.order(0).samples(64))
        self.damage(tmp_path / "images" / f"{sample:03d}.png")
        report = verify(VerifyConfig(store=str(tmp_path / "store"), data=str(tmp_path / "images"), workers=1))
        assert not report.ok
        assert f"{sample:03d}.png" in report.errors[0]

    def make(self, folder: Path) -> None:
        """A store of 70 files, the one at position 64 of epoch 0 bad from the beginning."""
        names = [f"{number:03d}.png" for number in range(70)]
        write_images(folder / "images", names)
        bad = int(VisitOrder(num_samples=70, run_seed=11, epoch=0).samples(64))
        self.damage(folder / "images" / names[bad])
        dump(config(folder, data=str(folder / "images"), epochs=4, skip_bad=True, view="crop_flip"))

    def damage(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        middle = data.index(b"IDAT") + 10
        data[middle : middle + 20] = bytes(20)
        path.write_bytes(data)


def test_own_transform_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "y = rng.integers(0, 4)\n    return image[y:y + 16, :16].transpose(2, 0, 1).copy()"
    (tmp_path / "corner.py").write_text(f"def transform(image, rng):\n    {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    dump(config(tmp_path, view="corner:transform"))
    options = {"store": str(tmp_path / "store"), "data": str(tmp_path / "data.npz")}
    with pytest.raises(ViewError, match="--view corner:transform"):
        verify(VerifyConfig(**options))
    assert (
        verify(VerifyConfig(**options, view="corner:transform")).views_checked == 2 * 5
    )  # epochs, blocks of 64 in 300 positions
