"""What a run trains on: stored views and records in order, hard labels over the same views, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import write_images
from train_cases import BATCH, SUBSET, config, make_store

from logitstore.errors import (
    DamagedError,
    DataError,
    IncompleteError,
    InputError,
    LogitStoreError,
    MismatchError,
    ViewError,
    WitnessError,
)
from logitstore.learning.feed import Feed
from logitstore.loader import Batch
from logitstore.store import claim_shard, commit_shard, create_store, open_store
from logitstore.train import train
from logitstore.train.feed import open_feed
from students.recipes import select_recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose views are mixed in pairs."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "mixed.yaml").write_text("base: tinyvit\nmixup: 0.8\ncutmix: 1.0\n")
    return make_store(folder / "store", view=str(folder / "mixed.yaml"), epochs=1)


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def feed(**options: Any) -> Feed:
    whole = config(Path("unused"), **options)
    return open_feed(whole, whole.effective_recipe())


def refused(tmp_path: Path, error: type[LogitStoreError], match: str, **options: Any) -> None:
    """``train`` raises this and writes nothing."""
    with pytest.raises(error, match=match):
        train(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_batches_are_the_stores_records_in_order(store: Path) -> None:
    opened = feed(store=str(store))
    assert opened.steps_per_epoch == SUBSET // BATCH
    records = open_store(store).read(1, BATCH, 3 * BATCH)
    batches: list[Batch] = list(opened.batches(1, 1, 2))
    assert np.array_equal(np.concatenate([batch.sample_B for batch in batches]), records.sample)
    assert np.array_equal(np.concatenate([batch.seed_B for batch in batches]), records.seed)
    assert all(batch.records is not None for batch in batches)


def test_more_epochs_than_the_store_holds_come_again(store: Path) -> None:
    opened = feed(store=str(store), epochs=5)
    assert any("5 epochs from a store of 2" in note for note in opened.notes)
    one, again = (next(opened.batches(epoch)) for epoch in (1, 3))
    assert np.array_equal(one.views_BCHW, again.views_BCHW)
    assert not np.array_equal(one.sample_B, next(opened.batches(2)).sample_B)


def test_topk_truncates(store: Path) -> None:
    batch = next(feed(store=str(store), topk=2).batches(0))
    assert batch.records is not None and batch.records.index.shape == (BATCH, 2)
    np.testing.assert_allclose(batch.records.prob.sum(1) + batch.records.tail, 1, atol=1e-6)


def test_hard_labels_see_the_same_views_without_a_store(store: Path) -> None:
    distilled, labelled = feed(store=str(store)), feed(hard_labels_only=True, subset=SUBSET)
    assert labelled.store is None
    assert (labelled.num_classes, labelled.class_names) == (10, distilled.class_names)
    for one, other in zip(distilled.batches(0), labelled.batches(0), strict=True):
        assert np.array_equal(one.views_BCHW, other.views_BCHW)
        assert np.array_equal(one.label_B, other.label_B)
        assert other.records is None


def test_hard_labels_mix_as_the_recipe_or_the_view_says(mixed: Path) -> None:
    spec = feed(hard_labels_only=True, subset=SUBSET).loader.spec
    assert not spec.mixes
    recipe = select_recipe("digits", mixup=0.8, cutmix=1.0, batch_size=BATCH)
    assert feed(hard_labels_only=True, subset=SUBSET, recipe=recipe).loader.spec.mixes
    labelled = feed(hard_labels_only=True, subset=SUBSET, view=str(mixed.parent / "mixed.yaml"))
    one, other = (next(opened.batches(0)) for opened in (labelled, feed(store=str(mixed))))
    assert np.array_equal(one.views_BCHW, other.views_BCHW)
    assert (one.own_B < 1).any()


def test_ranks_share_a_batch(mixed: Path) -> None:
    whole_config = config(Path("unused"), store=str(mixed))
    recipe = whole_config.effective_recipe()
    whole = next(open_feed(whole_config, recipe).batches(0))
    parts = [next(open_feed(whole_config, recipe, rank=rank, world=2).batches(0)) for rank in range(2)]
    assert np.array_equal(np.concatenate([part.views_BCHW for part in parts]), whole.views_BCHW)


def test_shuffled_shards_differ_by_seed_and_lose_no_pair(store: Path) -> None:
    def samples(seed: int, epoch: int, step: int = 0) -> list[int]:
        opened = feed(store=str(store), shuffle="shards", seed=seed)
        return [int(sample) for batch in opened.batches(epoch, step) for sample in batch.sample_B]

    plain = [int(sample) for batch in feed(store=str(store)).batches(0) for sample in batch.sample_B]
    orders = [samples(seed, 0) for seed in range(4)]
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert samples(1, 0, 3) == orders[1][3 * BATCH :]
    assert {tuple(samples(1, epoch)) for epoch in (0, 2)} != {tuple(orders[1])}


def test_another_size_is_allowed_and_said(store: Path) -> None:
    opened = feed(store=str(store), size=48)
    assert next(opened.batches(0)).views_BCHW.shape == (BATCH, 3, 48, 48)
    assert any("48 px" in note and "witnesses are not checked" in note for note in opened.notes)


def test_validation_needs_a_val_split_with_labels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(64) % 3)
    opened = feed(hard_labels_only=True, data=str(tmp_path / "data.npz"))
    assert opened.validation is None
    assert any("nothing to validate on" in note for note in opened.notes)
    assert opened.num_classes == 3
    opened = feed(hard_labels_only=True, data=str(tmp_path / "data.npz"), val_data=str(tmp_path / "data.npz"))
    assert opened.validation is not None and len(opened.validation) == 64


def test_label_free_data_is_refused_for_hard_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"{number}.png" for number in range(4)])
    refused(
        tmp_path, DataError, "has no labels to train with --hard-labels-only", hard_labels_only=True,
        data=str(tmp_path / "images"),
    )


def test_label_free_data_is_distilled(tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"{number}.png" for number in range(64)])
    data = str(tmp_path / "images")
    path = make_store(tmp_path / "store", data=data, subset=None, size=32, epochs=1)
    result = train(config(tmp_path / "run", store=str(path), data=data, epochs=1))
    assert result.accuracy is None
    assert Path(result.checkpoint).is_file()


def digits_as(path: Path, **changes: Any) -> str:
    """The store's images as an .npz file, changed."""
    from logitstore.images import open_images

    images = open_images("digits").subset(SUBSET)
    arrays = {"images": np.stack([images.pixels(i) for i in range(SUBSET)]), "labels": images.labels}
    np.savez(path, **{**arrays, **changes})
    return str(path)


def test_another_data_set_is_refused(store: Path, tmp_path: Path) -> None:
    refused(tmp_path, MismatchError, "number of images", store=str(store), data="digits", subset=100)
    other = digits_as(tmp_path / "other.npz")
    refused(tmp_path, MismatchError, "fingerprint of the data set", store=str(store), data=other)


def test_another_order_is_refused(tmp_path: Path) -> None:
    data = digits_as(tmp_path / "data.npz")
    path = make_store(tmp_path / "store", data=data, subset=None, size=32, epochs=1)
    feed(store=str(path), data=data)
    with np.load(data) as arrays:
        images, labels = arrays["images"][::-1], arrays["labels"][::-1]
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    refused(tmp_path, MismatchError, "fingerprint of the data set", store=str(path), data=data)


def test_another_view_spec_is_refused(store: Path, tmp_path: Path) -> None:
    refused(tmp_path, MismatchError, "view spec.*rand_augment_layers", store=str(store), view="crop_flip")
    feed(store=str(store), view="tinyvit")


def remade(source: Path, target: Path, *, witness: int = 0, **changes: Any) -> Path:
    """A store with the records of another one, under a changed manifest and with changed witnesses."""
    old = open_store(source)
    new = create_store(target, replace(old.manifest, num_epochs=1, **changes))
    for shard in range(old.num_shards):
        block = old.block(0, shard)
        claim = claim_shard(new, 0, shard)
        assert claim is not None
        with claim:
            commit_shard(new, claim, replace(block, witness=block.witness ^ np.uint32(witness)))
    return target


def test_another_version_of_the_view_rules_is_refused(store: Path, tmp_path: Path) -> None:
    view = dict(open_store(store).manifest.view) | {"version": 2}
    path = remade(store, tmp_path / "store", view=view)
    refused(tmp_path, MismatchError, "version of the rules that made the views", store=str(path))


def test_a_class_count_that_does_not_fit_is_refused(store: Path, tmp_path: Path) -> None:
    dataset = dict(open_store(store).manifest.dataset) | {"class_names": None}
    path = remade(store, tmp_path / "store", dataset=dataset, num_classes=7)
    refused(tmp_path, MismatchError, "number of classes", store=str(path))


def test_a_wrong_witness_is_refused_at_its_batch(store: Path, tmp_path: Path) -> None:
    path = remade(store, tmp_path / "store", witness=1)
    refused(tmp_path, WitnessError, "epoch 0, position 0", store=str(path))
    train(config(tmp_path / "small", store=str(path), size=24, epochs=1))


def test_a_missing_shard_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "commits" / "0001.00002.json").unlink()
    refused(tmp_path, IncompleteError, r"Epoch 1 .* lacks 1 of 4 shards, number 2 first.*--epochs 1", store=str(copy))
    assert feed(store=str(copy), epochs=1).epochs == (0,)
    (copy / "commits" / "0000.00000.json").unlink()
    refused(tmp_path, IncompleteError, r"Epoch 0 .* lacks 1 of 4 shards", store=str(copy), epochs=1)


def test_epochs_that_were_not_begun_are_left_out(copy: Path, tmp_path: Path) -> None:
    for commit in (copy / "commits").glob("0001.*.json"):
        commit.unlink()
    opened = feed(store=str(copy))
    assert opened.epochs == (0,)
    assert any("2 epochs 1 are there" in note for note in opened.notes)
    assert any("again and again" in note for note in opened.notes)
    for commit in (copy / "commits").glob("0000.*.json"):
        commit.unlink()
    refused(tmp_path, IncompleteError, "holds no shard yet", store=str(copy))


def test_a_flipped_bit_is_refused_at_its_batch(copy: Path, tmp_path: Path) -> None:
    objects = sorted(path for path in (copy / "logp" / "c" / "0").rglob("*") if path.is_file())
    damaged = bytearray(objects[0].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    objects[0].write_bytes(damaged)
    refused(tmp_path, DamagedError, "logp", store=str(copy))
    objects[0].write_bytes(objects[1].read_bytes())
    refused(tmp_path, DamagedError, "logp", store=str(copy))


def test_damage_in_a_later_shard_stops_the_run_there(copy: Path, tmp_path: Path) -> None:
    objects = sorted(path for path in (copy / "seed" / "c" / "1").rglob("*") if path.is_file())
    objects[-1].write_bytes(objects[-1].read_bytes()[:-1])
    with pytest.raises(DamagedError, match="seed"):
        train(config(tmp_path / "run", store=str(copy), batch_size=100))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_no_store_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, LogitStoreError, "no store at", store=str(tmp_path / "nothing"))


TRANSFORM = """
import numpy as np
def shifted(image, rng):
    view = np.zeros((3, 32, 32), np.uint8)
    view[:, :8, :8] = image.transpose(2, 0, 1)[:, :8, :8]
    return np.roll(view, rng.integers(0, 24), axis=2)
"""


def test_a_users_transform_must_be_named_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_transforms.py").write_text(TRANSFORM)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = make_store(tmp_path / "store", view="my_transforms:shifted", epochs=1)
    refused(tmp_path, ViewError, "name it yourself: --view my_transforms:shifted", store=str(path))
    assert feed(store=str(path), view="my_transforms:shifted").loader.checks_witnesses


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="--topk has no meaning"):
        config(Path("unused"), hard_labels_only=True, topk=3)
