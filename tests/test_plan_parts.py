"""The arithmetic behind a plan: weights, fronts, errors, epochs, and qualities against plain twins."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dump_cases import config, write_data
from hypothesis import given
from hypothesis import strategies as st
from plan_cases import made_sample, plan_config

from logitstore.convert import ConvertConfig, convert
from logitstore.cuts import Cut
from logitstore.dump import dump
from logitstore.errors import DataError, DecodeError
from logitstore.inference import Inference, open_views
from logitstore.plan.epochs import enough_epochs, storings
from logitstore.plan.grid import Scales, front
from logitstore.plan.weigh import Weight, weigh, write_epoch
from logitstore.sampling import draw_sample, with_interval
from logitstore.store import choose_chunk_size, create_store, decode_records, open_store
from tests.store_cases import SMALL


def manifest_of(cut: Cut, num_samples: int, shard_size: int = 1024) -> Any:
    return replace(
        SMALL, num_samples=num_samples, num_epochs=3, num_classes=30, topk=cut.topk, floor=cut.floor, values=cut.values,
        shard_size=shard_size, chunk_size=choose_chunk_size(shard_size, cut.topk, num_classes=30),
    )  # fmt: skip


@pytest.mark.parametrize("cut", [Cut(topk=5), Cut(topk=30, floor=1e-3), Cut(topk=30, values="f16")], ids=str)
def test_a_small_sample_weighs_as_a_large_store(cut: Cut, tmp_path: Path) -> None:
    """Metadata and commits are told apart from records: what 500 views say holds for 18,000."""
    records = cut.records(made_sample(1500).dense().logits_NC)
    planned = manifest_of(cut, num_samples=6000)
    foretold = weigh(planned, {name: array[:500] for name, array in records.items()}, 4, "standard")
    store = create_store(tmp_path / "store", planned)
    for epoch in range(3):
        write_epoch(store, epoch, records)
    actual = sum(size for _, size in store.objects.walk())
    assert actual <= foretold.total(3) <= 1.1 * actual  # chunks of 500 records compress a little worse
    assert foretold.bytes_per_record(3) == pytest.approx(foretold.total(3) / 18_000)
    assert weigh(planned, records, 4, "standard").total(3) == pytest.approx(actual, rel=0.01)


@pytest.mark.parametrize("cut", [Cut(topk=5), Cut(topk=30, floor=1e-3), Cut(topk=10, values="f16")], ids=str)
def test_packed_stores_are_foretold_from_a_few_epochs(cut: Cut, tmp_path: Path) -> None:
    """Six views of 400 images, of which epoch 4 is like all that follow; a store of them has seven epochs."""
    planned = manifest_of(cut, num_samples=400, shard_size=512)
    sample = made_sample(400, views=7)
    five = sample.logits_SVC[:, :5].reshape(2000, -1)
    foretold = weigh(planned, cut.records(five), 5, "packed")
    assert len(foretold.per_record) == 5 and foretold.per_record[0] > foretold.per_record[4]
    standard = create_store(tmp_path / "standard", replace(planned, num_epochs=7))
    for epoch in range(7):
        write_epoch(standard, epoch, cut.records(sample.logits_SVC[:, epoch]))
    convert(ConvertConfig(store=str(standard.path), out=str(tmp_path / "packed")))
    actual = open_store(tmp_path / "packed").info()["bytes"]
    assert foretold.total(7) == pytest.approx(actual, rel=0.03)
    assert foretold.total(7) < weigh(planned, cut.records(five), 5, "standard").total(7)


@pytest.mark.parametrize("codec", ["standard", "packed"])
@pytest.mark.parametrize(("images", "views"), [(1, 1), (1, 2), (2, 1), (7, 9), (65, 1)])
def test_any_number_of_records_can_be_weighed(images: int, views: int, codec: Any) -> None:
    cut = Cut(topk=4)
    records = cut.records(made_sample(images, views).dense().logits_NC)
    weight = weigh(manifest_of(cut, num_samples=10_000), records, views, codec)
    assert weight.per_record[-1] > 2 and weight.total(3) > weight.total(1) > weight.fixed > 1000


def test_epochs_beyond_the_sample_weigh_as_its_last() -> None:
    weight = Weight(fixed=1000, per_shard=10, per_record=(9.0, 5.0), num_samples=100, shard_size=64)
    assert [weight.total(epochs) for epochs in (1, 2, 4)] == [1920, 2440, 3480]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=20))
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    def weighing(size: int) -> Weight:
        return Weight(fixed=0, per_shard=0, per_record=(size,), num_samples=1, shard_size=1)

    codecs = ("standard", "packed")
    rows: list[Any] = [
        SimpleNamespace(codec=codec, weight=weighing(size), kl=kl) for size, kl in points for codec in codecs
    ]
    found = [(row.weight.per_record[0], row.kl) for row in front(rows, 1)]
    best = set(found)
    assert sorted(found) == sorted([*best, *best])  # once for each codec
    beaten = {
        (size, kl) for size, kl in points
        if any(s <= size and k <= kl and (s, k) != (size, kl) for s, k in points)
    }  # fmt: skip
    assert best == set(points) - beaten


@pytest.mark.parametrize("cut", [Cut(topk=6), Cut(topk=30, floor=0.02, values="q2"), Cut(topk=9, mass=0.7)], ids=str)
def test_qualities_are_those_of_their_definitions(cut: Cut) -> None:
    sample = made_sample()
    scales = Scales(sample, ["standard", "standard"])
    (row,) = scales.measure(cut, manifest_of(cut, num_samples=500))
    dense = scales.dense
    records = cut.records(dense.logits_NC)
    index, prob, tail = decode_records(records["index"], records["logp"], records["tail"], values=cut.values)
    mass, first, five, kept = [], [], [], []
    for logits, classes, probs, rest in zip(dense.logits_NC.astype(np.float64), index, prob, tail, strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        there = [int(c) for c in classes if c < 30]
        decoded = np.full(30, rest / max(1, 30 - len(there)))
        decoded[there] = probs[: len(there)]
        mass.append(p[there].sum())
        first.append(decoded.argmax() == p.argmax())
        five.append(len(set(np.argsort(-p)[:5]) & set(there)) / 5)
        kept.append(len(there))
    assert row.kept_mass == pytest.approx(np.mean(mass)) and row.mean_kept == pytest.approx(np.mean(kept))
    assert row.top1 == np.mean(first) and row.top5 == pytest.approx(np.mean(five))
    assert row.kl == pytest.approx(dense.kl(index, prob, tail).mean())
    if cut.values == "q2":
        assert row.top1 < 1  # equal codes


def test_the_error_of_a_mean_counts_images_not_views() -> None:
    sample = made_sample(images=40, views=4)
    value = np.random.default_rng(1).standard_normal((40, 1)) + np.zeros((40, 4))  # all views of an image alike
    found = sample.standard_error(value.reshape(-1))
    assert found == pytest.approx(value[:, 0].std(ddof=1) / math.sqrt(40))
    assert made_sample(images=1).standard_error(np.zeros(4)) is None


@pytest.mark.parametrize(
    ("training", "stored"),
    [(300, [1, 38, 75, 100, 150, 300]), (8, [1, 2, 3, 4, 8]), (2, [1, 2]), (1, [1])],
)
def test_epochs_to_store(training: int, stored: list[int]) -> None:
    weight = Weight(fixed=1e6, per_shard=1e3, per_record=(40,), num_samples=36_000, shard_size=4096)
    found = storings(training, weight, views_per_second=10.0)
    assert [storing.epochs for storing in found] == stored
    for storing in found:
        assert storing.hours == pytest.approx(storing.epochs)
        assert storing.gigabytes == pytest.approx((1e6 + storing.epochs * (9e3 + 1.44e6)) / 1e9)
        assert storing.times_seen * storing.epochs == pytest.approx(training)
        assert storing.saved == pytest.approx(1 - storing.epochs / training)
        assert storing.measured == (storing.epochs >= max(50, enough_epochs(training)))


def inference_of(folder: Path, **options: Any) -> Inference:
    given = plan_config(folder, **options)
    return Inference(given, *open_views(given), lambda _: None)


def test_a_sample_of_everything_is_what_a_dense_dump_stores(tmp_path: Path) -> None:
    sample = draw_sample(inference_of(tmp_path), sample=600, views=2, run_seed=11)
    whole: dict[str, Any] = {"topk": 12, "values": "f16", "logz": True, "floor": 0.0}
    store = open_store(dump(config(tmp_path, **whole)).store)
    for epoch in range(2):
        order = store.order(epoch).samples(np.arange(300))
        np.testing.assert_allclose(store.logits(epoch, 0, 300), sample.logits_SVC[order, epoch], rtol=2e-3, atol=6e-3)
    assert sample.skipped == 0 and sample.views_per_second > 0 and sample.teacher_views_per_second > 0


def test_a_sample_is_spaced_evenly_over_the_images(tmp_path: Path) -> None:
    """Ten of 300 pictures, in the data set's order, each under three views."""
    sample = draw_sample(inference_of(tmp_path), sample=28, views=3, run_seed=11)
    data = np.load(tmp_path / "data.npz")
    few = tmp_path / "few.npz"
    np.savez(few, images=data["images"][::30], labels=data["labels"][::30])
    again = draw_sample(inference_of(tmp_path, data=str(few)), sample=30, views=3, run_seed=11)
    assert sample.logits_SVC.shape == (10, 3, 12)
    np.testing.assert_allclose(sample.logits_SVC, again.logits_SVC, rtol=1e-5, atol=1e-5)


def damaged_folder(folder: Path, bad: set[int]) -> Path:
    """Twelve JPEGs in a folder; the middle of some is cut away, which their head and tail do not show."""
    from io import BytesIO

    from PIL import Image

    write_data(folder / "twelve.npz", 12)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(np.load(folder / "twelve.npz")["images"]):
        buffer = BytesIO()
        Image.fromarray(pixels).resize((64, 64)).save(buffer, "JPEG")
        data = buffer.getvalue()
        if number in bad:
            data = data[:160] + data[-2:]
        (pictures / f"{number:02}.jpg").write_bytes(data)
    return pictures


def test_images_that_do_not_decode(tmp_path: Path) -> None:
    options = {"data": str(damaged_folder(tmp_path, {1, 7})), "view": "crop_flip"}
    with pytest.raises((DecodeError, DataError), match=r"01\.jpg"):
        draw_sample(inference_of(tmp_path, **options), sample=24, views=2, run_seed=0)
    sample = draw_sample(inference_of(tmp_path, **options), sample=24, views=2, run_seed=0, skip_bad=True)
    assert (sample.images, sample.skipped) == (10, 2)
    assert np.isfinite(sample.logits_SVC).all()


@pytest.mark.parametrize(
    ("mean", "error", "words"),
    [
        pytest.param(0.0293, 0.0006, "0.0293 ± 0.0012", id="four decimals"),
        pytest.param(8.812e-8, 1.8e-9, "0.0000000881 ± 0.0000000035", id="tiny"),
        pytest.param(0.0, None, "0.0000", id="nothing"),
    ],
)
def test_a_mean_is_written_with_digits_that_tell(mean: float, error: float | None, words: str) -> None:
    assert with_interval(mean, error) == words
