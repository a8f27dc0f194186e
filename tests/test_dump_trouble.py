"""A dump in trouble: images that do not decode, a user's transform, shards in other hands, interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dump_cases import config, snapshot
from helpers import write_images

from logitstore.dump import DumpConfig, DumpResult, dump
from logitstore.dump.producer import Producer
from logitstore.errors import DataError, DecodeError, ViewError
from logitstore.store import claim_shard, open_store
from logitstore.topk import select_topk


class TestBadImages:
    """Image 3 of twenty is cut off within its data, or not an image at all."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_images(tmp_path / "images", [f"{number:02d}.png" for number in range(20)])
        return tmp_path

    def options(self, folder: Path, **more: Any) -> DumpConfig:
        return config(folder, data=str(folder / "images"), **more)

    def damage_pixels(self, folder: Path) -> None:
        """Header and trailer stay as they are, so only decoding finds it."""
        path = folder / "images" / "03.png"
        data = bytearray(path.read_bytes())
        middle = data.index(b"IDAT") + 10
        data[middle : middle + 20] = bytes(20)
        path.write_bytes(data)

    def test_check_finds_it_before_the_run(self, folder: Path) -> None:
        (folder / "images" / "03.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"03\.png"):
            dump(self.options(folder))
        assert not (folder / "store").exists()

    def test_decoding_stops_the_shard(self, folder: Path) -> None:
        self.damage_pixels(folder)
        with pytest.raises(DecodeError, match=r"03\.png"):
            dump(self.options(folder))
        assert not open_store(folder / "store").committed()
        assert not list(folder.rglob("*.claim*"))

    @pytest.mark.parametrize(("view", "lost"), [("crop_flip", 1), (None, 2)], ids=["alone", "with its partner"])
    def test_skipping_keeps_the_position(self, folder: Path, view: str | None, lost: int) -> None:
        self.damage_pixels(folder)
        result = dump(self.options(folder, skip_bad=True, **({"view": view} if view else {})))
        assert result.skipped == 2 * lost
        store = open_store(folder / "store")
        for epoch in range(2):
            records = store.read(epoch, 0, 20)
            empty = records.weight == 0
            position = int(store.order(epoch).positions(3))
            expected = {position} if lost == 1 else {position, position ^ 1}
            assert set(np.flatnonzero(empty).tolist()) == expected
            assert not records.prob[empty].any()
            assert not records.tail[empty].any()
            assert np.allclose(records.prob[~empty].sum(1) + records.tail[~empty], 1, atol=1e-6)


class TestOwnTransform:
    def test_named_transform_is_dumped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(tmp_path, monkeypatch, "corner_cut", "high = rng.integers(0, 4)")
        dump(config(tmp_path, view="corner_cut:transform"))
        assert open_store(tmp_path / "store").manifest.view["transform"] == "corner_cut:transform"

    def test_a_transform_that_draws_elsewhere_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.write(tmp_path, monkeypatch, "own_mind", "import os; high = os.urandom(1)[0] % 5")
        with pytest.raises(ViewError, match="two different views"):
            dump(config(tmp_path, view="own_mind:transform"))
        assert not (tmp_path / "store").exists()

    def write(self, folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, draw: str) -> None:
        view = "image[high:high + 16, :16].transpose(2, 0, 1).copy()"
        (folder / f"{module}.py").write_text(f"def transform(image, rng):\n    {draw}\n    return {view}\n")
        monkeypatch.syspath_prepend(folder)


class TestSharing:
    def test_a_shard_in_other_hands_is_left_and_named(self, tmp_path: Path) -> None:
        dump(config(tmp_path, epochs=1))
        result = self.dump_while_one_is_claimed(tmp_path)
        assert not result.complete
        assert result.shards == 4
        assert len(result.in_progress) == 1
        assert result.in_progress[0].startswith("epoch 0, shard 2: process ")
        assert dump(config(tmp_path, "shared", epochs=1)).complete
        assert snapshot(tmp_path / "shared") == snapshot(tmp_path / "store")

    def dump_while_one_is_claimed(self, folder: Path) -> DumpResult:
        store = Producer(config(folder, "shared", epochs=1), None).open_store(range(1))
        claim = claim_shard(store, 0, 2)
        assert claim is not None
        with claim:
            return dump(config(folder, "shared", epochs=1))

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_whatever_happens_the_claim_is_given_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        calls = 0

        def interrupted(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 6:
                raise error
            return select_topk(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr("logitstore.dump.producer.select_topk", interrupted)
            with pytest.raises(error):
                dump(config(tmp_path, epochs=1))
        assert len(open_store(tmp_path / "store").committed()) == 2
        assert not list(tmp_path.rglob("*.claim*"))
        assert dump(config(tmp_path, epochs=1)).shards == 3

    def test_torchs_threads_are_the_stores(self, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            dump(config(tmp_path, epochs=1))
            torch.set_num_threads(2)
            assert dump(config(tmp_path, epochs=2)).complete
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert open_store(tmp_path / "store").manifest.inference["threads"] == 1
