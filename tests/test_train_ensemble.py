"""Training on the mean of several stores: the right targets, the same run when it resumes, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from ensemble_cases import dense
from helpers import write_images
from rank_cases import RankServer
from torch import nn
from torch.nn import functional
from train_cases import BATCH, STUDENT, SUBSET, Spy, config, make_store, metrics, pooled_teacher, same_weights

import cli
from logitstore.errors import IncompleteError, InputError, LogitStoreError, MismatchError, WitnessError
from logitstore.learning.criterion import Targets, make_criterion
from logitstore.learning.feed import Feed
from logitstore.store import Ensemble, Store, open_store
from logitstore.teacher import load_teacher
from logitstore.train import TrainConfig, train
from logitstore.train.feed import open_feed

DENSE = {"topk": 10, "floor": 0.0, "values": "f16", "logz": True}
SECOND, THIRD = "test_train_ensemble:second_teacher", "test_train_ensemble:third_teacher"


def other_teacher(seed: int) -> nn.Module:
    model = pooled_teacher()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model.classifier.weight.normal_(std=0.2)
    return model


def second_teacher() -> nn.Module:
    return other_teacher(1)


def third_teacher() -> nn.Module:
    return other_teacher(2)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three teachers on the same views, kept in different ways; the first knows an epoch more."""
    folder = tmp_path_factory.mktemp("stores")
    one = make_store(folder / "one", epochs=3)
    own = {"views_from": str(one), "epochs": 2}
    two = make_store(folder / "two", teacher=SECOND, topk=3, values="f16", shard_size=128, **own)
    three = make_store(folder / "three", teacher=THIRD, topk=10, floor=0.05, **own)
    return str(one), str(two), str(three)


@pytest.fixture(scope="module")
def dense_stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two teachers' logits on the same mixed views."""
    folder = tmp_path_factory.mktemp("dense")
    (folder / "mixed.yaml").write_text("base: crop_flip\nmixup: 0.8\ncutmix: 1.0\nhflip: 0.0\n")
    one = make_store(folder / "one", view=str(folder / "mixed.yaml"), epochs=1, **DENSE)
    return str(one), str(make_store(folder / "two", teacher=SECOND, views_from=str(one), epochs=None, **DENSE))


def feed(**options: Any) -> Feed:
    whole = config(Path("unused"), **options)
    return open_feed(whole, whole.effective_recipe())


def refused(tmp_path: Path, error: type[LogitStoreError], match: str, **options: Any) -> None:
    """``train`` raises this and writes nothing."""
    with pytest.raises(error, match=match):
        train(config(tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


@pytest.mark.parametrize("shuffle", [None, "shards"])
def test_batches_hold_the_mean_of_the_stores(stores: tuple[str, str, str], shuffle: str | None) -> None:
    opened = feed(store=stores, weights=(1, 2, 1), epochs=2, shuffle=shuffle)
    assert opened.epochs == (0, 1) and opened.steps_per_epoch == SUBSET // BATCH
    whole = [open_store(path).read(1, 0, SUBSET) for path in stores]
    expected = sum(w * dense(records, 10) for w, records in zip((0.25, 0.5, 0.25), whole, strict=True))
    alone = {int(sample): view for batch in feed(store=stores[0]).batches(1) for sample, view in zip(
        batch.sample_B, batch.views_BCHW, strict=True)}  # fmt: skip
    for batch in opened.batches(1):
        assert batch.records is not None and batch.records.index.shape == (BATCH, 10)
        np.testing.assert_allclose(dense(batch.records, 10), expected[batch.position_B], rtol=3e-7, atol=1e-9)
        assert np.array_equal(batch.records.sample, batch.sample_B)
        common = [row for row, sample in enumerate(batch.sample_B.tolist()) if sample in alone]
        assert all(np.array_equal(batch.views_BCHW[row], alone[int(batch.sample_B[row])]) for row in common)
    assert any("0.25 of" in note and f"0.5 of {stores[1]}" in note for note in opened.notes)


def test_topk_cuts_the_records_of_each_store(stores: tuple[str, str, str]) -> None:
    batch = next(feed(store=stores[:2], topk=2).batches(0))
    parts = [open_store(path).read(0, 0, BATCH, topk=2) for path in stores[:2]]
    assert batch.records is not None and batch.records.index.shape == (BATCH, 4)
    expected = (dense(parts[0], 10) + dense(parts[1], 10)) / 2
    np.testing.assert_allclose(dense(batch.records, 10), expected, rtol=3e-7, atol=1e-9)


def test_one_store_is_read_as_ever(stores: tuple[str, str, str]) -> None:
    for store in (stores[0], (stores[0],)):
        opened = feed(store=store)
        assert isinstance(opened.store, Store)
        assert opened.identity()["store"] == opened.store.store_id
    assert isinstance(feed(store=stores).store, Ensemble)


@pytest.mark.parametrize("loss", ["cross_entropy", "kl", "mse"])
def test_losses_are_those_of_both_teachers_alive(dense_stores: tuple[str, str], loss: str) -> None:
    """The mean of probabilities is tempered as one teacher's would be; of logits the mean is taken as they are."""
    temperature = {"temperature": 2.0} if loss == "kl" else {}
    whole = config(Path("unused"), store=dense_stores, weights=(1.0, 3.0), distillation=loss, **temperature)
    batch = next(open_feed(whole, whole.effective_recipe()).batches(0))
    names = ("train_cases:pooled_teacher", SECOND)
    one, two = (load_teacher(name, size=32, device="cpu").logits(batch.views_BCHW).double() for name in names)
    student_BC = torch.randn(BATCH, 10, generator=torch.Generator().manual_seed(4)).double()
    mean_BC = 0.25 * one.softmax(1) + 0.75 * two.softmax(1)
    tempered_BC = mean_BC.sqrt() / mean_BC.sqrt().sum(1, keepdim=True)
    expected = {
        "cross_entropy": functional.cross_entropy(student_BC, mean_BC),
        "kl": 4 * functional.kl_div((student_BC / 2).log_softmax(1), tempered_BC, reduction="batchmean"),
        "mse": functional.mse_loss(student_BC, 0.25 * one + 0.75 * two),
    }
    targets = Targets.of(batch, torch.device("cpu"))
    found = make_criterion(whole.effective_recipe()).parts(student_BC.clone(), targets).distillation
    assert found is not None and found.item() == pytest.approx(expected[loss].item(), rel=1e-3)


def test_the_squared_error_to_mean_logits_has_the_gradient_of_the_mean_of_squared_errors() -> None:
    student, one, two = (torch.randn(5, 7, generator=torch.Generator().manual_seed(s)) for s in range(3))
    student.requires_grad_()
    to_mean = torch.autograd.grad(functional.mse_loss(student, 0.25 * one + 0.75 * two), student)[0]
    errors = 0.25 * functional.mse_loss(student, one) + 0.75 * functional.mse_loss(student, two)
    torch.testing.assert_close(torch.autograd.grad(errors, student)[0], to_mean)


def test_it_resumes_exactly_and_belongs_to_its_stores_and_weights(stores: tuple[str, str, str], tmp_path: Path) -> None:
    """With a loss on labels, too, and more epochs than the stores have in common."""
    options = {"store": stores[:2], "weights": (0.75, 0.25), "joint": "ratio", "epochs": 3}
    spy = Spy()
    whole = train(config(tmp_path / "whole", **options), spy)
    assert any("Of the stores' 3 epochs 2 are there in all of them" in text for text in spy.said)
    assert any("its epochs come again and again" in text for text in spy.said)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config(out, **options), Spy({8: lambda: signal.raise_signal(signal.SIGINT)}))
    with pytest.raises(MismatchError, match=r"(?s)weights=\[0.75, 0.25\].*weights=\[0.5, 0.5\]"):
        train(config(out, **{**options, "weights": None}))
    with pytest.raises(MismatchError, match="store="):
        train(config(out, **{**options, "store": stores[::2]}))
    with pytest.raises(MismatchError, match="store="):
        train(config(out, **{**options, "store": stores[0], "weights": None}))
    moved = tmp_path / "moved"
    shutil.copytree(stores[1], moved)
    resumed = train(config(out, **{**options, "store": (stores[0], str(moved)), "weights": (3, 1)}))
    assert same_weights(resumed.checkpoint, whole.checkpoint)
    assert metrics(out) == metrics(whole.out)
    card = json.loads((out / "model.json").read_text())
    assert card["training"]["store"] == [open_store(path).store_id for path in stores[:2]]
    assert card["training"]["weights"] == [0.75, 0.25]


def test_a_run_file_repeats_it(stores: tuple[str, str, str], tmp_path: Path) -> None:
    small = ["--student", STUDENT, "--epochs", 1, "--batch-size", BATCH, "--workers", 1, "--no-tensorboard"]
    named = ["--store", stores[0], "--store", stores[1], "--weights", "0.5,0.5"]
    result = command(*small, *named, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.stderr
    file = tmp_path / "run" / "run.yaml"
    described = yaml.safe_load(file.read_text())
    assert described["options"]["store"] == [*stores[:2]] and described["options"]["weights"] == [0.5, 0.5]
    assert described["effective"]["weights"] == [0.5, 0.5]
    again = command("--config", file, "--out", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    assert same_weights(tmp_path / "run" / "model.safetensors", tmp_path / "again" / "model.safetensors")
    assert TrainConfig.from_yaml(file).store == stores[:2]
    alone = TrainConfig.from_yaml(file, store=stores[0])  # has no use for the file's weights
    assert (alone.store, alone.weights) == (stores[0], None)
    other = TrainConfig.from_yaml(file, weights=(1.0, 3.0))
    assert (other.store, other.weights) == (stores[:2], (1.0, 3.0))
    labels = TrainConfig.from_yaml(file, hard_labels_only=True)
    assert labels.store is None and labels.weights is None


def test_processes_share_the_batches(server: RankServer, stores: tuple[str, str, str], tmp_path: Path) -> None:
    found = {}
    for world in (1, 2):
        out = tmp_path / str(world)
        arguments = (
            "train", "--student", "test_vit", "--epochs", 1, "--batch-size", BATCH, "--drop-path", 0, "--workers", 1,
            "--no-tensorboard", "--log-steps", 1, "--device", "cpu", "--dtype", "float32",
            "--store", stores[0], "--store", stores[1], "--weights", "1,2", "--out", out,
        )  # fmt: skip
        ended = server.run(world, arguments, tmp_path / f"log{world}")
        assert ended.codes == [0] * world, ended.text("err")
        found[world] = [line["loss"] for line in metrics(out) if line["group"] == "train"]
    assert len(found[1]) == 6
    assert found[2] == pytest.approx(found[1], abs=1e-4)


def test_a_sample_that_one_teacher_skipped_has_no_weight(stores: tuple[str, str, str], tmp_path: Path) -> None:
    """Its class would be half known: the run goes on without it."""
    data = tmp_path / "images"
    write_images(data, [f"{number}.png" for number in range(64)], size=(32, 32))
    options = {"data": str(data), "subset": None, "size": 32, "view": "crop_flip"}
    one = make_store(tmp_path / "one", epochs=1, **options)
    image = data / "8.png"
    whole = image.read_bytes()
    middle = whole.index(b"IDAT") + 10
    image.write_bytes(whole[:middle] + bytes(20) + whole[middle + 20 :])
    del options["size"], options["view"]
    two = make_store(tmp_path / "two", teacher=SECOND, views_from=str(one), epochs=None, skip_bad=True, **options)
    opened = feed(store=(str(one), str(two)), data=str(data), skip_bad=True)
    weights = {int(s): float(w) for b in opened.batches(0) for s, w in zip(b.sample_B, b.weight_B, strict=True)}
    assert {sample for sample, weight in weights.items() if weight == 0} == {8}
    image.write_bytes(whole)
    records = [b.records for b in feed(store=(str(one), str(two)), data=str(data)).batches(0)]
    assert sum(int((r.weight == 0).sum()) for r in records if r is not None) == 1


def test_a_gap_in_either_store_is_refused(stores: tuple[str, str, str], tmp_path: Path) -> None:
    copy = shutil.copytree(stores[1], tmp_path / "copy")
    (copy / "commits" / "0001.00001.json").unlink()
    pair = (stores[0], str(copy))
    refused(tmp_path, IncompleteError, rf"Epoch 1 of the store at {copy} lacks 1 of 2 .*--epochs 1", store=pair)
    assert feed(store=pair, epochs=1).epochs == (0,)
    (copy / "commits" / "0001.00000.json").unlink()
    assert feed(store=pair).epochs == (0,)
    (copy / "commits" / "0000.00000.json").rename(tmp_path / "kept")
    (copy / "commits" / "0000.00001.json").unlink()
    refused(tmp_path, IncompleteError, f"The store at {copy} holds no shard yet", store=pair)


def test_stores_without_a_common_epoch_are_refused(stores: tuple[str, str, str], tmp_path: Path) -> None:
    late = make_store(tmp_path / "late", teacher=SECOND, views_from=stores[0], epochs=None, start_epoch=2)
    refused(
        tmp_path, IncompleteError, f"no epoch in common: {stores[2]} has 0 to 1; {late} has 2 to 2",
        store=(stores[2], str(late)),
    )  # fmt: skip
    assert feed(store=(stores[0], str(late))).epochs == (2,)


def test_stores_of_other_views_are_refused(stores: tuple[str, str, str], tmp_path: Path) -> None:
    for name, options in {
        "run seed": {"seed": 1},
        "view spec": {"view": "crop_flip"},
        "number of samples": {"subset": 128},
    }.items():
        other = make_store(tmp_path / name, teacher=SECOND, epochs=1, **options)
        refused(tmp_path, MismatchError, f"(?s){name}.*--views-from {stores[0]}", store=(stores[0], str(other)))
    twice = (stores[0], str(shutil.copytree(stores[0], tmp_path / "copy")))
    refused(tmp_path, InputError, "are the same", store=twice)


def test_a_view_that_is_no_longer_what_the_teachers_saw_is_refused(
    stores: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logitstore.loader.painter.witness", lambda view: 7)
    refused(tmp_path, WitnessError, "epoch 0, position 0", store=stores[:2])


def test_logits_need_dense_stores(stores: tuple[str, str, str], tmp_path: Path) -> None:
    refused(tmp_path, InputError, f"store at {stores[0]} keeps the top 5", store=stores[:2], distillation="mse")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--store", "a", "--weights", "1"], "--weights says how to join several stores"),
        (["--weights", "0.5,0.5"], "--weights says how to join several stores"),
        (["--store", "a", "--store", "b", "--weights", "1,2,3"], "2 stores need 2 weights, got 3"),
        (["--store", "a", "--store", "b", "--weights", "1,-1"], "above 0, got 1.0, -1.0"),
        (["--store", "a", "--store", "b", "--weights", "1,x"], "'1,x' is no list of numbers, as in 0.5,0.5"),
        (["--store", "a", "--store", "b"], "There is no store at a"),
        (["--hard-labels-only", "--store", "a", "--store", "b"], "--store has no meaning"),
        (["--hard-labels-only", "--weights", "1,1"], "--weights says how to join several stores"),
    ],
)
def test_unusable_input_is_one_sentence(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(*flags)
    assert result.exit_code == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())
