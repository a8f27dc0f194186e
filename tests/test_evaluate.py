"""Accuracy: ranks, intervals, the files and the labels it is measured on."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_cases import MODEL, PLAIN, WNIDS, constant_model
from helpers import MemoryImages, write_images
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binomtest
from torch import Tensor, nn

from logitstore.accuracy import wilson_interval
from logitstore.cards import Card, save_model
from logitstore.device import Compute
from logitstore.errors import DataError, InputError, ModelError, NonFiniteError
from logitstore.evaluate import EvalConfig, evaluate
from logitstore.images import open_images
from logitstore.models import build_model
from logitstore.progress import Progress
from logitstore.scoring import label_ranks, score

ON_CPU = Compute(device=torch.device("cpu"))


class Fixed(nn.Module):
    """The same logits for the samples in order, whatever they look like."""

    def __init__(self, logits_NC: Tensor) -> None:
        super().__init__()
        self.logits_NC = logits_NC
        self.done = 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        start, self.done = self.done, self.done + len(images_BCHW)
        return self.logits_NC[start : self.done]


def fixed_score(logits_NC: Tensor, labels: list[int], batch_size: int = 3) -> tuple[int, int, int]:
    images = MemoryImages(len(labels), labels=labels)
    compute = Compute(device=torch.device("cpu"), batch_size=batch_size)
    accuracy = score(Fixed(logits_NC), images, size=16, preprocessing=PLAIN, compute=compute)
    return accuracy.top1, accuracy.top5, accuracy.images


def test_ranks_are_exact_and_ties_go_to_the_lower_class() -> None:
    logits_NC = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3]] * 6 + [[1.0] * 7] * 4)
    labels = [0, 1, 4, 5, 6, 0, 0, 1, 4, 5]
    # Rows of equal logits rank classes by their number: 0 is first, 0 to 4 are the first five.
    assert fixed_score(logits_NC, labels) == (3, 7, 10)


def test_fewer_than_five_classes() -> None:
    assert fixed_score(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), [0, 0]) == (1, 2, 2)


def test_random_logits_against_sorting() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 12, (50, 20)).astype(np.float32)
    labels = rng.integers(0, 20, 50).tolist()
    order = np.argsort(-logits, axis=1, kind="stable")
    ranks = [int(np.flatnonzero(order[row] == label)[0]) for row, label in enumerate(labels)]
    expected = (sum(rank < 1 for rank in ranks), sum(rank < 5 for rank in ranks), 50)
    assert fixed_score(torch.from_numpy(logits), labels, batch_size=16) == expected


@given(seed=st.integers(0, 10_000))
def test_several_right_classes_count_by_the_first_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits_BC = rng.integers(0, 4, (8, 6)).astype(np.float32)  # with many ties
    label_BL = rng.integers(-1, 6, (8, 3))
    expected = []
    for row, labels in enumerate(label_BL):
        order = np.argsort(-logits_BC[row], kind="stable").tolist()
        expected.append(min((order.index(label) for label in labels if label >= 0), default=6))
    assert label_ranks(torch.from_numpy(logits_BC), label_BL).tolist() == expected


def test_what_cannot_be_scored() -> None:
    with pytest.raises(NonFiniteError, match="NaN"):
        fixed_score(torch.tensor([[float("nan"), 1.0]]), [0])
    with pytest.raises(DataError, match="outside the model's 2 classes"):
        fixed_score(torch.zeros(1, 2), [2])
    with pytest.raises(DataError, match="no labels to measure accuracy"):
        score(Fixed(torch.zeros(2, 2)), MemoryImages(2), size=8, preprocessing=PLAIN, compute=ON_CPU)


def test_mode_is_restored() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 64, 2))
    for training in (True, False):
        model.train(training)
        score(model, MemoryImages(2, labels=[0, 1]), size=8, preprocessing=PLAIN, compute=ON_CPU)
        assert model.training == training


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (5, 10), (357, 360), (10, 10), (1, 1)])
def test_wilson_intervals(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def card() -> Card:
    names = tuple(str(digit) for digit in range(10))
    return Card(
        model=MODEL, model_args={"img_size": 32}, num_classes=10, class_names=names, size=32, preprocessing=PLAIN
    )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    state = build_model(MODEL, num_classes=10, size=32, seed=1).state_dict()
    save_model(tmp_path / "model.safetensors", state, card())
    return tmp_path / "model.safetensors"


def test_a_file_with_its_card(checkpoint: Path) -> None:
    result = evaluate(EvalConfig(checkpoint=str(checkpoint), workers=1))
    assert (result.model, result.data, result.split) == (MODEL, "digits", "val")
    assert (result.size, result.num_samples) == (32, 360)
    assert 0 <= result.top1_interval[0] <= result.top1 <= result.top1_interval[1] <= result.top5 <= 1
    assert evaluate(EvalConfig(checkpoint=str(checkpoint.parent), batch_size=7, workers=2)) == result
    found = result.to_dict()
    assert (found["top1_count"], found["top5_count"]) == (round(found["top1"] * 360), round(found["top5"] * 360))
    for name in ("top1", "top5"):
        expected = binomtest(found[f"{name}_count"], 360).proportion_ci(method="wilson")
        assert found[f"{name}_interval"] == pytest.approx([expected.low, expected.high], abs=1e-9)
    assert [found[name] for name in ("real", "agreement", "gains")] == [None, None, None]
    lines = result.lines()
    assert list(lines) == ["checkpoint", "data", "top-1", "top-5"]
    assert f"{found['top5_count']} of 360" in lines["top-5"] and "at 95%" in lines["top-5"]


def test_a_file_without_a_card_needs_a_name(checkpoint: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes(checkpoint.read_bytes())
    with pytest.raises(ModelError, match="name it with --model"):
        evaluate(EvalConfig(checkpoint=str(bare)))
    result = evaluate(EvalConfig(checkpoint=str(bare), model=MODEL, workers=1))
    assert (result.num_samples, result.size) == (360, 32)


def test_unusable_input(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No file of weights"):
        evaluate(EvalConfig(checkpoint=str(tmp_path / "nothing.safetensors")))
    with pytest.raises(ModelError):
        evaluate(EvalConfig(checkpoint=str(checkpoint), model="test_resnet"))
    with pytest.raises(ModelError, match="does not run on images of 50 px"):
        evaluate(EvalConfig(checkpoint=str(checkpoint), size=50))
    with pytest.raises(InputError, match="--batch-size must be at least 1"):
        EvalConfig(checkpoint=str(checkpoint), batch_size=0)
    write_images(tmp_path / "images", ["a.png", "b.png"])
    with pytest.raises(DataError, match="no labels"):
        evaluate(EvalConfig(checkpoint=str(checkpoint), data=str(tmp_path / "images")))
    write_images(tmp_path / "classes", ["val/cat/a.png", "val/dog/b.png"])
    with pytest.raises(InputError, match="classes"):
        evaluate(EvalConfig(checkpoint=str(checkpoint), data=str(tmp_path / "classes")))
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError):
        evaluate(EvalConfig(checkpoint=str(tmp_path / "x.safetensors"), model=MODEL))


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """Folders 3 and 7 are classes 3 and 7 of the model, not its classes 0 and 1."""
    write_images(tmp_path / "images", [f"val/{digit}/{number}.png" for digit in (3, 7) for number in range(3)])
    state = build_model(MODEL, num_classes=10, size=32).state_dict()
    state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    state["head.bias"] = torch.nn.functional.one_hot(torch.tensor(7), 10).float()
    save_model(tmp_path / "seven.safetensors", state, card())
    result = evaluate(EvalConfig(checkpoint=str(tmp_path / "seven.safetensors"), data=str(tmp_path / "images")))
    assert (result.top1, result.matched) == (0.5, "name")


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """ImageNet-V2's way: folders named by class numbers, not all of them there."""
    write_images(tmp_path / "v2", [f"{number}/{i}.jpeg" for number in (0, 2, 10, 100, 999) for i in range(2)])
    return tmp_path / "v2"


@pytest.mark.parametrize("names", [WNIDS, None], ids=["class names", "no names"])
@pytest.mark.parametrize(("winner", "share"), [(100, 0.2), (10, 0.2), (3, 0), (999, 0.2)])
def test_numbered_folders_are_class_numbers(
    names: tuple[str, ...] | None, winner: int, share: float, numbered: Path, tmp_path: Path
) -> None:
    """Neither by their place among the folders that are there, nor by the order of their names as text."""
    model = constant_model(tmp_path / "model.safetensors", winner, names)
    result = evaluate(EvalConfig(checkpoint=model, data=str(numbered), workers=1))
    assert (result.top1, result.matched, result.num_samples) == (share, "number", 10)


def test_numbers_taken_for_classes_are_told(numbered: Path, tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model.safetensors", 0, WNIDS)
    out = io.StringIO()
    evaluate(EvalConfig(checkpoint=model, data=str(numbered), workers=1), partial(Progress, stream=out))
    assert "The classes of v2 are named by numbers" in out.getvalue()


def test_numbered_folders_also_in_a_subset(numbered: Path, tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model.safetensors", 100, WNIDS)
    assert evaluate(EvalConfig(checkpoint=model, data=str(numbered), subset=5, workers=1)).top1 == 0.2


def test_numbers_that_are_no_classes(numbered: Path, tmp_path: Path) -> None:
    model = constant_model(tmp_path / "model.safetensors", 0, tuple(f"c{i}" for i in range(100)), 100)
    with pytest.raises(InputError, match=r"2 \(100, 999\) are no class numbers of a model whose 100 classes"):
        evaluate(EvalConfig(checkpoint=model, data=str(numbered)))


@pytest.mark.parametrize("folders", [("00", "01"), ("1", "one"), ("1.5", "2")], ids=str)
def test_other_names_are_no_numbers(folders: tuple[str, ...], tmp_path: Path) -> None:
    write_images(tmp_path / "images", [f"{name}/1.png" for name in folders])
    model = constant_model(tmp_path / "model.safetensors", 0, WNIDS)
    with pytest.raises(InputError, match="classes are not among"):
        evaluate(EvalConfig(checkpoint=model, data=str(tmp_path / "images")))


def test_where_something_is_learnt_classes_go_by_name(numbered: Path) -> None:
    with pytest.raises(InputError, match="5 of the data set's 5 classes are not among"):
        open_images(str(numbered)).relabelled(WNIDS)
