"""Making a teacher: what is trained, what is saved, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

import logitstore.finetune.loop
from logitstore.cards import Preprocessing, load_model, save_model, weights_sha256
from logitstore.device import Compute
from logitstore.errors import DataError, InputError, MismatchError, ModelError, NonFiniteError
from logitstore.finetune import FinetuneConfig, FinetuneResult, finetune
from logitstore.images import open_images
from logitstore.progress import Progress
from logitstore.scoring import score
from logitstore.teacher import load_teacher
from logitstore.train import train
from tests import minivit_twin
from tests.helpers import write_images
from tests.train_cases import config as train_config
from tests.train_cases import make_store

pytestmark = pytest.mark.usefixtures("torch_untouched", "own_directory")
CPU = torch.device("cpu")


def config(**changes: Any) -> FinetuneConfig:
    values: dict[str, Any] = {
        "teacher": "test_vit",
        "epochs": 2,
        "subset": 192,
        "batch_size": 32,
        "workers": 1,
        "device": "cpu",
        "tensorboard": False,
    }
    return FinetuneConfig(**(values | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    out = tmp_path_factory.mktemp("trained")
    folder = str(out / "runs/finetune/test_efficientnet-digits")
    return finetune(config(teacher="test_efficientnet", epochs=3, subset=None, lr=3e-3, out=folder))


def test_a_small_model_learns_digits(trained: FinetuneResult) -> None:
    assert trained.accuracy is not None and trained.accuracy["images"] == 360
    assert trained.accuracy["top1_share"] > 0.9
    assert trained.steps == 3 * (1437 // 32)
    json.dumps(trained.to_dict())


def test_the_card_says_what_was_done(trained: FinetuneResult) -> None:
    state, card = load_model(trained.checkpoint)
    images = open_images("digits")
    assert card is not None and card.sha256 == trained.sha256 == weights_sha256(state)
    assert (card.model, card.model_args, card.size) == ("test_efficientnet", {}, 32)
    assert (card.num_classes, card.class_names) == (10, images.class_names)
    assert card.preprocessing == Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_pct=1.0)
    assert card.data == {"name": "digits", "split": "train", "count": 1437, "fingerprint": images.fingerprint}
    assert card.accuracy == trained.accuracy and card.epochs == 3
    view = card.training["view"]
    assert view["hflip"] == 0 and view["scale"] == [0.6, 1.0]  # digits keep their meaning
    assert card.training["start"] == "random"


def test_dump_finds_what_finetune_left(trained: FinetuneResult) -> None:
    runs = Path(trained.checkpoint).parents[2]
    val = open_images("digits", split="val")
    teacher = load_teacher("test_efficientnet", images=open_images("digits"), size=32, device="cpu", runs_dir=runs)
    assert teacher.sha256 == trained.sha256
    assert isinstance(teacher.model, torch.nn.Module)
    again = score(teacher.model, val, size=32, preprocessing=teacher.preprocessing, compute=Compute(device=CPU))
    assert again.to_dict() == trained.accuracy
    measured = partial(score, teacher.model, val, size=32, preprocessing=teacher.preprocessing)
    parts = [measured(compute=Compute(device=CPU), samples=part) for part in (range(0), range(0, 101), range(101, 360))]
    assert [part.images for part in parts] == [0, 101, 259]
    assert (sum(part.top1 for part in parts), sum(part.top5 for part in parts)) == (again.top1, again.top5)


def test_a_run_is_a_function_of_its_seed() -> None:
    hashes = [finetune(config(out=f"out{run}", **changes)).sha256 for run, changes in enumerate(
        [{}, {"workers": 2}, {"seed": 1}]
    )]
    assert hashes[0] == hashes[1] != hashes[2]


def test_frozen_backbone_stays_and_its_statistics_too() -> None:
    with torch.random.fork_rng():
        start = timm.create_model("test_efficientnet", num_classes=5).state_dict()
    torch.save({"state_dict": start}, "start.pth")
    result = finetune(config(teacher="test_efficientnet", checkpoint="start.pth", freeze_backbone=True))
    state, card = load_model(result.checkpoint)
    changed = {name for name in start if name not in state or not torch.equal(start[name], state[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert state["classifier.weight"].shape[0] == 10
    assert card is not None and card.training["freeze_backbone"] and card.training["start"] == "checkpoint"


def student(name: str) -> str:
    """A folder with a student that ``train`` made of a small store."""
    make_store(Path("store"), epochs=1, subset=64)
    train(train_config(Path("student"), student=name, store="store", epochs=1, ema_decay=0.0))
    return "student"


def backbone(path: str) -> dict[str, torch.Tensor]:
    return {name: part for name, part in load_model(path)[0].items() if not name.startswith("head.fc.")}


@pytest.mark.parametrize("name", ["tinyvit_5m", "swin_n"])
def test_linear_probe_of_a_student(name: str, folder: Path) -> None:
    """Only the classifier learns, on any data set: weights, statistics and buffers of the rest stay to the bit."""
    start = student(name)
    images = np.random.default_rng(0).integers(0, 255, (24, 20, 20, 3)).astype(np.uint8)
    np.savez("arrays.npz", images=images, labels=np.arange(24) % 4)
    for data, classes in ((str(folder), 2), ("arrays.npz", 4)):
        probe = config(teacher=name, data=data, checkpoint=start, freeze_backbone=True, epochs=1, size=32, subset=None)
        result = finetune(replace(probe, batch_size=8, out=f"probe{classes}"))
        before, after = backbone(start), backbone(result.checkpoint)
        assert before.keys() == after.keys()
        assert not [key for key in before if not torch.equal(before[key], after[key])]
        assert len(load_model(result.checkpoint)[0]["head.fc.weight"]) == classes


def test_the_probe_keeps_the_normalisation_of_its_weights(trained: FinetuneResult, folder: Path) -> None:
    state, card = load_model(trained.checkpoint)
    assert card is not None
    own = replace(card.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    save_model(Path("own.safetensors"), state, replace(card, preprocessing=own))
    probe = config(teacher="test_efficientnet", data=str(folder), checkpoint="own.safetensors", freeze_backbone=True)
    found = load_model(finetune(replace(probe, epochs=1, subset=None, size=32)).checkpoint)[1]
    assert found is not None
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_probe_at_another_size_resizes_what_depends_on_it(folder: Path) -> None:
    start = student("tinyvit_5m")
    probe = config(teacher="tinyvit_5m", data=str(folder), checkpoint=start, freeze_backbone=True, size=64)
    before, after = backbone(start), backbone(finetune(replace(probe, epochs=1, subset=None)).checkpoint)
    resized = {key for key in before if before[key].shape != after[key].shape}
    assert resized and all(key.endswith("attention_biases") for key in resized)
    assert not [key for key in before.keys() - resized if not torch.equal(before[key], after[key])]


def test_a_probe_has_the_architecture_of_its_weights() -> None:
    """Told by a card, or by the layout of a reference implementation; at another size too."""
    make_store(Path("store"), epochs=1, subset=64)
    shape = ("depth=2", "embed_dim=24", "num_heads=2", "plain=true")
    train(train_config(Path("mini"), student="mini_deit_ti", share="all", student_args=shape, store="store", epochs=1))
    reference = minivit_twin.deit_weights(width=192, depth=12, repeats=4, heads=3, patches=4, classes=3)
    torch.save({"model": {name: tensor.float() for name, tensor in reference.items()}}, "reference.pth")
    made = {}
    for start, size in (("mini", 48), ("reference.pth", 32)):
        probe = config(teacher="mini_deit_ti", checkpoint=start, freeze_backbone=True, epochs=1, subset=32, size=size)
        card = load_model(finetune(replace(probe, out=f"probe-{size}")).checkpoint)[1]
        assert card is not None
        made[start] = card.model_args
    own = {"depth": 2, "embed_dim": 24, "num_heads": 2, "plain": True, "share": 0}
    assert made == {"mini": {**own, "img_size": 48}, "reference.pth": {"share": 4, "img_size": 32}}


def test_starting_weights_keep_a_classifier_of_as_many_classes(trained: FinetuneResult) -> None:
    again = config(teacher="test_efficientnet", checkpoint=trained.checkpoint, epochs=1, lr=1e-9, out="again")
    result = finetune(again)
    first, second = (load_model(path)[0]["classifier.weight"] for path in (trained.checkpoint, result.checkpoint))
    torch.testing.assert_close(second, first, atol=1e-6, rtol=0)


def test_starting_weights_of_another_model(trained: FinetuneResult) -> None:
    with pytest.raises(ModelError, match="not of test_vit2"):
        finetune(config(teacher="test_vit2", checkpoint=trained.checkpoint))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [f"{split}/{label}/{i}.png" for split, n in (("train", 4), ("val", 2)) for label in "ab" for i in range(n)]
    write_images(tmp_path / "pets", names, (40, 48))
    return tmp_path / "pets"


def test_a_folder_with_splits(folder: Path) -> None:
    result = finetune(config(data=str(folder), pretrained=False, size=32, subset=None, epochs=1))
    assert result.checkpoint == "runs/finetune/test_vit-pets/model.safetensors"
    assert result.accuracy is not None and result.accuracy["images"] == 4
    card = load_model(result.checkpoint)[1]
    assert card is not None and card.class_names == ("a", "b") and card.training["view"]["hflip"] == 0.5


def test_no_images_to_measure_on(folder: Path) -> None:
    result = finetune(config(data=str(folder / "train"), pretrained=False, size=32, subset=None, epochs=1))
    assert result.accuracy is None
    train, val = (str(folder / split) for split in ("train", "val"))
    own = config(data=train, val_data=val, pretrained=False, size=32, subset=None, epochs=1, out="measured")
    measured = finetune(own)
    assert measured.accuracy is not None and measured.accuracy["images"] == 4


def test_pretrained_weights_are_the_start_on_real_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def fake(name: str, **arguments: Any) -> torch.nn.Module:
        asked.append((name, arguments))
        return logitstore.finetune.loop.build_model(name, **arguments)

    monkeypatch.setattr(logitstore.finetune.loop, "pretrained_model", fake)
    finetune(config(data=str(folder), size=32, subset=None, epochs=1))
    common = {"num_classes": 2, "size": 32, "drop_path": 0.1, "seed": 0, "model_args": {"img_size": 32}}
    assert asked == [("test_vit", common)]


def test_weights_that_cannot_be_had_leave_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logitstore.hub._reachable", lambda endpoint: False)
    with pytest.raises(ModelError, match="no network"):
        finetune(config(teacher="test_vit3", data=str(folder), size=32, subset=None))
    assert not Path("runs").exists()


def test_images_without_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "flat", ["1.png", "2.png"])
    with pytest.raises(DataError, match="no labels to train on"):
        finetune(config(data=str(tmp_path / "flat"), pretrained=False, subset=None))


def test_one_class_is_no_task(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.zeros(4, np.int64))
    with pytest.raises(DataError, match="1 classes"):
        finetune(config(data=str(tmp_path / "one.npz"), pretrained=False, subset=None))


def test_validation_classes_that_are_not_taught() -> None:
    for name, top in (("train", 1), ("val", 2)):
        np.savez(f"{name}.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 1, 0, top]))
    with pytest.raises(MismatchError, match=r"number of classes.*\n.*2\n.*3"):
        finetune(config(data="train.npz", val_data="val.npz", pretrained=False, size=32, subset=None))


def test_a_loss_that_explodes_saves_nothing() -> None:
    with pytest.raises(NonFiniteError, match="lower --lr"):
        finetune(config(lr=1e30, warmup_epochs=0))
    assert not list(Path().rglob("*.safetensors"))


def test_a_folder_that_cannot_be_made_is_refused_before_the_first_step() -> None:
    Path("file").write_text("mine")
    with pytest.raises(InputError, match="file/run cannot be written to"):
        finetune(config(out="file/run", epochs=1000))


def test_a_size_that_the_model_cannot_take() -> None:
    with pytest.raises(ModelError, match="test_vit does not run on images of 50 px"):
        finetune(config(teacher="test_vit", size=50))


def test_fewer_images_than_a_batch() -> None:
    assert finetune(config(subset=11, batch_size=64, epochs=1)).steps == 1


def test_bfloat16_trains() -> None:
    result = finetune(config(dtype="bfloat16"))
    card = load_model(result.checkpoint)[1]
    assert np.isfinite(result.loss) and card is not None and card.training["dtype"] == "bfloat16"


def test_mixed_views_and_distilled_models() -> None:
    Path("mixed.yaml").write_text("size: 32\nmixup: 0.8\ncutmix: 1.0\n")
    result = finetune(config(teacher="deit_tiny_distilled_patch16_224", view="mixed.yaml", subset=32, epochs=1))
    assert np.isfinite(result.loss) and result.steps == 1


def test_progress_tells_of_every_epoch() -> None:
    out = io.StringIO()
    finetune(config(), partial(Progress, stream=out))
    lines = [line for line in out.getvalue().splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2 and "loss" in lines[1] and "% top-1" in lines[1]


@pytest.mark.slow
def test_swin_t_learns_digits() -> None:
    result = finetune(FinetuneConfig(teacher="swin_t", device="cpu"))
    assert result.accuracy is not None and result.accuracy["top1_share"] >= 0.975
