"""What a run learns from, as other libraries get it: batches, their losses, the student, images to validate on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from train_cases import make_store, metrics

from logitstore import TrainBatches, TrainConfig, TrainLoss, ValidationViews, initial_student, open_store
from logitstore.cards import load_card, save_card
from logitstore.device import normalise
from logitstore.errors import DataError, InputError, WitnessError
from logitstore.images import open_images
from logitstore.loader import ViewLoader, as_dumped, stored_spec
from logitstore.models import own_preprocessing
from logitstore.store import Store
from logitstore.train import train
from logitstore.views import centre_view

STEPS, BATCH = 6, 32
TARGETS = {"views", "weight", "labels", "partner_labels", "own", "index", "prob", "tail"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_store(tmp_path_factory.mktemp("replay") / "store"))


@pytest.fixture
def config(store: str) -> Callable[..., TrainConfig]:
    def make(**options: Any) -> TrainConfig:
        values = {"store": store, "student": "test_vit", "epochs": 3, "batch_size": BATCH, "workers": 1, "drop_path": 0}
        return TrainConfig(**{**values, **options})  # type: ignore[arg-type]

    return make


def passed(batches: TrainBatches) -> dict[str, Tensor]:
    """All columns of one pass."""
    found = list(batches)
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_batch_holds_what_the_teacher_saw_and_said(config: Callable[..., TrainConfig], store: str) -> None:
    opened = open_store(store)
    images = as_dumped(opened, open_images("digits"))
    producer = ViewLoader(
        images, stored_spec(opened), run_seed=opened.manifest.run_seed, batch_size=STEPS * BATCH, workers=1
    )
    with TrainBatches(config()) as batches:
        assert batches.checks_witnesses and len(batches) == STEPS and batches.epochs == 3
        assert (batches.num_classes, batches.size) == (10, 32)
        for epoch in (0, 1):
            found = passed(batches)
            seen, records = next(producer.batches(epoch)), opened.read(epoch, 0, STEPS * BATCH)
            assert found.keys() == TARGETS
            assert np.array_equal(found["views"], seen.views_BCHW) and found["views"].dtype == torch.uint8
            assert np.array_equal(found["index"], records.index) and found["index"].dtype == torch.int64
            assert np.array_equal(found["prob"], records.prob) and np.array_equal(found["tail"], records.tail)
            assert np.array_equal(found["labels"], seen.label_B) and np.array_equal(found["weight"], records.weight)


def test_passes_follow_each_other_and_come_again(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        first, second, third = passed(batches), passed(batches), passed(batches)
        assert not torch.equal(first["views"], second["views"])
        assert same(first, third), "the store has two epochs"
        batches.set_epoch(1, step=2)
        rest = passed(batches)
        assert torch.equal(rest["views"], second["views"][2 * BATCH :])
        assert same(passed(batches), third), "the pass that follows is whole"


def test_a_pass_that_was_broken_off_leaves_nothing_behind(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        whole = passed(batches)
        batches.set_epoch(0)
        for _ in batches:
            break
        batches.set_epoch(0)
        assert same(passed(batches), whole)


def test_excluded_samples_have_no_weight(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("".join(f"{number}\n" for number in range(0, 200, 3)))
    with TrainBatches(config()) as plain, TrainBatches(config(exclude=str(exclude))) as batches:
        with_all, without = passed(plain), passed(batches)
    assert 0 < int((without["weight"] == 0).sum()) < len(without["weight"]) / 2
    assert with_all["weight"].eq(1).all() and torch.equal(with_all["views"], without["views"])
    assert any("67 of 200 samples are excluded" in note for note in batches.notes)


def test_a_view_that_the_teacher_did_not_see_stops_the_pass(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.witnesses

    def others(self: Store, *place: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        position, crc = real(self, *place)
        return position, crc ^ np.uint32(1)

    monkeypatch.setattr(Store, "witnesses", others)
    with TrainBatches(config()) as batches, pytest.raises(WitnessError, match="epoch 0, position 0"):
        next(iter(batches))
    with TrainBatches(config(size=48)) as batches:
        assert not batches.checks_witnesses and passed(batches)["views"].shape == (STEPS * BATCH, 3, 48, 48)


def test_processes_share_each_batch(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as alone:
        whole = list(alone)
    parts = []
    for rank in (0, 1):
        with TrainBatches(config(), rank=rank, world=2) as batches:
            assert len(batches) == STEPS
            parts.append(list(batches))
    for batch, *shares in zip(whole, *parts, strict=True):
        assert [len(share["views"]) for share in shares] == [16, 16]
        assert same({name: torch.cat([share[name] for share in shares]) for name in batch}, batch)


def test_processes_that_do_not_know_each_other_are_refused(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"2 processes were started together.*torch.distributed"):
        TrainBatches(config())
    with pytest.raises(InputError, match="both rank and world"):
        TrainBatches(config(), rank=0)


def test_a_data_loader_may_stand_around_the_batches(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        loader = DataLoader(batches, batch_size=None)
        assert len(loader) == STEPS
        found = [batch["views"] for batch in loader]
        batches.set_epoch(0)
        assert torch.equal(torch.cat(found), passed(batches)["views"])


def test_workers_of_a_data_loader_are_refused(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logitstore.replay.batches.get_worker_info", lambda: object())
    with TrainBatches(config()) as batches, pytest.raises(InputError, match="num_workers=0"):
        next(iter(batches))


def twin(logits_BC: Tensor, batch: dict[str, Tensor]) -> float:
    """TinyViT's eq. 2 over a dense target, in float64, over the rows that have weight."""
    loss = total = 0.0
    for row, logits_C in enumerate(logits_BC.double()):
        if not batch["weight"][row]:
            continue
        kept = batch["index"][row] < len(logits_C)
        target_C = torch.full_like(logits_C, float(batch["tail"][row]) / (len(logits_C) - int(kept.sum())))
        target_C[batch["index"][row][kept]] = batch["prob"][row][kept].double()
        loss -= float((target_C * logits_C.log_softmax(0)).sum())
        total += 1.0
    return loss / total


def test_the_loss_is_that_of_the_records_and_reads_no_row_without_weight(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        batch = next(iter(batches))
    features = torch.from_numpy(np.random.default_rng(3).normal(size=(BATCH, 8)).astype(np.float32))
    head = nn.Linear(8, 10)
    weight = torch.tensor([1.0, 0.0] * (BATCH // 2))
    spoilt = {**batch, "weight": weight, "prob": torch.where(weight[:, None] > 0, batch["prob"], torch.nan)}
    logits_BC = head(features)
    kept = logits_BC.detach().clone()
    for given in (batch, spoilt):
        loss = TrainLoss(config())(head(features), given)
        assert float(loss.detach()) == pytest.approx(twin(kept, given), rel=1e-5)
    (grad,) = torch.autograd.grad(TrainLoss(config())(logits_BC, spoilt), logits_BC)
    assert grad[::2].abs().sum() > 0 and not grad[1::2].any()
    assert torch.equal(logits_BC, kept), "whoever takes them for a metric still can"


@pytest.mark.parametrize(
    "options",
    [
        {"distillation": "kl", "temperature": 2.0},
        {"joint": "alpha", "alpha": 0.3},
        {"joint": "ratio"},
        {"hard_labels_only": True, "store": None, "label_smoothing": 0.1},
    ],
    ids=["kl", "alpha", "ratio", "labels"],
)
def test_first_losses_are_those_of_train(config: Callable[..., TrainConfig], tmp_path: Path, options: Any) -> None:
    wanted = config(epochs=1, warmup_epochs=0, **options)
    train(replace(wanted, out=str(tmp_path / "run"), tensorboard=False, log_steps=1))
    batches = TrainBatches(wanted)
    student, fed = initial_student(wanted, batches)
    batch = next(iter(batches))
    assert ("index" in batch) == (not wanted.hard_labels_only)
    student.train()
    loss = TrainLoss(wanted)(student(normalise(batch["views"], fed.mean, fed.std, batches.device)), batch)
    batches.close()
    first = next(line for line in metrics(tmp_path / "run") if line["group"] == "train")
    assert float(loss.detach()) == pytest.approx(float(str(first["loss"])), rel=1e-5)


def test_weights_of_losses_follow_the_progress(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        batch = next(iter(batches))
    logits_BC = torch.from_numpy(np.random.default_rng(3).normal(size=(BATCH, 10)).astype(np.float32))
    criterion = TrainLoss(config(joint="alpha", alpha=(0.0, 1.0)))
    first, middle, last = (float(criterion(logits_BC, batch, progress=progress)) for progress in (0.0, 0.5, 1.0))
    assert first == pytest.approx(float(TrainLoss(config())(logits_BC, batch)))
    assert first != pytest.approx(last) and middle == pytest.approx((first + last) / 2)


def test_logits_come_where_the_loss_compares_them(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    dense = make_store(tmp_path / "dense", topk=10, floor=0.0, values="f16", logz=True, epochs=1)
    wanted = config(store=str(dense), distillation="mse")
    with TrainBatches(wanted) as batches:
        batch = next(iter(batches))
    assert batch.keys() == (TARGETS - {"index", "prob", "tail"}) | {"logits"}
    assert np.array_equal(batch["logits"], open_store(dense).logits(0, 0, BATCH))
    assert float(TrainLoss(wanted)(batch["logits"].clone(), batch)) == 0.0


def test_a_teacher_in_memory_is_refused(config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(InputError, match="TrainLoss sees logits alone"):
        TrainLoss(config(teacher_online="swin_t"))


@pytest.mark.usefixtures("torch_untouched")
def test_the_student_depends_on_the_seed_alone(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        one, other = (initial_student(config(seed=seed), batches)[0].state_dict() for seed in (1, 2))
        again, fed = initial_student(config(seed=1), batches)
        smaller = initial_student(config(drop_path=0.3, student_args=("depth=3",)), batches)[0]
    assert same(one, again.state_dict()) and not same(one, other)
    assert fed == own_preprocessing(again, 32)
    assert [len(student.blocks) for student in (again, smaller)] == [6, 3]  # type: ignore[arg-type]
    assert smaller.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match="freeze_copied"):
        initial_student(config(init_from="runs/nothing", freeze_copied=True), batches)


def test_the_student_starts_from_given_weights(config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    run = config(epochs=1, warmup_epochs=0, out=str(tmp_path / "run"), tensorboard=False, ema_decay=None)
    path = train(run).checkpoint
    trained, card = load_file(path), load_card(path)
    assert card is not None
    save_card(Path(path), replace(card, preprocessing=replace(card.preprocessing, mean=(0.1, 0.2, 0.3))))
    with TrainBatches(config()) as batches:
        student, fed = initial_student(config(init_from=run.out), batches)
        cut = initial_student(config(init_from=run.out, cut=4), batches)[0].state_dict()
        fresh = initial_student(config(), batches)[0].state_dict()
    assert not same(student.state_dict(), fresh)
    assert same(student.state_dict(), trained)
    assert fed.mean == (0.1, 0.2, 0.3)
    for block, start in enumerate((trained, trained, trained, trained, fresh, fresh)):
        name = f"blocks.{block}.attn.qkv.weight"
        assert torch.equal(cut[name], start[name])


def test_validation_views_are_the_centre_views_of_the_labelled_images(config: Callable[..., TrainConfig]) -> None:
    with TrainBatches(config()) as batches:
        views = ValidationViews(batches.validation, size=32, crop_pct=0.9)
    images = open_images("digits", split="val")
    assert len(views) == len(images) == 360 and images.labels is not None
    for number in (0, 7, 359):
        assert np.array_equal(views[number]["views"], centre_view(images.pixels(number), 32, 0.9))
        assert int(views[number]["labels"]) == images.labels[number]
    batch = next(iter(DataLoader(views, batch_size=16)))
    assert batch["views"].shape == (16, 3, 32, 32) and batch["labels"].dtype == torch.int64
    with pytest.raises(IndexError):
        views[360]
    with pytest.raises(DataError, match="nothing to validate on"):
        ValidationViews(None, size=32, crop_pct=1.0)
