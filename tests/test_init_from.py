"""Training that starts from given weights: what the run takes over, holds fixed, says, and goes on with."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import MemoryImages
from safetensors.torch import load_file, save_file
from test_train import Spy, same_weights
from train_cases import STUDENT, config, make_store

from logitstore.cards import Card, Preprocessing, load_card, save_model, weights_sha256
from logitstore.errors import InputError, MismatchError, ModelError
from logitstore.initial import take_over
from logitstore.learning.criterion import make_criterion
from logitstore.learning.learner import Learner
from logitstore.loader import ViewLoader
from logitstore.models import build_model
from logitstore.train import TrainConfig, train
from logitstore.views import view_spec
from students.recipes import digits

DIGITS = tuple("0123456789")
GREY = Preprocessing(mean=(0.25, 0.25, 0.25), std=(0.5, 0.5, 0.5))


def save_teacher(path: Path, *, name: str = STUDENT, seed: int = 5) -> dict[str, Any]:
    """A teacher's weights and card, with noise on all that timm sets to constants; gives its state dict."""
    model = build_model(name, num_classes=10, size=32, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: tensor + 0.1 * torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor + 3
        for key, tensor in model.state_dict().items()
    }
    card = Card(model=name, num_classes=10, class_names=DIGITS, size=32, preprocessing=GREY)
    save_model(path / "model.safetensors", state, card)
    return state


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run folder with weights of the student's architecture, and these weights."""
    folder = tmp_path_factory.mktemp("teacher")
    return folder, save_teacher(folder)


BEFORE_3 = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.", "blocks.2.")


@pytest.mark.parametrize("options", [{}, {"bn_eval": True}, {"hard_labels_only": True}], ids=["plain", "bn", "labels"])
def test_frozen_weights_do_not_change_by_a_bit(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path, options: dict[str, Any]
) -> None:
    folder, weights = teacher
    source = {} if "hard_labels_only" in options else {"store": str(store)}
    spy = Spy()
    run = config(tmp_path / "run", init_from=str(folder), cut=3, freeze_copied=True, **source, **options)
    result = train(replace(run, subset=200), spy)
    own = load_file(result.checkpoint)
    frozen = {name for name in own if name.startswith(BEFORE_3)}
    assert any("running_mean" in name for name in frozen)
    for name in frozen:
        assert torch.equal(own[name], weights[name]), name
    initial = build_model(STUDENT, num_classes=10, size=32, drop_path=0.2, seed=0).state_dict()
    trained = {name for name in own if name not in frozen and own[name].is_floating_point()}
    statistics = {name for name in trained if name.endswith(("running_mean", "running_var"))}
    unchanged = {name for name in trained if torch.equal(own[name], initial[name])}
    assert unchanged == (statistics if "bn_eval" in options else set())
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    moments = sum(value["exp_avg"].numel() for value in state["optimizer"]["state"].values())
    model = build_model(STUDENT, num_classes=10, size=32)
    assert moments == sum(p.numel() for name, p in model.named_parameters() if not name.startswith(BEFORE_3))
    text = "\n".join(spy.said)
    assert "Cut after block 3: T[:3] of the teacher's 5 blocks is copied" in text
    assert "conv_stem, bn1, blocks.0-2 (before the cut)" in text
    assert "is frozen: no gradient, eval mode" in text
    assert ("BatchNorm stays in eval mode although the run starts from random" in text) == ("bn_eval" in options)


def test_frozen_modules_stay_in_eval_mode_while_the_rest_trains(teacher: tuple[Path, dict[str, Any]]) -> None:
    model = build_model(STUDENT, num_classes=10, size=32, drop_path=0.5)
    take_over(teacher[0], model, cut=3, freeze_copied=True)
    images = MemoryImages(8, labels=list(range(8)), side=32)
    loader = ViewLoader(images, view_spec("crop_flip", size=32), run_seed=0, batch_size=8, workers=1)
    recipe = replace(digits(), batch_size=8, distillation="none")
    options: dict[str, Any] = {"preprocessing": GREY, "steps_per_epoch": 2, "seed": 0, "device": torch.device("cpu")}
    learner = Learner(model, make_criterion(recipe), recipe, **options)
    for epoch in range(2):
        model.eval()  # as validation leaves it
        for batch in loader.batches(epoch):
            learner.train_step(batch)
    modes = {name: module.training for name, module in model.named_modules() if not list(module.children())}
    assert {name for name, training in modes.items() if not training} == {
        name for name in modes if f"{name}.".startswith(BEFORE_3)
    }
    assert any(name.endswith("drop_path") for name, training in modes.items() if not training)


def test_the_whole_model_is_taken_over_and_trained_on(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, weights = teacher
    still = {"store": str(store), "init_from": str(folder), "ema_decay": 0.0, "epochs": 1}
    no_step = {"base_lr": 1e-12, "base_min_lr": 0.0, "base_warmup_lr": 0.0}
    result = train(config(tmp_path / "still", bn_eval=True, **no_step, **still))
    for name, tensor in load_file(result.checkpoint).items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-8, rtol=0)
    spy = Spy()
    result = train(config(tmp_path / "bn", bn_eval=True, **still), spy)
    assert "BatchNorm stays" not in "\n".join(spy.said)
    own = load_file(result.checkpoint)
    for name, tensor in weights.items():
        statistic = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(own[name], tensor) == statistic, name
    card = load_card(result.checkpoint)
    assert card is not None
    start = card.training["init_from"]
    assert start["sha256"] == weights_sha256(weights)
    assert (start["model"], start["cut"], start["freeze_copied"]) == (STUDENT, None, False)
    model = build_model(STUDENT, num_classes=10, size=32)
    assert start["copied"]["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (card.preprocessing.mean, card.preprocessing.std) == (GREY.mean, GREY.std)
    assert str(folder) not in str(card.to_dict())


def test_a_run_resumes_from_its_checkpoint_and_knows_its_start(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    options = {"store": str(store), "init_from": str(teacher[0]), "cut": 2, "freeze_copied": True, "epochs": 1}
    unbroken = train(config(tmp_path / "unbroken", **options))
    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path / "run", **options), Spy({3: lambda: signal.raise_signal(signal.SIGINT)}))
    with pytest.raises(MismatchError) as caught:
        train(config(tmp_path / "run", **options | {"cut": 3}))
    assert "init_from.cut=2" in str(caught.value.stored) and "init_from.cut=3" in str(caught.value.present)
    other = tmp_path / "other"
    save_teacher(other, seed=6)
    with pytest.raises(MismatchError, match=r"init_from\.sha256="):
        train(config(tmp_path / "run", **options | {"init_from": str(other)}))
    resumed = train(config(tmp_path / "run", **options))
    assert same_weights(resumed.checkpoint, unbroken.checkpoint)
    written = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert "init_from" in str(written) and weights_sha256(teacher[1]) in str(written)


def test_a_copied_student_differs_from_one_that_starts_at_random(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    options = {"store": str(store), "epochs": 1}
    plain = train(config(tmp_path / "plain", **options))
    copied = train(config(tmp_path / "copied", init_from=str(teacher[0]), cut=1, **options))
    assert not same_weights(plain.checkpoint, copied.checkpoint)
    card = load_card(plain.checkpoint)
    assert card is not None and "init_from" not in card.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": 3}, "--cut says what to do with the weights of --init-from"),
        ({"freeze_copied": True}, "--freeze-copied says what to do with the weights of --init-from"),
        ({"init_from": "T", "cut": 0}, "--cut must be at least 1, got 0: with less, nothing would be copied"),
        ({"init_from": "T", "cut": 6}, "cut must lie between 1 and 5, got 6"),
        ({"init_from": "T", "freeze_copied": True}, "nothing would be left to train"),
        ({"init_from": "T", "student": "test_vit"}, rf"\({STUDENT}\): The weights are of another family"),
        ({"init_from": "nowhere"}, "No file of weights at nowhere"),
    ],
)
def test_unusable_starts_are_one_sentence(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    if options.get("init_from") == "T":
        options = options | {"init_from": str(teacher[0])}
    with pytest.raises(InputError, match=message) as caught:
        train(config(tmp_path / "run", **{"store": str(store), **options}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_replace_the_weights_that_it_starts_from(
    store: Path, teacher: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    first = train(config(tmp_path / "run", store=str(store), epochs=1))
    for start in (tmp_path / "run", tmp_path / "run" / "best.safetensors"):
        with pytest.raises(InputError, match="which this run would replace: give another --out"):
            train(config(tmp_path / "run", store=str(store), epochs=1, init_from=str(start), fresh=True))
    assert Path(first.checkpoint).is_file()


def test_weights_without_card(tmp_path: Path, teacher: tuple[Path, dict[str, Any]]) -> None:
    save_file(teacher[1], tmp_path / "bare.safetensors")
    student = build_model(STUDENT, num_classes=10, size=32)
    start = take_over(tmp_path / "bare.safetensors", student, class_names=DIGITS)
    assert (start.model, start.assumed, start.sha256) == (None, None, weights_sha256(teacher[1]))
    assert all(torch.equal(tensor, teacher[1][name]) for name, tensor in student.state_dict().items())
    assert start.preprocessing(GREY) is GREY


def test_published_imagenet_21k_weights_are_mapped_by_wordnet_id(tmp_path: Path) -> None:
    """Such files have no card; timm tells the subset of ImageNet by the number of classes."""
    names = ("n01440764", "n99999999", "n01443537")  # tench and goldfish, and a class that there is not
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet22k").label_names()
    weights = build_model(STUDENT, num_classes=21841, size=32).state_dict()
    save_file(weights, tmp_path / "in21k.safetensors")
    student = build_model(STUDENT, num_classes=3, size=32)
    start = take_over(tmp_path / "in21k.safetensors", student, class_names=names)
    assert start.assumed == "imagenet-22k"
    rows = student.state_dict()["classifier.weight"]
    assert torch.equal(rows[0], weights["classifier.weight"][known.index("n01440764")])
    assert torch.equal(rows[2], weights["classifier.weight"][known.index("n01443537")])
    torch.testing.assert_close(rows[1], weights["classifier.weight"].mean(0))
    text = "\n".join(start.lines())
    assert "2 rows by class name from 21,841; 1 without one take the mean of all rows: n99999999" in text
    assert "taken for imagenet-22k in timm's order" in text
    student = build_model(STUDENT, num_classes=3, size=32)
    assert take_over(tmp_path / "in21k.safetensors", student, class_names=("a", "b", "c")).assumed is None


def test_a_card_of_other_weights_is_refused(tmp_path: Path, teacher: tuple[Path, dict[str, Any]]) -> None:
    save_teacher(tmp_path)
    save_file(teacher[1] | {"conv_stem.weight": teacher[1]["conv_stem.weight"] + 1}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="belongs to other weights"):
        take_over(tmp_path, build_model(STUDENT, num_classes=10, size=32))


@pytest.mark.slow
def test_swin_n_learns_behind_the_copied_blocks_of_swin_t(store: Path, tmp_path: Path) -> None:
    weights = save_teacher(tmp_path / "teacher", name="swin_tiny_patch4_window7_224")
    start = {"student": "swin_n", "store": str(store), "init_from": str(tmp_path / "teacher"), "freeze_copied": True}
    own = load_file(train(TrainConfig(**{**vars(config(tmp_path / "run", epochs=1)), **start})).checkpoint)
    copied = {name for name in own if name.startswith(("patch_embed.", "layers.0.", "layers.1.", "layers.2."))}
    assert all(torch.equal(own[name], weights[name]) for name in copied)
    assert not any(torch.equal(own[name], weights[name]) for name in own if name not in copied)
