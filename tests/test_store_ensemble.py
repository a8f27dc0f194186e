"""Several stores read as one; stores of other views or other classes are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ensemble_cases import dense
from numpy.typing import NDArray
from store_cases import DENSE, SMALL, make_block, write_store

from logitstore.convert import ConvertConfig, convert
from logitstore.errors import IncompleteError, InputError, MismatchError
from logitstore.store import Ensemble, Manifest, Store, claim_shard, commit_shard, create_store, open_store

OTHER = replace(
    SMALL,
    topk=3,
    values="f16",
    floor=0.01,
    shard_size=64,
    chunk_size=32,
    inference={"batch_size": 32, "dtype": "bfloat16"},
    teacher={"name": "another teacher"},
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two stores of the same views that agree in nothing else."""
    folder = tmp_path_factory.mktemp("stores")
    return write_store(folder / "one"), write_store(folder / "other", OTHER)


@pytest.mark.parametrize("topk", [None, 2, 4])
def test_stores_are_read_as_their_mean(stores: tuple[Store, Store], topk: int | None) -> None:
    ensemble = Ensemble(stores, [3, 1])
    assert ensemble.weights == (0.75, 0.25)
    mean = ensemble.read(1, 0, 300, topk=topk)
    parts = [store.read(1, 0, 300, topk=topk) for store in stores]
    assert np.array_equal(mean.sample, parts[0].sample) and np.array_equal(mean.seed, parts[0].seed)
    whole = 0.75 * dense(parts[0], 11) + 0.25 * dense(parts[1], 11)
    np.testing.assert_allclose(dense(mean, 11), whole, rtol=3e-7, atol=1e-9)
    assert (mean.weight == 0).sum() == 1 and mean.sample[mean.weight == 0] == 13


def test_weights_are_the_same_for_all_unless_they_are_given(stores: tuple[Store, Store], tmp_path: Path) -> None:
    third = write_store(tmp_path / "third", replace(SMALL, topk=11, teacher={"name": "third"}))
    ensemble = Ensemble([*stores, third])
    assert ensemble.weights == pytest.approx([1 / 3] * 3)
    whole = sum(dense(store.read(0, 0, 300), 11) for store in ensemble.members) / 3
    np.testing.assert_allclose(dense(ensemble.read(0, 0, 300), 11), whole, rtol=4e-7, atol=1e-9)


def test_packed_stores_are_read_likewise(stores: tuple[Store, Store], tmp_path: Path) -> None:
    for store, name in zip(stores, ("one", "other"), strict=True):
        convert(ConvertConfig(store=str(store.path), out=str(tmp_path / name), base_epochs=1))
    packed = [open_store(tmp_path / name) for name in ("one", "other")]
    expected = Ensemble(stores).read(1, 30, 290)
    for members in (packed, [stores[0], packed[1]]):
        found = Ensemble(members).read(1, 30, 290)
        assert all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in ("index", "prob", "tail"))
    with pytest.raises(InputError, match="are the same"):
        Ensemble([stores[0], packed[0]])


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0], "2 stores need 2 weights, got 1"), ([1, 0], "above 0, got 1, 0"), ([1, float("nan")], "above 0"),
     ([1, float("inf")], "above 0"), ([1, 1, 1], "got 3")],
)  # fmt: skip
def test_weights_that_mean_nothing_are_refused(stores: tuple[Store, Store], weights: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ensemble(stores, weights)


def test_one_store_is_no_ensemble_and_neither_is_it_twice(stores: tuple[Store, Store]) -> None:
    with pytest.raises(InputError, match="at least two"):
        Ensemble(stores[:1])
    with pytest.raises(InputError, match="are the same"):
        Ensemble([*stores, open_store(stores[0].path)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_samples": 299}, "number of samples"),
        ({"run_seed": 8}, "run seed"),
        ({"dataset": {**SMALL.dataset, "fingerprint": "e" * 64}}, "fingerprint of the data set"),
        ({"view": {"name": "crop_flip", "size": 48}}, r"view spec \(size\).*size = 32 in .*size = 48 in"),
        ({"num_classes": 12}, "number of classes.*Distributions over other classes have no mean"),
        (
            {"dataset": {**SMALL.dataset, "class_names": [*"abcdefghijk"]}},
            "name of class 0.*Distributions over other classes",
        ),
    ],
    ids=["samples", "seed", "fingerprint", "view", "classes", "names"],
)
def test_stores_of_other_views_or_classes_are_refused(
    stores: tuple[Store, Store], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    other = create_store(tmp_path / "other", replace(OTHER, **changes))
    with pytest.raises(MismatchError, match=f"(?s){message}") as raised:
        Ensemble([stores[0], other])
    assert str(stores[0].path) in str(raised.value) and str(other.path) in str(raised.value)


def changed(path: Path, manifest: Manifest, **arrays: Any) -> Store:
    """A store of the first epoch in which functions have changed arrays of each shard."""
    store = create_store(path, manifest)
    for shard in range(store.num_shards):
        block = make_block(manifest, 0, shard)
        claim = claim_shard(store, 0, shard)
        assert claim is not None
        with claim:
            block = replace(block, **{name: change(getattr(block, name), shard) for name, change in arrays.items()})
            commit_shard(store, claim, block)
    return store


def flipped(row: int, shard: int) -> Any:
    """A function that changes one number of one shard."""

    def change(values: NDArray[np.uint32], number: int) -> NDArray[np.uint32]:
        values = values.copy()
        if number == shard:
            values[row] ^= 1
        return values

    return change


def test_other_seeds_are_refused_where_they_are_read(stores: tuple[Store, Store], tmp_path: Path) -> None:
    other = changed(tmp_path / "other", OTHER, seed=flipped(3, 2))
    ensemble = Ensemble([stores[0], other])
    ensemble.read(0, 0, 131)
    with pytest.raises(MismatchError, match="seed of the view at epoch 0, position 131 of two stores"):
        ensemble.read(0, 120, 140)


def test_other_pixels_are_refused_where_they_are_read(stores: tuple[Store, Store], tmp_path: Path) -> None:
    other = changed(tmp_path / "other", OTHER, witness=flipped(0, 2))
    ensemble = Ensemble([stores[0], other])
    ensemble.read(0, 0, 128)
    with pytest.raises(MismatchError, match=r"view at epoch 0, position 128 of two stores(?s:.*)CRC-32C"):
        ensemble.read(0, 120, 140)


def test_a_view_that_one_side_skipped_has_no_pixels_to_compare(stores: tuple[Store, Store], tmp_path: Path) -> None:
    skipped = {
        "index": lambda values, shard: np.where((np.arange(len(values)) == 0)[:, None], 65535, values).astype("u2"),
        "logp": lambda values, shard: np.where((np.arange(len(values)) == 0)[:, None], np.nan, values).astype("f2"),
        "tail": lambda values, shard: np.where(np.arange(len(values)) == 0, np.nan, values).astype("f2"),
    }
    other = changed(tmp_path / "other", OTHER, witness=flipped(0, 2), **skipped)
    mean = Ensemble([stores[0], other]).read(0, 100, 140)
    assert mean.weight[28] == 0 and mean.kept[28] == 0


def test_a_shard_that_one_side_lacks_is_refused(stores: tuple[Store, Store], tmp_path: Path) -> None:
    other = create_store(tmp_path / "other", OTHER)
    with pytest.raises(IncompleteError, match=str(other.path)):
        Ensemble([stores[0], other]).read(0, 0, 10)


def test_classes_are_matched_by_name(stores: tuple[Store, Store], tmp_path: Path) -> None:
    names = [f"class {i}" for i in (3, 1, 2, 0, 5, 4, 10, 9, 8, 7, 6)]
    other = write_store(tmp_path / "other", replace(OTHER, teacher={"name": "x", "class_names": names}))
    ensemble = Ensemble([stores[0], other])
    assert ensemble.class_names == stores[0].class_names
    theirs = np.empty((300, 11))
    theirs[:, [int(name.split()[1]) for name in names]] = dense(other.read(0, 0, 300), 11)
    whole = (dense(stores[0].read(0, 0, 300), 11) + theirs) / 2
    whole[stores[0].read(0, 0, 300).weight == 0] = 0
    np.testing.assert_allclose(dense(ensemble.read(0, 0, 300), 11), whole, rtol=3e-7, atol=1e-9)


def test_classes_without_names_keep_their_numbers(stores: tuple[Store, Store], tmp_path: Path) -> None:
    nameless = replace(OTHER, dataset={**SMALL.dataset, "class_names": None})
    other = write_store(tmp_path / "other", nameless)
    for members in ([other, stores[0]], [stores[0], other]):
        ensemble = Ensemble(members)
        assert ensemble.class_names == stores[0].class_names
        whole = sum(dense(store.read(0, 0, 50), 11) for store in members) / 2
        np.testing.assert_allclose(dense(ensemble.read(0, 0, 50), 11), whole, rtol=3e-7, atol=1e-9)


def dense_store(path: Path, manifest: Manifest = DENSE) -> Store:
    """A store of the first epoch that keeps all classes of each sample but one."""
    rank = np.arange(11)
    return changed(
        path,
        manifest,
        index=lambda index, _: np.where(index[:, :1] == 65535, index, (index[:, :1] + rank) % 11).astype(np.uint16),
        logp=lambda logp, _: (logp[:, :1] - rank / 8).astype(np.float16),
    )


def test_logits_are_the_mean_of_logits(tmp_path: Path) -> None:
    names = [f"class {i}" for i in (1, 0, *range(2, 11))]
    one = dense_store(tmp_path / "one")
    other = dense_store(tmp_path / "other", replace(DENSE, teacher={"name": "x", "class_names": names}))
    logits = [store.logits(0, 0, 260) for store in (one, other)]
    logits[1][:, [0, 1]] = logits[1][:, [1, 0]]
    found = Ensemble([one, other], [1, 3]).logits(0, 0, 260)
    np.testing.assert_allclose(found, 0.25 * logits[0] + 0.75 * logits[1], rtol=1e-6)
    assert np.isnan(found).all(1).sum() == np.isnan(found).any(1).sum() == 1


def test_logits_need_dense_stores(stores: tuple[Store, Store], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{stores[1].path} keeps the top 3"):
        Ensemble([dense_store(tmp_path / "dense"), stores[1]]).require_logits()
