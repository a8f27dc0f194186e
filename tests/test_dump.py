"""What a dump writes, and that nothing but the manifest decides it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dump_cases import CLASSES, config, snapshot, write_data

from logitstore.cards import Card, save_model
from logitstore.dump import DumpConfig, DumpResult, dump
from logitstore.errors import InputError, MismatchError, ModelError, NonFiniteError
from logitstore.images import open_images
from logitstore.loader import ViewLoader, stored_spec
from logitstore.models import build_model, default_preprocessing, model_name
from logitstore.pcg import VisitOrder, view_seeds
from logitstore.progress import Progress
from logitstore.recheck import VerifyConfig, dense, verify
from logitstore.store import open_store
from logitstore.teacher import load_teacher


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DumpResult]:
    """A folder with data and a store that one uninterrupted run made."""
    folder = tmp_path_factory.mktemp("dump")
    return folder, dump(config(folder))


def test_result_says_what_was_done(reference: tuple[Path, DumpResult]) -> None:
    folder, result = reference
    assert result.complete
    assert (result.shards, result.records, result.skipped) == (10, 600, 0)
    assert result.in_progress == ()
    info = open_store(folder / "store").info()
    assert info["complete"]
    assert result.bytes_per_record == info["bytes_per_record"]


def test_records_are_what_the_teacher_says_of_the_views(reference: tuple[Path, DumpResult]) -> None:
    """Order, seeds, classes, masses and tail of every record, from a loader and a teacher of the test's own."""
    folder, _ = reference
    store, images = open_store(folder / "store"), open_images(str(folder / "data.npz"))
    spec = stored_spec(store)
    assert spec.mixes
    teacher = load_teacher("dump_cases:teacher", size=16, device="cpu")
    for epoch in range(2):
        batch = next(ViewLoader(images, spec, run_seed=11, batch_size=300, workers=2).batches(epoch))
        records = store.read(epoch, 0, 300)
        order = VisitOrder(num_samples=300, run_seed=11, epoch=epoch)
        assert np.array_equal(records.sample, order.samples(np.arange(300)))
        assert np.array_equal(records.seed, view_seeds(11, epoch, records.sample))
        probability = torch.softmax(teacher.logits(batch.views_BCHW).double(), 1).numpy()
        expected = np.sort(probability, 1)[:, ::-1][:, :5]
        kept = np.where(expected >= 1e-3, expected, 0)
        assert np.allclose(records.prob, kept, atol=0.07)  # steps of 1/8 nat
        assert np.allclose(records.prob.sum(1) + records.tail, 1, atol=1e-6)
        positions, witnesses = store.witnesses(epoch, 0, 300)
        assert np.array_equal(positions, batch.witness_position_J)
        assert np.array_equal(witnesses, batch.witness_J)


def test_consumer_sees_the_dumped_views(reference: tuple[Path, DumpResult]) -> None:
    """Batch size, ranks and workers change, the pixels do not; witnesses are compared on the way."""
    folder, _ = reference
    store, images = open_store(folder / "store"), open_images(str(folder / "data.npz"))
    spec = stored_spec(store)
    dumped = next(ViewLoader(images, spec, run_seed=11, batch_size=300, workers=0).batches(1)).views_BCHW
    for batch_size, workers, world in ((2, 1, 1), (48, 3, 2), (300, 2, 1)):
        seen = np.zeros_like(dumped)
        for rank in range(world):
            loader = ViewLoader(
                images, spec, store=store, batch_size=batch_size, workers=workers, rank=rank, world=world
            )
            assert loader.checks_witnesses
            for batch in loader.batches(1):
                seen[batch.position_B] = batch.views_BCHW
        assert np.array_equal(seen, dumped)


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([{"workers": 4}], id="four workers"),
        pytest.param([{"start_epoch": 1}, {}], id="second epoch first"),
        pytest.param([{"epochs": 1}, {"epochs": 2}], id="one epoch more later"),
        pytest.param([{}, {}], id="the same again"),
    ],
)
def test_stores_are_byte_identical(
    reference: tuple[Path, DumpResult], runs: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    folder, _ = reference
    name = request.node.name
    for options in runs:
        result = dump(config(folder, name, **options))
    assert result.complete
    assert snapshot(folder / name) == snapshot(folder / "store")


def test_a_finished_store_is_left_alone(reference: tuple[Path, DumpResult]) -> None:
    folder, _ = reference
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*")}
    result = dump(config(folder))
    assert result.complete
    assert result.shards == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*")} == before


def test_start_epoch_makes_only_later_epochs(tmp_path: Path) -> None:
    assert dump(config(tmp_path, epochs=4, start_epoch=3)).complete
    assert open_store(tmp_path / "store").complete_epochs() == [3]


def test_another_inference_batch_changes_only_the_teachers_rounding(tmp_path: Path) -> None:
    """A transformer from a checkpoint, dense stores: order, seeds and witnesses equal, mean KL at most 1e-6."""
    model = build_model("test_vit", num_classes=CLASSES, size=32, seed=5)
    weights = tmp_path / "model.safetensors"
    card = Card(
        model=model_name("test_vit"),
        model_args={"img_size": 32},
        num_classes=CLASSES,
        size=32,
        preprocessing=default_preprocessing(model),
    )
    save_model(weights, {name: 4 * tensor for name, tensor in model.state_dict().items()}, card)
    options: dict[str, Any] = {"teacher": "test_vit", "checkpoint": str(weights), "size": 32, "epochs": 1}
    options |= {"topk": CLASSES, "floor": 0.0, "values": "f16", "logz": True}
    for name, batch_size in (("large", 64), ("small", 4)):
        dump(config(tmp_path, name, batch_size=batch_size, **options))
    large, small = (open_store(tmp_path / name).read(0, 0, 300) for name in ("large", "small"))
    assert np.array_equal(large.sample, small.sample)
    assert np.array_equal(large.seed, small.seed)
    first, second = (open_store(tmp_path / name).witnesses(0, 0, 300)[1] for name in ("large", "small"))
    assert np.array_equal(first, second)
    p_BC, q_BC = (dense(records.index, records.prob, records.tail, CLASSES) for records in (large, small))
    assert float((p_BC * np.log(p_BC / q_BC)).sum(1).mean()) <= 1e-6
    assert p_BC.std(0).max() > 0.01  # the views are told apart at all
    assert np.all(small.tail == 0)
    assert large.logz is not None


def test_a_store_comes_back_as_logits(tmp_path: Path) -> None:
    dump(config(tmp_path, topk=CLASSES, floor=0.0, values="f16", logz=True, epochs=1))
    store = open_store(tmp_path / "store")
    records = store.read(0, 0, 300)
    images = open_images(str(tmp_path / "data.npz"))
    batch = next(ViewLoader(images, stored_spec(store), store=store, batch_size=300, workers=1).batches(0))
    logits_BC = load_teacher("dump_cases:teacher", size=16, device="cpu").logits(batch.views_BCHW).numpy()
    assert records.logz is not None
    restored = np.log(records.prob) + records.logz[:, None]
    assert np.allclose(restored, np.take_along_axis(logits_BC, records.index.astype(int), 1), atol=5e-3)


@pytest.mark.parametrize(("values", "step"), [("q4", 1 / 4), ("q2", 1 / 2)])
def test_coarser_values_keep_the_same_classes(
    tmp_path: Path, reference: tuple[Path, DumpResult], values: Any, step: float
) -> None:
    """Stored codes are those of the teacher's log-probabilities, its first class stays first, tied classes behind
    it are in order, and the store verifies."""
    dump(config(tmp_path, values=values, epochs=1))
    coarse, fine = open_store(tmp_path / "store"), open_store(reference[0] / "store")
    info = verify(
        VerifyConfig(store=str(coarse.path), data=str(tmp_path / "data.npz"), teacher="dump_cases:teacher", workers=2)
    )
    assert info.ok and info.kl is not None and info.kl <= 1e-6
    records, expected = coarse.read(0, 0, 300), fine.read(0, 0, 300)
    assert np.array_equal(np.sort(records.index, 1), np.sort(expected.index, 1))
    block, finer = coarse.block(0, 0), fine.block(0, 0)
    assert np.array_equal(block.index[:, 0], finer.index[:, 0]) and (np.diff(block.logp.astype(int)) >= 0).all()
    ranks = block.logp.astype(int) * 65_536 + block.index
    assert (np.diff(ranks[:, 1:], axis=1)[block.logp[:, 2:] != 255] > 0).all()
    by_class, finer_by_class = np.argsort(block.index, 1), np.argsort(finer.index, 1)
    code, finer_code = (
        np.take_along_axis(array, order, 1).astype(float)
        for array, order in ((block.logp, by_class), (finer.logp, finer_by_class))
    )
    there = code != 255
    assert (np.abs(step * code - finer_code / 8)[there] <= step / 2 + 1 / 16).all() and there.mean() > 0.5


def _other_data(folder: Path) -> dict[str, Any]:
    return {"data": str(write_data(folder / "other.npz", first=1000))}


def _other_order(folder: Path) -> dict[str, Any]:
    with np.load(folder / "data.npz") as arrays:
        np.savez(folder / "reversed.npz", images=arrays["images"][::-1], labels=arrays["labels"][::-1])
    return {"data": str(folder / "reversed.npz")}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(_other_data, "dataset.fingerprint", id="another data set"),
        pytest.param(_other_order, "dataset.fingerprint", id="another order"),
        pytest.param(lambda _: {"view": "crop_flip"}, "view.", id="another view"),
        pytest.param(lambda _: {"size": 20}, "view.size", id="another size"),
        pytest.param(lambda _: {"seed": 12}, "run_seed", id="another seed"),
        pytest.param(lambda _: {"topk": 4}, "topk", id="another K"),
        pytest.param(lambda _: {"floor": 0.01}, "floor", id="another floor"),
        pytest.param(lambda _: {"mass": 0.9}, "mass", id="another mass"),
        pytest.param(lambda _: {"gain": 0.01}, "gain", id="another gain"),
        pytest.param(lambda _: {"values": "f16"}, "values", id="other values"),
        pytest.param(lambda _: {"batch_size": 16}, "inference.batch_size", id="another batch"),
        pytest.param(lambda _: {"dtype": "bfloat16"}, "inference.dtype", id="another dtype"),
        pytest.param(lambda _: {"teacher": "dump_cases:broken_teacher"}, "teacher.name", id="another teacher"),
        pytest.param(lambda _: {"subset": 100}, "dataset.count", id="a subset"),
    ],
)
def test_another_store_at_the_path_is_refused(
    reference: tuple[Path, DumpResult], change: Callable[[Path], dict[str, Any]], named: str
) -> None:
    """Both sides are shown, and not a byte is written."""
    folder, _ = reference
    before = snapshot(folder / "store")
    with pytest.raises(MismatchError) as caught:
        dump(replace(config(folder), **change(folder)))
    assert named in str(caught.value)
    assert caught.value.stored != caught.value.present
    assert snapshot(folder / "store") == before


def test_nan_stops_the_dump(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="epoch 0, positions"):
        dump(config(tmp_path, teacher="dump_cases:broken_teacher"))
    assert not open_store(tmp_path / "store").committed()
    assert not list(tmp_path.rglob("*.claim*"))


def test_topk_is_clamped_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump(config(tmp_path, topk=100, epochs=1), Progress)
    assert open_store(tmp_path / "store").topk == CLASSES
    assert f"--topk 100 is more than there are classes: all {CLASSES} are kept." in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 3, 63, 65])
def test_any_number_of_samples(tmp_path: Path, count: int) -> None:
    write_data(tmp_path / "data.npz", count, labels=False)
    assert dump(config(tmp_path)).records == 2 * count
    assert len(open_store(tmp_path / "store").read(1, 0, count)) == count


def test_defaults_of_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = dump(DumpConfig(teacher="train_cases:pooled_teacher", subset=40))
    store = open_store(result.store)
    assert result.store == "runs/dump/train_cases_pooled_teacher-digits"
    assert (store.num_epochs, store.topk, store.manifest.view["size"], store.manifest.view["hflip"]) == (4, 10, 32, 0)
    assert (store.manifest.values, store.manifest.floor, store.manifest.shard_size) == ("q8", 1e-3, 256)
    assert store.manifest.inference["batch_size"] == (256 if torch.cuda.is_available() else 64)


def test_no_weights_for_digits_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="logitstore finetune --teacher swin_t"):
        dump(DumpConfig(teacher="swin_t"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 0}, "--topk"),
        ({"workers": 0}, "--workers"),
        ({"floor": 1.0}, "--floor"),
        ({"mass": 0.0}, "--mass"),
        ({"gain": -0.1}, "--gain"),
        ({"gain": float("nan")}, "--gain"),
        ({"values": "f8"}, "--values"),
        ({"data": "/data/imagenet"}, "--epochs is required"),
        ({"start_epoch": 4}, "--start-epoch must lie in"),
        ({"batch_size": 48}, "--batch-size must be a power of two"),
        ({"shard_size": 100}, "--shard-size must be a power of two"),
        ({"batch_size": 128, "shard_size": 64}, "--batch-size 128 is above --shard-size 64"),
    ],
)
def test_impossible_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DumpConfig(**{"teacher": "swin_t", **options})
