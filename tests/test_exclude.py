"""``train --exclude``: weight 0 for some samples and nothing else moves; lists that are read and lists that are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import MemoryImages
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_stores import CLASSES, FULL, PLAIN, RUN_SEED
from loader_stores import dump as dump_made_up
from safetensors.numpy import load_file
from train_cases import SUBSET, config, make_store

from logitstore.errors import DecodeError, InputError, MismatchError
from logitstore.images import open_images
from logitstore.learning.feed import Feed
from logitstore.loader import Batch, ViewLoader, read_exclusion
from logitstore.store import Store
from logitstore.train import train
from logitstore.train.feed import open_feed
from logitstore.views import ViewSpec

COUNT = 151  # odd, and several batches


def digits_feed(**options: Any) -> Feed:
    whole = config(Path("unused"), **options)
    return open_feed(whole, whole.effective_recipe())


def listed(folder: Path, *lines: object) -> str:
    path = folder / "excluded.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def audited(folder: Path, fingerprint: str, samples: list[Any], **changes: Any) -> str:
    """A file as ``audit`` writes it."""
    report = {
        "format": "logitstore audit", "version": 1, "dataset": {"fingerprint": fingerprint},
        "samples": [{"sample": sample, "name": "?"} for sample in samples],
    }  # fmt: skip
    path = folder / "audit.json"
    path.write_text(json.dumps({**report, **changes}))
    return str(path)


# -- what happens to batches


@pytest.fixture(scope="module")
def images() -> MemoryImages:
    return MemoryImages(COUNT, labels=[i % CLASSES for i in range(COUNT)])


@pytest.fixture(scope="module", params=[PLAIN, FULL], ids=["plain", "mixed"])
def store(request: pytest.FixtureRequest, images: MemoryImages, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return dump_made_up(tmp_path_factory.mktemp("exclude") / "store", images, request.param)


def loaded(images: MemoryImages, spec: ViewSpec, store: Store | None, **options: Any) -> list[Batch]:
    loader = ViewLoader(
        images, spec, store=store, run_seed=RUN_SEED if store is None else None, batch_size=32, workers=2, **options
    )
    return list(loader.batches(0))


def weights_of(batches: Iterable[Batch]) -> dict[int, float]:
    """The weight of each sample."""
    return {
        sample: weight
        for batch in batches
        for sample, weight in zip(batch.sample_B.tolist(), batch.weight_B.tolist(), strict=True)
    }


@pytest.mark.parametrize("stored", [True, False], ids=["store", "labels"])
@settings(max_examples=8)
@given(chosen=st.sets(st.integers(0, COUNT - 1), max_size=40))
def test_weights_are_zero_there_and_all_else_is_equal(
    store: Store, images: MemoryImages, stored: bool, chosen: set[int]
) -> None:
    spec = ViewSpec.from_dict(store.manifest.view)
    source = store if stored else None
    exclude = np.array(sorted(chosen), np.int64)
    plain, changed = (loaded(images, spec, source, **options) for options in ({}, {"exclude": exclude}))
    sample = np.concatenate([batch.sample_B for batch in plain])
    expected = ~np.isin(sample, exclude)
    if spec.mixes:
        for even in range(0, COUNT - 1, 2):
            expected[even : even + 2] = expected[even : even + 2].all()
    assert np.array_equal(np.concatenate([batch.weight_B for batch in changed]), expected.astype(np.float32))
    for one, other in zip(plain, changed, strict=True):
        for name in ("position_B", "sample_B", "seed_B", "views_BCHW", "own_B", "label_B", "partner_label_B"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert (one.records is None) == (other.records is None) == (not stored)
        if one.records is not None and other.records is not None:
            for name, column in vars(one.records).items():
                assert np.array_equal(column, getattr(other.records, name)), name


def test_slices_and_shuffled_shards_have_the_same_weights(store: Store, images: MemoryImages) -> None:
    """Also where a batch begins or ends within a pair of which one is excluded."""
    spec = ViewSpec.from_dict(store.manifest.view)
    exclude = np.arange(0, COUNT, 5)
    whole = weights_of(loaded(images, spec, store, exclude=exclude))
    loader = ViewLoader(images, spec, store=store, batch_size=7, workers=0, exclude=exclude, shuffle_seed=3)
    assert weights_of(loader.batches(0)) == whole
    assert 0.0 in whole.values() and 1.0 in whole.values()


def test_an_excluded_image_need_not_decode() -> None:
    images = MemoryImages(40, bad=[17])
    with pytest.raises(DecodeError):
        loaded(images, PLAIN, None)
    batches = loaded(images, PLAIN, None, exclude=np.array([17, 3]))
    assert {sample for sample, weight in weights_of(batches).items() if weight == 0} == {3, 17}
    assert [name for batch in batches for name in batch.bad] == ["picture-17"]


# -- what happens to a run


@pytest.fixture(scope="module")
def digits_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store", epochs=1)


@pytest.mark.parametrize("labels", [False, True], ids=["store", "labels"])
def test_a_run_leaves_them_out(digits_store: Path, tmp_path: Path, labels: bool) -> None:
    source: dict[str, Any] = (
        {"hard_labels_only": True, "subset": SUBSET} if labels else {"store": str(digits_store)}
    )
    plain = digits_feed(**source)
    first = [int(sample) for sample in next(plain.batches(0)).sample_B]  # a batch that weighs nothing at all
    path = listed(tmp_path, *first, 3)
    feed = digits_feed(**source, exclude=path)
    chosen = sorted({*first, 3})
    assert feed.steps_per_epoch == plain.steps_per_epoch
    assert any(f"{len(chosen)} of {SUBSET} samples are excluded by {path}" in note for note in feed.notes)
    digest = hashlib.sha256("".join(f"{sample}\n" for sample in chosen).encode()).hexdigest()
    assert feed.identity()["exclude"] == {"count": len(chosen), "sha256": digest}
    assert {key: value for key, value in feed.identity().items() if key != "exclude"} == plain.identity()

    result = train(config(tmp_path / "run", **source, exclude=path, epochs=1))
    assert result.steps == plain.steps_per_epoch and result.loss is not None and np.isfinite(result.loss)
    report = audited(tmp_path, feed.images.fingerprint, chosen)
    again = train(config(tmp_path / "run", **source, exclude=report, epochs=1))
    assert again.images_per_second == 0, "the same list from another file is the same run"
    with pytest.raises(MismatchError, match=r"exclude\.count=33.*\n.*exclude\.count=1"):
        train(config(tmp_path / "run", **source, exclude=listed(tmp_path, 3), epochs=1))


@pytest.mark.parametrize("mixing", [False, True], ids=["plain", "mixed"])
def test_labels_of_excluded_samples_change_nothing(tmp_path: Path, mixing: bool) -> None:
    digits = open_images("digits").subset(96)
    arrays = np.stack([digits.pixels(i) for i in range(96)])
    assert digits.labels is not None
    wrong = np.arange(0, 96, 9)
    (tmp_path / "mixed.yaml").write_text(f"base: tinyvit\nmixup: {0.8 * mixing}\ncutmix: {1.0 * mixing}\n")
    weights: dict[str, dict[str, Any]] = {}
    for name, excludes in (("right", True), ("wrong", True), ("kept", False)):
        labels = digits.labels.copy()
        if name != "right":
            labels[wrong] = (labels[wrong] + 5) % 10
        data = tmp_path / f"{name}.npz"
        np.savez(data, images=arrays, labels=labels)
        result = train(config(
            tmp_path / name, data=str(data), hard_labels_only=True, recipe="digits", epochs=1, size=32,
            view=str(tmp_path / "mixed.yaml"), exclude=listed(tmp_path, *wrong) if excludes else None,
        ))  # fmt: skip
        weights[name] = load_file(result.checkpoint)
    assert all(np.array_equal(weights["right"][key], weights["wrong"][key]) for key in weights["right"])
    assert not all(np.array_equal(weights["right"][key], weights["kept"][key]) for key in weights["right"])


# -- lists


def test_numbers_names_and_audits_mean_the_same(tmp_path: Path) -> None:
    images = MemoryImages(30)
    by_number = read_exclusion(listed(tmp_path, 17, "", " 4 ", 17), images)
    by_name = read_exclusion(listed(tmp_path, "picture-4", "picture-17"), images)
    both = read_exclusion(listed(tmp_path, "picture-4", 17), images)
    report = read_exclusion(audited(tmp_path, images.fingerprint, [17, 4]), images)
    for exclusion in (by_number, by_name, both, report):
        assert exclusion.sample.tolist() == [4, 17]
        assert exclusion.describe() == by_number.describe()
    assert len(read_exclusion(audited(tmp_path, images.fingerprint, []), images)) == 0


def test_names_are_those_of_the_part_that_is_used(tmp_path: Path) -> None:
    part = MemoryImages(30).subset(10)
    assert read_exclusion(listed(tmp_path, part.image_name(4)), part).sample.tolist() == [4]
    with pytest.raises(InputError, match="does not have"):
        read_exclusion(listed(tmp_path, "picture-1"), part)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        (["30"], "excludes sample 30, but memory has samples 0 to 29"),
        (["9" * 40], "has samples 0 to 29"),
        (["-1"], r"excludes 1 images that memory \(train\) does not have \(-1\)"),
        (["picture-99", "nonsense"], r"\(nonsense, picture-99\).*called picture-0 and so on"),
        (range(30), "excludes all 30 samples"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, lines: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read_exclusion(listed(tmp_path, *lines), MemoryImages(30))


@pytest.mark.parametrize(
    ("samples", "changes", "match"),
    [
        ([30], {}, "excludes sample 30"),
        ([-1], {}, "excludes sample -1"),
        ([True], {}, "sample numbers"),
        (["4"], {}, "sample numbers"),
        ([4], {"version": 2}, "is logitstore audit of version 2"),
        ([4], {"format": "other"}, "is other of version 1"),
        ([4], {"dataset": None}, "not of logitstore audit"),
        ([4], {"dataset": {}}, "not of logitstore audit"),
    ],
)
def test_reports_that_do_not_fit(tmp_path: Path, samples: list[Any], changes: dict[str, Any], match: str) -> None:
    images = MemoryImages(30)
    with pytest.raises(InputError, match=match):
        read_exclusion(audited(tmp_path, images.fingerprint, samples, **changes), images)


def test_a_report_of_another_data_set_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    images, other = MemoryImages(30), MemoryImages(31)
    with pytest.raises(MismatchError, match="fingerprint") as caught:
        read_exclusion(audited(tmp_path, other.fingerprint, [4]), images)
    assert caught.value.stored == other.fingerprint
    assert images.fingerprint in str(caught.value.present)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    images = MemoryImages(30)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "broken.json").write_text('{"format": ')
    for name, match in (("absent", "No such file"), ("binary", "it is no text"), ("broken.json", "not of logitstore")):
        with pytest.raises(InputError, match=match):
            read_exclusion(tmp_path / name, images)


def test_a_name_that_several_images_bear_is_refused(tmp_path: Path) -> None:
    class Twins(MemoryImages):
        def image_name(self, i: int) -> str:
            return f"picture-{i // 2}"

    with pytest.raises(InputError, match="several images are called that"):
        read_exclusion(listed(tmp_path, "picture-3"), Twins(30))


def test_a_run_with_an_unusable_list_writes_nothing(digits_store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="excludes sample 200"):
        train(config(tmp_path / "run", store=str(digits_store), exclude=listed(tmp_path, SUBSET)))
    assert not (tmp_path / "run").exists()
