"""What the producer shows, the consumer shows again, pixel for pixel, however the work is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from logitstore.errors import DecodeError, IncompleteError, InputError, MismatchError, ViewError, WitnessError
from logitstore.loader import ViewLoader, eval_batches
from logitstore.loader.batch import WITNESS_STEP
from logitstore.pcg import VisitOrder, view_seeds
from logitstore.store import WITNESS_EVERY, Store
from logitstore.views import Renderer, ViewSpec, centre_view, view_spec, witness
from tests.helpers import MemoryImages
from tests.loader_stores import CLASSES, FULL, PLAIN, RUN_SEED, SIZE, TOPK, by_position, dump


@pytest.fixture(scope="module")
def images() -> MemoryImages:
    """331 pictures: 5 whole shards and an odd rest."""
    return MemoryImages(331, labels=[i % CLASSES for i in range(331)], side=SIZE)


@pytest.fixture(scope="module")
def stored(images: MemoryImages, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return dump(tmp_path_factory.mktemp("full") / "store", images, FULL, epochs=2)


@pytest.fixture(scope="module")
def shown(images: MemoryImages) -> dict[int, tuple[object, ...]]:
    """What the producer shows in epoch 1."""
    return by_position(ViewLoader(images, FULL, run_seed=RUN_SEED, batch_size=64, workers=1).batches(1))


@pytest.mark.parametrize(
    ("batch_size", "workers", "world"),
    [
        *((64, 0, 1), (64, 3, 1), (32, 2, 1), (2, 2, 1), (331, 2, 1), (1000, 2, 1)),
        *((7, 2, 1), (1, 1, 1)),  # batches that cut pairs in two
        *((64, 1, 2), (96, 2, 8), (6, 0, 3)),
    ],
)
def test_every_dumped_view_is_reproduced(
    images: MemoryImages, stored: Store, shown: dict[int, tuple[object, ...]], batch_size: int, workers: int, world: int
) -> None:
    replayed: dict[int, tuple[object, ...]] = {}
    for rank in range(world):
        loader = ViewLoader(images, FULL, store=stored, batch_size=batch_size, workers=workers, rank=rank, world=world)
        part = by_position(loader.batches(1))
        assert not replayed.keys() & part.keys()
        replayed |= part
    assert sorted(replayed) == list(range(331))
    assert {position: values[:7] for position, values in replayed.items()} == shown
    for values in replayed.values():
        view = np.frombuffer(values[6], np.uint8).reshape(3, SIZE, SIZE)  # type: ignore[call-overload]
        code = witness(view)
        assert values[7] == tuple((code + 2 * k) % CLASSES for k in range(TOPK))


def test_views_are_those_of_order_seeds_renderer_and_mixing(
    images: MemoryImages, shown: dict[int, tuple[object, ...]]
) -> None:
    sample_B = VisitOrder(num_samples=331, run_seed=RUN_SEED, epoch=1).samples(np.arange(331))
    seed_B = view_seeds(RUN_SEED, 1, sample_B)
    renderer = Renderer(FULL)
    views = np.stack([renderer.render(images.pixels(s), int(seed)) for s, seed in zip(sample_B, seed_B, strict=True)])
    own_B = renderer.mix(views, seed_B).own_B
    assert images.labels is not None
    label_B = images.labels[sample_B]
    for position in range(331):
        other = min(position ^ 1, 330) if own_B[position] < 1 else position
        sample, seed, own, label, partner, weight, view = shown[position]
        assert (sample, seed) == (sample_B[position], seed_B[position])
        assert (own, label, partner, weight) == (own_B[position], label_B[position], label_B[other], 1.0)
        assert view == views[position].tobytes()
    assert (own_B < 1).sum() > 100 and own_B[330] == 1.0


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("spec", [PLAIN, FULL], ids=["plain", "full"])
def test_the_smallest_data_sets(tmp_path: Path, count: int, spec: ViewSpec) -> None:
    images = MemoryImages(count, side=SIZE)
    store = dump(tmp_path / "store", images, spec)
    produced = by_position(ViewLoader(images, spec, run_seed=RUN_SEED, batch_size=64, workers=1).batches(0))
    consumed = by_position(ViewLoader(images, spec, store=store, batch_size=2, workers=2).batches(0))
    assert len(consumed) == count and {p: v[:7] for p, v in consumed.items()} == produced
    assert all(v[3] == -1 and v[4] == -1 for v in produced.values())  # no labels


@pytest.mark.parametrize("start", [0, 64, 128, 320, 331, 17])
def test_resuming_gives_the_rest(images: MemoryImages, stored: Store, start: int) -> None:
    loader = ViewLoader(images, FULL, store=stored, batch_size=32, workers=2)
    whole, rest = by_position(loader.batches(1)), by_position(loader.batches(1, start))
    assert rest == {position: values for position, values in whole.items() if position >= start}
    assert loader.num_batches(start) == len(list(loader.batches(1, start)))


def test_an_incomplete_last_batch(images: MemoryImages, stored: Store) -> None:
    sizes = [len(batch) for batch in ViewLoader(images, FULL, store=stored, batch_size=100, workers=1).batches(0)]
    assert sizes == [100, 100, 100, 31]
    loader = ViewLoader(images, FULL, store=stored, batch_size=100, workers=1, drop_last=True)
    assert [len(batch) for batch in loader.batches(0)] == [100, 100, 100] and loader.num_batches() == 3
    small = ViewLoader(images, FULL, store=stored, batch_size=400, workers=1, drop_last=True)
    with pytest.raises(InputError, match="331 samples, fewer than one batch of 400"):
        next(iter(small.batches(0)))
    last = [
        list(ViewLoader(images, FULL, run_seed=1, batch_size=16, workers=0, rank=r, world=8).batches(0, 320))[-1]
        for r in range(8)
    ]
    assert [len(batch) for batch in last] == [0, 2, 2, 2, 0, 2, 2, 1]
    assert last[0].views_BCHW.shape == (0, 3, SIZE, SIZE)


def test_shuffled_shards_hold_the_same_views(images: MemoryImages, stored: Store) -> None:
    def loader(seed: int | None) -> ViewLoader:
        return ViewLoader(images, FULL, store=stored, batch_size=48, workers=2, shuffle_seed=seed)

    plain, shuffled = by_position(loader(None).batches(0)), by_position(loader(1).batches(0))
    assert list(plain) != list(shuffled) and plain == shuffled
    assert list(shuffled) != list(by_position(loader(2).batches(0)))
    assert list(shuffled) != list(by_position(loader(1).batches(0, visit=2)))
    assert list(by_position(loader(1).batches(0, 96))) == list(shuffled)[96:]
    assert list(shuffled)[320:] == list(range(320, 331))


def test_fewer_classes_on_reading(images: MemoryImages, stored: Store) -> None:
    batch = next(iter(ViewLoader(images, FULL, store=stored, batch_size=64, workers=1, topk=2).batches(0)))
    assert batch.records is not None and batch.records.index.shape == (64, 2)
    assert np.allclose(batch.records.prob.sum(1) + batch.records.tail, 1)


def test_bad_images_keep_their_positions(tmp_path: Path, images: MemoryImages) -> None:
    order = VisitOrder(num_samples=331, run_seed=RUN_SEED, epoch=0)
    bad = MemoryImages(331, bad=[order.samples(p).item() for p in (5, 64, 330)], side=SIZE)
    with pytest.raises(DecodeError, match="picture-"):
        list(ViewLoader(bad, FULL, run_seed=RUN_SEED, batch_size=32, workers=2).batches(0))
    batches = list(ViewLoader(bad, FULL, run_seed=RUN_SEED, batch_size=64, workers=2, skip_bad=True).batches(0))
    weight = np.concatenate([batch.weight_B for batch in batches])
    assert np.flatnonzero(weight == 0).tolist() == [4, 5, 64, 65, 330]
    names = [name for batch in batches for name in batch.bad]
    assert names == [bad.image_name(order.samples(p).item()) for p in (5, 64, 330)]
    fill = np.array(FULL.fill, np.uint8)[:, None, None]
    assert (batches[-1].views_BCHW[-1] == fill).all()

    store = dump(tmp_path / "store", bad, FULL, skip_bad=True)
    # Whether a bad image decodes by now or not, its record is empty and stops nothing.
    for now in (bad, MemoryImages(331, side=SIZE)):
        replayed = list(ViewLoader(now, FULL, store=store, batch_size=64, workers=2).batches(0))
        assert np.array_equal(np.concatenate([batch.weight_B for batch in replayed]), weight)
    lost = MemoryImages(331, bad=[*bad.bad, order.samples(100).item()], side=SIZE)
    with pytest.raises(DecodeError):
        list(ViewLoader(lost, FULL, store=store, batch_size=64, workers=2).batches(0))
    now = list(ViewLoader(lost, FULL, store=store, batch_size=64, workers=2, skip_bad=True).batches(0))
    assert np.flatnonzero(np.concatenate([b.weight_B for b in now]) == 0).tolist() == [4, 5, 64, 65, 100, 101, 330]


def test_without_mixing_a_bad_image_leaves_its_neighbour_alone() -> None:
    order = VisitOrder(num_samples=10, run_seed=1, epoch=0)
    images = MemoryImages(10, bad=[order.samples(5).item()], side=SIZE)
    (batch,) = ViewLoader(images, PLAIN, run_seed=1, batch_size=10, workers=0, skip_bad=True).batches(0)
    assert np.flatnonzero(batch.weight_B == 0).tolist() == [5]


class AlteredImages(MemoryImages):
    """Pictures with one value off by one, under the fingerprint of the true ones."""

    def pixels(self, i: int) -> NDArray[np.uint8]:
        return np.clip(super().pixels(i).astype(int) + 1, 0, 255).astype(np.uint8)


def test_a_view_that_differs_stops_training(images: MemoryImages, stored: Store) -> None:
    altered = AlteredImages(331, side=SIZE)
    order = stored.order(1)
    loader = ViewLoader(altered, FULL, store=stored, batch_size=32, workers=2)
    name = altered.image_name(order.samples(64).item())
    with pytest.raises(WitnessError, match=rf"The view of {name} at epoch 1, position 64 differs") as raised:
        list(loader.batches(1, 60))
    assert str(raised.value.stored).endswith("made with nonsense 1, numpy 0.9, python 3.1")
    assert f"made with nonsense none, numpy {np.__version__}, python 3." in str(raised.value.present)
    assert "install the stored versions" in raised.value.remedy
    unchecked = ViewLoader(altered, FULL, store=stored, batch_size=32, workers=2, check_witnesses=False)
    assert not unchecked.checks_witnesses and len(by_position(unchecked.batches(1))) == 331


def test_another_size_is_not_checked(images: MemoryImages, stored: Store) -> None:
    loader = ViewLoader(images, FULL, store=stored, batch_size=64, workers=2, size=32)
    assert not loader.checks_witnesses and loader.size == 32
    batch = next(iter(loader.batches(0)))
    assert batch.views_BCHW.shape == (64, 3, 32, 32) and len(batch.witness_J) == 0
    assert ViewLoader(images, FULL, store=stored, batch_size=64, workers=2, size=SIZE).checks_witnesses


def test_witnesses_are_those_of_every_64th_position(images: MemoryImages, stored: Store) -> None:
    batches = list(ViewLoader(images, FULL, run_seed=RUN_SEED, batch_size=48, workers=1).batches(0))
    positions = np.concatenate([batch.witness_position_J for batch in batches])
    crcs = np.concatenate([batch.witness_J for batch in batches])
    assert positions.tolist() == list(range(0, 331, 64))
    assert WITNESS_STEP == WITNESS_EVERY
    expected, stored_crcs = stored.witnesses(0, 0, 331)
    assert np.array_equal(positions, expected) and np.array_equal(crcs, stored_crcs)


def test_another_data_set_or_spec_is_refused(images: MemoryImages, stored: Store) -> None:
    def load(data: MemoryImages, spec: ViewSpec) -> None:
        ViewLoader(data, spec, store=stored, batch_size=64, workers=1)

    with pytest.raises(MismatchError, match=r"number of images .*\n  stored:  331\n  present: 330 in memory"):
        load(MemoryImages(330, side=SIZE), FULL)
    with pytest.raises(MismatchError, match="fingerprint of the data set"):
        load(MemoryImages(331, side=SIZE + 1), FULL)
    with pytest.raises(MismatchError, match=r"\(mixup\) differs.\n  stored:  mixup = 0.8\n  present: mixup = 0.2"):
        load(images, replace(FULL, mixup=0.2))


def test_an_absent_shard_stops_at_its_batch(tmp_path: Path, images: MemoryImages) -> None:
    store = dump(tmp_path / "store", images, PLAIN, shards=2)
    batches = ViewLoader(images, PLAIN, store=store, batch_size=32, workers=2).batches(0)
    for _ in range(4):
        next(batches)
    with pytest.raises(IncompleteError, match="epoch 0, shard 2"):
        next(batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either from a run seed or from a store"),
        ({"run_seed": 1, "batch_size": 0}, "--batch-size must be at least 1"),
        ({"run_seed": 1, "batch_size": 20, "world": 4}, "make --batch-size a multiple of 8"),
        ({"run_seed": 1, "rank": 2, "world": 2}, "Rank 2 does not exist among 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(images: MemoryImages, options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ViewLoader(images, PLAIN, **{"batch_size": 16, "workers": 1, **options})  # type: ignore[arg-type]


def test_a_failing_transform_names_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_transform.py").write_text("def view(image, rng):\n    return image[9999]\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = view_spec("broken_transform:view", size=SIZE)
    with pytest.raises(ViewError, match=r"No view of picture-0 could be made: .*IndexError"):
        list(ViewLoader(MemoryImages(1, side=SIZE), spec, run_seed=1, batch_size=2, workers=1).batches(0))


def test_ranges_follow_each_other_without_a_pause(images: MemoryImages) -> None:
    asked: list[int] = []

    def ranges() -> Iterator[tuple[int, int, int]]:
        for epoch, start, stop in [(0, 0, 64), (1, 128, 192), (0, 320, 331)]:
            asked.append(epoch)
            yield epoch, start, stop

    with ViewLoader(images, FULL, run_seed=1, batch_size=32, workers=2) as loader:
        batches = loader.chain(ranges())
        first = next(batches)
        assert asked[:2] == [0, 1]  # the second range is under way while the first is handed out
        found = [first, *batches]
        assert [(b.epoch, b.start, b.stop) for b in found] == [
            *((0, 0, 32), (0, 32, 64), (1, 128, 160), (1, 160, 192), (0, 320, 331))
        ]
        alone = [
            b
            for epoch, start, stop in [(0, 0, 64), (1, 128, 192), (0, 320, 331)]
            for b in loader.batches(epoch, start, stop)
        ]
        for one, other in zip(found, alone, strict=True):
            assert np.array_equal(one.views_BCHW, other.views_BCHW)


@pytest.mark.parametrize(("batch_size", "workers"), [(64, 0), (50, 3), (1000, 1)])
def test_evaluation_views(images: MemoryImages, batch_size: int, workers: int) -> None:
    batches = list(eval_batches(images, size=16, crop_pct=0.8, batch_size=batch_size, workers=workers))
    views = np.concatenate([batch.views_BCHW for batch in batches])
    assert np.array_equal(views, np.stack([centre_view(images.pixels(i), 16, 0.8) for i in range(331)]))
    assert np.array_equal(np.concatenate([batch.label_B for batch in batches]), images.labels)
    (part,) = eval_batches(images, size=16, crop_pct=1.0, batch_size=64, workers=workers, start=300, stop=340)
    assert part.start == 300 and len(part) == 31
    with pytest.raises(InputError, match="--batch-size"):
        eval_batches(images, size=16, crop_pct=1.0, batch_size=0, workers=workers)
    unlabelled = next(eval_batches(MemoryImages(3), size=16, crop_pct=1.0, batch_size=2, workers=0))
    assert unlabelled.label_B.tolist() == [-1, -1]
