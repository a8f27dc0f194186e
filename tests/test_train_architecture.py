"""Students whose architecture is given: arguments as text, in a run, on the card, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import students
from logitstore.cards import load_model
from logitstore.errors import InputError, MismatchError, ModelError
from logitstore.models import build_model, restore_model
from logitstore.train import TrainConfig, train

SLIM = ("embed_dims=16:32:48:64", "depths=1:1:2:1", "num_heads=1:2:3:4", "mlp_ratio=2.0")


def test_arguments_are_numbers_truth_values_and_lists() -> None:
    found = students.parse_arguments(["depths=2:2:6:2", "mlp_ratio=3", "ratio=1.5e-1", "a=true", "b=false", "c=-4"])
    assert found == {"depths": (2, 2, 6, 2), "mlp_ratio": 3, "ratio": 0.15, "a": True, "b": False, "c": -4}
    assert isinstance(found["mlp_ratio"], int) and isinstance(found["ratio"], float)
    assert students.parse_arguments([]) == {}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (["depths"], "'depths' is no argument of a model"),
        (["depths=2:x"], "'depths=2:x' is no argument"),
        (["act_layer=gelu"], "numbers joined by colons"),
        (["a=1", "a=2"], "a is given twice"),
        (["num_classes=3"], "the data set says how many classes"),
        (["img_size=64"], "give --size"),
        (["pretrained=true"], "start with given weights"),
    ],
)
def test_what_is_no_argument(written: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        students.parse_arguments(written)
    with pytest.raises(InputError, match=message):
        TrainConfig(student_args=tuple(written))


def test_how_many_blocks_share(tmp_path: Path) -> None:
    assert TrainConfig(share="all").architecture == {"share": 0}
    assert TrainConfig(share="2", student_args=("a=1",)).architecture == {"a": 1, "share": 2}
    (tmp_path / "options.yaml").write_text("share: 3\n")
    assert TrainConfig.from_yaml(tmp_path / "options.yaml").architecture == {"share": 3}
    for share in ("0", 0, "-1", -1, "some", "1.5"):
        with pytest.raises(InputError, match="--share must be a number of blocks"):
            TrainConfig(share=share)
    with pytest.raises(InputError, match="say the same"):
        TrainConfig(share="2", student_args=("share=3",))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("colour=3", "tinyvit_5m takes no argument colour"),
        ("embed_dims=64", "tinyvit_5m cannot be made with embed_dims=64"),
        ("embed_dims=64:128", "cannot be made"),
        ("num_heads=0:0:0:0", "cannot be made"),
    ],
)
def test_a_model_that_cannot_be_made(argument: str, message: str) -> None:
    given = students.build_arguments("tinyvit_5m", 32, students.parse_arguments([argument]))
    with pytest.raises(ModelError, match=message):
        build_model("tinyvit_5m", num_classes=3, size=32, model_args=given)


def test_given_windows_are_cut_to_the_maps() -> None:
    given = {"window_sizes": (7, 7, 7, 7)}
    assert students.build_arguments("tinyvit_5m", 224, given) == given
    assert students.build_arguments("tinyvit_5m", 64, given) == {"window_sizes": (7, 7, 4, 2)}
    assert students.build_arguments("swin_n", 64, {"mlp_ratio": 2.0}) == {"mlp_ratio": 2.0, "img_size": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "made.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(12) % 3)
    return path


def test_a_run_of_another_architecture(data: Path, tmp_path: Path) -> None:
    """Trained, saved, restored as it is and at another size, resumed; the same folder refuses other arguments."""
    config = {
        "student": "tinyvit_5m", "data": str(data), "hard_labels_only": True, "out": str(tmp_path / "run"),
        "epochs": 1, "batch_size": 4, "tensorboard": False, "device": "cpu",
    }  # fmt: skip
    result = train(TrainConfig(**config, student_args=SLIM))
    state, card = load_model(result.checkpoint)
    assert card is not None and card.model_args["embed_dims"] == [16, 32, 48, 64]
    assert card.training["student_args"]["mlp_ratio"] == 2.0
    assert sum(tensor.numel() for tensor in state.values()) < 300_000
    model = restore_model(card.model, state, size=32, card=card)
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000
    with torch.no_grad():
        assert restore_model(card.model, state, size=64, card=card).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    again = TrainConfig.from_yaml(tmp_path / "run" / "run.yaml")
    assert again.student_args == SLIM and train(again).steps == result.steps
    with pytest.raises(MismatchError, match=r"student_args\.mlp_ratio"):
        train(TrainConfig(**config, student_args=(*SLIM[:3], "mlp_ratio=3.0")))
    written = json.loads((tmp_path / "run" / "model.json").read_text())
    assert written["training"]["student_args"]["depths"] == [1, 1, 2, 1]
