"""``dump --views-from``: another teacher sees the views of a store, pixel for pixel, and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dump_cases import CLASSES, config, snapshot, teacher, write_data
from helpers import write_images
from torch import nn

from logitstore.dump import DumpConfig, DumpResult, dump
from logitstore.errors import DecodeError, IncompleteError, InputError, MismatchError, ViewError, WitnessError
from logitstore.images import open_images
from logitstore.loader import ViewLoader, stored_spec
from logitstore.recheck import VerifyConfig, verify
from logitstore.store import Ensemble, Store, claim_shard, commit_shard, create_store, open_store

SECOND = "test_dump_views_from:second_teacher"
OWN: dict[str, Any] = {"epochs": None, "size": None, "view": None, "seed": None}
"""Options that are those of the store whose views are wanted."""


def second_teacher() -> nn.Module:
    """Another fixed function of the views."""
    model = teacher()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        model.classifier.weight.normal_()
    return model


def fewer_classes() -> nn.Module:
    model = teacher()
    model.classifier = nn.Linear(48, CLASSES - 1)
    return model


def second(folder: Path, store: str = "second", **options: Any) -> DumpConfig:
    """A dump of the second teacher on the views of ``folder / "store"``."""
    values = {"teacher": SECOND, "views_from": str(folder / "store"), **OWN, **options}
    return config(folder, store, **values)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DumpResult]:
    """A folder with a store of mixed views, and what a dump of the second teacher made of them."""
    folder = tmp_path_factory.mktemp("first")
    dump(config(folder))
    return folder, dump(second(folder))


@pytest.fixture
def folder(first: tuple[Path, DumpResult], tmp_path: Path) -> Path:
    """A copy of data and first store."""
    shutil.copytree(first[0], tmp_path / "copy", ignore=shutil.ignore_patterns("second"))
    return tmp_path / "copy"


def test_views_and_order_are_those_of_the_first_store(first: tuple[Path, DumpResult]) -> None:
    path, result = first
    assert (result.complete, result.records, result.skipped) == (True, 600, 0)
    one, other = open_store(path / "store"), open_store(path / "second")
    assert one.manifest.view == other.manifest.view and one.manifest.run_seed == other.manifest.run_seed == 11
    for epoch in range(2):
        records, others = one.read(epoch, 0, 300), other.read(epoch, 0, 300)
        assert np.array_equal(records.sample, others.sample) and np.array_equal(records.seed, others.seed)
        assert np.array_equal(one.witnesses(epoch, 0, 300)[1], other.witnesses(epoch, 0, 300)[1])
        assert not np.array_equal(records.index, others.index)
    assert Ensemble([one, other]).read(1, 0, 300).weight.all()


def test_it_is_the_store_that_the_same_run_seed_makes(first: tuple[Path, DumpResult], tmp_path: Path) -> None:
    path, _ = first
    dump(config(path, str(tmp_path / "alone"), teacher=SECOND))
    assert snapshot(tmp_path / "alone") == snapshot(path / "second")


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([{"start_epoch": 1}, {}], id="second epoch first"),
        pytest.param([{"epochs": 1}, {}], id="fewer epochs first"),
        pytest.param([{"shards": "0/2"}, {"workers": 3}], id="in two parts"),
        pytest.param([{"seed": 11, "size": 16, "epochs": 2}], id="the same options named"),
    ],
)
def test_however_it_is_made_it_is_the_same(
    first: tuple[Path, DumpResult], tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    path, _ = first
    for options in runs:
        result = dump(second(path, str(tmp_path / "again"), **options))
    assert result.complete
    assert snapshot(tmp_path / "again") == snapshot(path / "second")


def test_shards_may_be_cut_otherwise(first: tuple[Path, DumpResult], tmp_path: Path) -> None:
    path, _ = first
    dump(second(path, str(tmp_path / "second"), shard_size=128, topk=3, values="f16"))
    other = open_store(tmp_path / "second")
    assert (other.num_shards, other.topk) == (3, 3)
    mean = Ensemble([open_store(path / "store"), other]).read(0, 0, 300)
    assert mean.index.shape == (300, 8)


def test_it_replays_and_its_teacher_agrees(first: tuple[Path, DumpResult]) -> None:
    path, _ = first
    report = verify(VerifyConfig(store=str(path / "second"), data=str(path / "data.npz"), teacher=SECOND))
    assert report.ok and report.to_dict()["views_checked"] == 10


def test_a_part_of_the_images_is_found(tmp_path: Path) -> None:
    dump(config(tmp_path, subset=100, epochs=1))
    dump(second(tmp_path))
    assert open_store(tmp_path / "second").num_samples == 100
    with pytest.raises(MismatchError, match="number of images"):
        dump(second(tmp_path, "third", subset=50))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 12}, "run seed of the store.*--seed.*stored:  11.*present: 12"),
        ({"size": 24}, "size of the views.*--size.*stored:  16.*present: 24"),
        ({"epochs": 3}, "number of epochs.*--epochs.*stored:  2.*present: 3"),
        ({"view": "crop_flip"}, "view spec .*mixup = 0.8.*mixup = 0"),
        ({"data": "other.npz"}, "fingerprint of the data set"),
    ],
    ids=["seed", "size", "epochs", "view", "data"],
)
def test_what_contradicts_the_store_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    write_data(folder / "other.npz", first=1)
    if "data" in options:
        options = {"data": str(folder / options["data"])}
    with pytest.raises(MismatchError, match=f"(?s){message}"):
        dump(second(folder, **options))
    assert not (folder / "second").exists()


def test_another_order_of_the_images_is_refused(folder: Path) -> None:
    with np.load(folder / "data.npz") as arrays:
        np.savez(folder / "turned.npz", images=arrays["images"][::-1], labels=arrays["labels"][::-1])
    with pytest.raises(MismatchError, match="fingerprint of the data set"):
        dump(second(folder, data=str(folder / "turned.npz")))


def test_epochs_that_the_store_lacks_are_refused(folder: Path) -> None:
    (folder / "store" / "commits" / "0001.00002.json").unlink()
    with pytest.raises(IncompleteError, match=r"Epoch 1 .* lacks 1 of 5 shards, number 2 first.*--epochs 1\."):
        dump(second(folder))
    assert not (folder / "second").exists()
    assert dump(second(folder, epochs=1)).complete
    dump(config(folder))
    assert dump(second(folder)).shards == 5


def test_the_first_epoch_must_exist_and_the_store_lie_elsewhere(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--start-epoch must lie in \[0, 2\), got 2"):
        dump(second(folder, start_epoch=2))
    with pytest.raises(InputError, match="is the store of --views-from"):
        dump(second(folder, "store"))


def test_other_pixels_are_found_while_dumping(folder: Path) -> None:
    """The data set's fingerprint says nothing of what the pixels become: a witness does."""
    store = open_store(folder / "store")
    other = create_store(folder / "other", replace(store.manifest, num_epochs=1))
    for shard in range(store.num_shards):
        block = store.block(0, shard)
        commit(other, 0, shard, replace(block, witness=block.witness ^ np.uint32(shard == 1)))
    with pytest.raises(WitnessError, match="epoch 0, position 64"):
        dump(second(folder, views_from=str(other.path)))
    assert open_store(folder / "second").committed() == {(0, 0)}


def commit(store: Store, epoch: int, shard: int, block: Any) -> None:
    claim = claim_shard(store, epoch, shard)
    assert claim is not None
    with claim:
        commit_shard(store, claim, block)


def reseeded(folder: Path, name: str, *, shards: set[int]) -> Store:
    """The first store with other seeds in these shards of its one epoch, and with the witnesses of their views."""
    store, images = open_store(folder / "store"), open_images(str(folder / "data.npz"))
    made: list[Store] = []
    for place in ("draft", name):  # views first, then their witnesses
        made.append(create_store(folder / place, replace(store.manifest, num_epochs=1)))
        for shard in range(store.num_shards):
            block = store.block(0, shard)
            if shard in shards:
                block = replace(block, seed=block.seed ^ np.uint32(1))
            if len(made) == 2:
                loader = ViewLoader(
                    images, stored_spec(store), store=made[0], batch_size=64, workers=0, check_witnesses=False
                )
                block = replace(block, witness=next(loader.batches(0, *store.shard_range(shard))).witness_J)
            commit(made[-1], 0, shard, block)
    shutil.rmtree(folder / "draft")
    return made[-1]


def test_the_stored_seeds_count_also_where_they_are_others(folder: Path) -> None:
    other = reseeded(folder, "other", shards=set(range(5)))
    assert dump(second(folder, views_from=str(other.path))).complete
    made = open_store(folder / "second")
    assert np.array_equal(made.read(0, 0, 300).seed, other.read(0, 0, 300).seed)
    assert made.manifest.views_from == other.store_id
    assert verify(VerifyConfig(store=str(made.path), data=str(folder / "data.npz"))).ok
    assert Ensemble([other, made]).read(0, 0, 300).weight.all()
    with pytest.raises(MismatchError, match="seed of the view at epoch 0, position 0"):
        Ensemble([open_store(folder / "store"), made]).read(0, 0, 300)
    # It goes on with the same views only.
    assert dump(second(folder, views_from=str(other.path))).shards == 0
    with pytest.raises(MismatchError, match=r"views_from.*absent"):
        dump(config(folder, "second", teacher=SECOND, epochs=1))
    dump(second(folder, "third", views_from=str(made.path)))
    assert open_store(folder / "third").manifest.views_from == made.store_id


def test_seeds_of_two_kinds_are_refused(folder: Path) -> None:
    other = reseeded(folder, "other", shards={3})
    with pytest.raises(MismatchError, match=r"seed in the store at .* at epoch 0, position 192"):
        dump(second(folder, views_from=str(other.path)))


class TestSkipped:
    """Image 3 of twenty does not decode."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        write_images(tmp_path / "images", [f"{number:02d}.png" for number in range(20)])
        dump_config = self.options(tmp_path, "whole")
        dump(dump_config)
        shutil.copytree(tmp_path / "images", tmp_path / "backup")
        (tmp_path / "images" / "03.png").write_bytes(b"x" * (tmp_path / "images" / "03.png").stat().st_size)
        assert dump(self.options(tmp_path, "store", skip_bad=True)).skipped == 4
        return tmp_path

    def options(self, folder: Path, store: str, **more: Any) -> DumpConfig:
        return config(folder, store, data=str(folder / "images"), **more)

    def test_what_was_skipped_stays_skipped(self, folder: Path) -> None:
        result = dump(second(folder, data=str(folder / "images")))
        assert (result.complete, result.skipped) == (True, 4)
        shutil.rmtree(folder / "images")
        (folder / "backup").rename(folder / "images")
        assert dump(second(folder, "later", data=str(folder / "images"))).skipped == 4
        one, other = open_store(folder / "store"), open_store(folder / "later")
        assert np.array_equal(one.read(0, 0, 20).weight, other.read(0, 0, 20).weight)
        assert Ensemble([one, other]).read(0, 0, 20).weight.sum() == 18

    def test_what_was_not_skipped_must_decode(self, folder: Path) -> None:
        options = {"views_from": str(folder / "whole"), "data": str(folder / "images")}
        with pytest.raises(InputError, match=r"03\.png"):
            dump(second(folder, **options))
        result = dump(second(folder, skip_bad=True, **options))
        assert result.skipped == 4
        mean = Ensemble([open_store(folder / "whole"), open_store(folder / "second")]).read(0, 0, 20)
        assert mean.weight.sum() == 18

    def test_another_image_that_does_not_decode_stops_it(self, folder: Path) -> None:
        path = folder / "images" / "05.png"
        data = bytearray(path.read_bytes())
        middle = data.index(b"IDAT") + 10
        data[middle : middle + 20] = bytes(20)
        path.write_bytes(data)
        with pytest.raises(DecodeError, match=r"05\.png"):
            dump(second(folder, data=str(folder / "images")))


def test_other_classes_are_said(folder: Path) -> None:
    said: list[str] = []

    def progress(*_: Any) -> Any:
        from train_cases import Spy

        spy = Spy()
        spy.said = said
        return spy

    dump(second(folder, teacher="test_dump_views_from:fewer_classes", epochs=1), progress)
    assert any("has 11 classes, and that of" in line and "not on both together" in line for line in said)


def test_a_transform_of_ones_own_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def transform(image, rng):\n    high = rng.integers(0, 4)\n"
    body += "    return image[high:high + 16, :16].transpose(2, 0, 1).copy()\n"
    (tmp_path / "second_views.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    dump(config(tmp_path, view="second_views:transform", epochs=1))
    with pytest.raises(ViewError, match="name it yourself: --view second_views:transform"):
        dump(second(tmp_path))
    assert dump(second(tmp_path, view="second_views:transform")).complete
