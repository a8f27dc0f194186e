"""Smaller stores made of dense ones, and a live teacher: both against what ``dump`` and ``train`` do by themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from framework_cases import command_line
from quality_cases import SUBSET, TEACHER, make_store, make_teacher

from benchmarks.framework.launch import Step
from benchmarks.quality_parts.live import heard, with_live_teacher
from benchmarks.quality_parts.protocol import COMMANDS
from benchmarks.quality_parts.recut import Kept, dense_logits, recut, weigh
from benchmarks.stores import store_bytes
from logitstore.cuts import Cut
from logitstore.errors import InputError, MismatchError
from logitstore.images import open_images
from logitstore.loader import ViewLoader, as_dumped, stored_spec
from logitstore.store import Store, open_store, verify_store
from logitstore.teacher import load_teacher
from logitstore.train import TrainConfig, train


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Store:
    return make_store(tmp_path_factory.mktemp("dense") / "store", teacher)


def probabilities(dense: Store) -> np.ndarray:
    """float64 [records, C] of all epochs, in the order of positions."""
    shards = [dense_logits(dense, epoch, shard) for epoch in range(2) for shard in range(dense.num_shards)]
    prob = np.exp(np.concatenate(shards).astype(np.float64))
    return prob / prob.sum(1, keepdims=True)


def test_the_teacher_is_neither_flat_nor_certain(dense: Store) -> None:
    first = probabilities(dense).max(1)
    assert 0.3 < first.mean() < 0.95 and first.std() > 0.05


@pytest.mark.parametrize(
    ("cut", "rounding"),
    [(Cut(topk=3, values="f16"), 2e-3), (Cut(topk=10, floor=0.05), 0.13), (Cut(topk=1), 0.13)],
    ids=["top3-f16", "floor-q8", "top1-q8"],
)
def test_a_store_that_is_cut_holds_what_a_dump_writes(
    tmp_path: Path, dense: Store, teacher: str, cut: Cut, rounding: float
) -> None:
    made = recut(dense, tmp_path / "cut", cut)
    dumped = make_store(tmp_path / "dumped", teacher, topk=cut.topk, floor=cut.floor, values=cut.values)
    assert made.complete and verify_store(made.path).ok
    assert made.store_id == dumped.store_id, "what the store is does not depend on how it was made"
    for epoch in range(2):
        ours, theirs = made.read(epoch, 0, SUBSET), dumped.read(epoch, 0, SUBSET)
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.seed, theirs.seed)
        there = theirs.prob > 0
        apart = np.abs(np.log(ours.prob[there]) - np.log(theirs.prob[there]))
        assert apart.max() <= 2 * rounding, "a code may fall to the other side, the tail's too"
        assert (apart < 1e-2).mean() > 0.9
        np.testing.assert_array_equal(made.witnesses(epoch, 0, SUBSET)[1], dumped.witnesses(epoch, 0, SUBSET)[1])


def test_a_cut_that_was_stopped_is_completed(tmp_path: Path, dense: Store) -> None:
    whole = recut(dense, tmp_path / "whole", Cut(topk=2))
    recut(dense, tmp_path / "stopped", Cut(topk=2))
    (tmp_path / "stopped" / "commits" / "0001.00001.json").unlink()
    assert not open_store(tmp_path / "stopped").complete
    again = recut(dense, tmp_path / "stopped", Cut(topk=2))
    assert again.complete
    for epoch in range(2):
        np.testing.assert_array_equal(again.read(epoch, 0, SUBSET).prob, whole.read(epoch, 0, SUBSET).prob)
    with pytest.raises(MismatchError):
        recut(dense, tmp_path / "stopped", Cut(topk=3))


def test_fewer_epochs_are_the_first_ones(tmp_path: Path, dense: Store) -> None:
    one = recut(dense, tmp_path / "one", Cut(topk=10, values="f16"), epochs=1)
    assert one.num_epochs == 1 and one.complete
    np.testing.assert_allclose(one.read(0, 0, SUBSET).prob, dense.read(0, 0, SUBSET).prob, rtol=2e-3)


def test_only_dense_stores_are_cut(tmp_path: Path, dense: Store) -> None:
    small = recut(dense, tmp_path / "small", Cut(topk=2))
    with pytest.raises(InputError, match="does not hold all classes"):
        recut(small, tmp_path / "smaller", Cut(topk=1))


def test_a_store_is_weighed_against_all_that_the_teacher_said(tmp_path: Path, dense: Store, teacher: str) -> None:
    cut = recut(dense, tmp_path / "cut", Cut(topk=10, floor=0.1))
    found = weigh(cut, dense)
    dense_NC = probabilities(dense)
    decoded_NC = np.empty_like(dense_NC)
    for epoch in range(2):  # the plain way, class by class
        read = cut.read(epoch, 0, SUBSET)
        for row in range(SUBSET):
            kept = int(read.kept[row])
            line = np.full(10, read.tail[row] / max(10 - kept, 1), np.float64)
            line[read.index[row, :kept]] = read.prob[row, :kept]
            decoded_NC[epoch * SUBSET + row] = line / line.sum()
    kl = (dense_NC * np.log(dense_NC / decoded_NC)).sum(1).mean()
    assert found["kl"] == pytest.approx(kl, rel=1e-5) and kl > 1e-3
    kept_NC = (dense_NC >= 0.1) | (dense_NC == dense_NC.max(1, keepdims=True))
    assert found["mean_kept"] == pytest.approx(kept_NC.sum(1).mean(), rel=1e-2)
    assert found["kept_mass"] == pytest.approx((dense_NC * kept_NC).sum(1).mean(), rel=1e-2)
    assert found["bytes_per_record"] * 2 * SUBSET == pytest.approx(store_bytes(tmp_path / "cut")[0])
    other = make_store(tmp_path / "other", teacher, seed=1)
    with pytest.raises(InputError, match="same views"):
        weigh(cut, other)


def test_k_and_floor_are_found_by_the_mass_they_keep(dense: Store) -> None:
    views = Kept.of(dense)
    sorted_NC = -np.sort(-probabilities(dense)[:SUBSET], axis=1)
    for mass in (0.3, 0.8, 0.95, 1.0):
        topk = views.topk(mass)
        held = [sorted_NC[:, :k].sum(1).mean() for k in range(1, 11)]
        assert held[topk - 1] >= mass - 1e-9 and (topk == 1 or held[topk - 2] < mass)
    floor = views.floor(0.9)

    def held_above(least: float) -> float:
        return float(np.maximum(np.where(sorted_NC >= least, sorted_NC, 0).sum(1), sorted_NC[:, 0]).mean())

    assert 0 < floor < 0.5 and held_above(floor) >= 0.9 > held_above(floor * 1.11)


def test_the_commands_cut_and_weigh(tmp_path: Path, dense: Store, capsys: pytest.CaptureFixture[str]) -> None:
    main = command_line(Step(name="any", words=(), module=COMMANDS)).main
    out = str(tmp_path / "cut")
    main(["cut", str(dense.path), out, "--topk-mass", "0.8", "--json"], standalone_mode=False)
    made = json.loads(capsys.readouterr().out)
    assert made["topk"] == Kept.of(dense).topk(0.8) and made["kept_mass"] > 0.8 > made["kept_mass"] - 0.2
    main(["weigh", out, str(dense.path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == made


def student(out: Path, store: Store) -> TrainConfig:
    return TrainConfig(
        student="test_vit", store=str(store.path), epochs=4, batch_size=32, out=str(out), log_steps=1,
        tensorboard=False, workers=1, seed=5,
    )  # fmt: skip


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["group"] == "train"]


def test_a_live_teacher_says_what_the_dense_store_holds(tmp_path: Path, dense: Store, teacher: str) -> None:
    train(student(tmp_path / "dense", dense))
    train(student(tmp_path / "live", dense), opener=with_live_teacher(TEACHER, teacher))
    stored, live = losses(tmp_path / "dense"), losses(tmp_path / "live")
    assert len(stored) == len(live) == 24 and stored != live
    np.testing.assert_allclose(stored, live, rtol=1e-3)
    assert live[-1] < 0.97 * live[0], "the student did not learn, so equality would mean little"
    said = (tmp_path / "live" / "run.yaml").read_text()
    assert "targets: live teacher" in said and dense.manifest.teacher["sha256"] in said
    with pytest.raises(MismatchError, match="live_teacher"):
        train(student(tmp_path / "live", dense))


def test_the_live_teachers_records_are_its_softmax(dense: Store, teacher: str, tmp_path: Path) -> None:
    config = student(tmp_path, dense)
    feed = with_live_teacher(TEACHER, teacher)(config, config.effective_recipe())
    with (
        feed.loader,
        ViewLoader(feed.images, stored_spec(dense, flippable=False), store=dense, batch_size=32, workers=0) as loader,
    ):
        batch, seen = next(feed.batches(1)), next(loader.batches(1))
    assert batch.records is not None
    np.testing.assert_array_equal(batch.views_BCHW, seen.views_BCHW)
    spoken = load_teacher(TEACHER, checkpoint=teacher, size=32, device="cpu").logits(seen.views_BCHW)
    expected = torch.softmax(spoken.double(), 1).gather(1, torch.from_numpy(batch.records.index.astype(np.int64)))
    np.testing.assert_allclose(batch.records.prob, expected.numpy(), atol=1e-6)
    assert (np.diff(batch.records.prob, axis=1) <= 0).all() and not batch.records.tail.any()


def test_the_dense_store_is_compared_with_the_teacher_before_rounding(dense: Store, teacher: str) -> None:
    spoken = load_teacher(TEACHER, checkpoint=teacher, size=32, device="cpu")
    found = heard(dense, spoken, open_images("digits"), views=96, workers=1)
    stored = dense.read(0, 0, 96)
    images = as_dumped(dense, open_images("digits"))
    with ViewLoader(images, stored_spec(dense, flippable=False), store=dense, batch_size=96, workers=0) as loader:
        said_BC = spoken.logits(next(loader.batches(0)).views_BCHW).double().log_softmax(1).numpy()
    logp_BK = np.take_along_axis(said_BC, stored.index.astype(np.int64), axis=1)
    prob_BK = stored.prob / stored.prob.sum(1, keepdims=True, dtype=np.float64)
    kl = (np.exp(logp_BK) * (logp_BK - np.log(prob_BK))).sum(1).mean()
    assert found["views"] == 96 and found["kl"] == pytest.approx(kl, rel=1e-2)
    assert 1e-10 < found["kl"] < 1e-5, "float16 loses little, but not nothing"


def test_another_teacher_than_the_stores_is_refused(dense: Store, tmp_path: Path) -> None:
    other = make_teacher(tmp_path / "other.safetensors", seed=4)
    with pytest.raises(MismatchError, match="teacher of the store"):
        train(student(tmp_path / "live", dense), opener=with_live_teacher(TEACHER, other))
