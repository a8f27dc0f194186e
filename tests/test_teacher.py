"""Teachers: where their weights come from, what they give, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import logitstore.hub
import logitstore.teacher.finding
from logitstore.cards import Card, Preprocessing, save_model, weights_sha256
from logitstore.errors import ModelError
from logitstore.images import ImageSet, open_images
from logitstore.models import restore_model
from logitstore.teacher import Teacher, load_teacher
from tests.helpers import MemoryImages

pytestmark = pytest.mark.usefixtures("torch_untouched", "own_directory")
VIEWS = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)


def make(name: str = "test_vit", num_classes: int = 7, seed: int = 0, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, num_classes=num_classes, **arguments).eval()
        for parameter in model.parameters():  # initial weights give nearly equal logits
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def expected(model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    images = (VIEWS / 255 - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    with torch.no_grad():
        logits: torch.Tensor = model(torch.from_numpy(images).float())
    return logits


def check_equal(teacher: Teacher, model: nn.Module) -> None:
    wanted = expected(model, teacher.preprocessing.mean, teacher.preprocessing.std)
    found = teacher.logits(VIEWS)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def save_with_card(path: Path, trained: nn.Module, **changes: Any) -> Card:
    values: dict[str, Any] = {
        "model": "test_vit",
        "model_args": {"img_size": 32},
        "num_classes": 7,
        "size": 32,
        "preprocessing": Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    }
    return save_model(path, trained.state_dict(), Card(**(values | changes)))


class Named(MemoryImages):
    """Pictures of a data set with a name, and perhaps class names."""

    def __init__(self, name: str, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(6, labels=[0, 1, 2, 0, 1, 2], side=32)
        self.name, self.class_names = name, class_names


@pytest.mark.parametrize("form", ["safetensors", "state_dict", "ema", "ddp"])
def test_weights_of_any_kind_of_checkpoint(tmp_path: Path, form: str) -> None:
    model = make(img_size=32)
    state = model.state_dict()
    path = tmp_path / ("m.safetensors" if form == "safetensors" else "m.pth")
    if form == "safetensors":
        save_file(state, path)
    elif form == "ema":
        torch.save({"state_dict": make(img_size=32, seed=1).state_dict(), "state_dict_ema": state}, path)
    else:
        torch.save({"state_dict": {("module." if form == "ddp" else "") + k: v for k, v in state.items()}}, path)
    said: list[str] = []
    teacher = load_teacher("test_vit", checkpoint=path, size=32, device="cpu", say=said.append)
    check_equal(teacher, model)
    assert teacher.num_classes == 7 and teacher.class_names is None
    assert teacher.preprocessing == Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=0.95)  # timm's for it
    assert teacher.sha256 == weights_sha256(state)
    assert len(said) == 1 and "7 classes" in said[0] and teacher.sha256[:16] in said[0] and str(path) in said[0]


def test_card_decides_preprocessing_and_class_names(tmp_path: Path) -> None:
    model = make(img_size=32)
    names = tuple("abcdefg")
    card = save_with_card(tmp_path / "model.safetensors", model, class_names=names)
    teacher = load_teacher("test_vit", checkpoint=tmp_path, size=32, device="cpu")
    assert (teacher.class_names, teacher.preprocessing) == (names, card.preprocessing)
    assert teacher.describe() == {
        "name": "test_vit",
        "sha256": card.sha256,
        "preprocessing": {
            "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.875, "interpolation": "bicubic"
        },
    }
    check_equal(teacher, model)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    model = make(img_size=32)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    plain, half = (
        load_teacher("test_vit", checkpoint=tmp_path / "m.pth", size=32, device="cpu", dtype=dtype).logits(VIEWS)
        for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert 0 < (plain - half).abs().max() < 0.1 * plain.abs().max()


def test_weights_of_another_size_are_resized() -> None:
    large = make(img_size=64)
    small = restore_model("test_vit", large.state_dict(), size=32)
    assert small.state_dict()["pos_embed"].shape != large.state_dict()["pos_embed"].shape
    assert torch.equal(small.state_dict()["blocks.0.attn.qkv.weight"], large.state_dict()["blocks.0.attn.qkv.weight"])


def test_position_biases_of_swin_are_resized() -> None:
    """A bias that grows evenly with the distance still does so in a smaller window."""
    state = make("swin_n", 2, img_size=224).state_dict()
    key = "layers.1.blocks.0.attn.relative_position_bias_table"
    distance = torch.arange(13.0) - 6
    state[key] = (10 * distance[:, None] + distance[None, :]).reshape(-1, 1).repeat(1, 6)
    small = restore_model("swin_n", state, size=32).state_dict()[key][:, 0].reshape(7, 7)
    middle = small[2:5, 2:5]
    torch.testing.assert_close((middle[1:] - middle[:-1]).mean(), (small[3, 3] - small[2, 3]), rtol=0.1, atol=0)
    assert small[3, 3].abs() < 1e-4 and small[6, 3] > small[3, 6] > 0


def test_tinyvit_keeps_the_windows_of_its_weights() -> None:
    plain = make("tiny_vit_5m_224", 3)
    restored = restore_model("tinyvit_5m", plain.state_dict(), size=32).eval()
    torch.testing.assert_close(restored(torch.ones(1, 3, 32, 32)), plain(torch.ones(1, 3, 32, 32)))
    fitted = make("tiny_vit_5m_224", 3, window_sizes=(7, 4, 2, 1))
    restored = restore_model("tinyvit_5m", fitted.state_dict(), size=32)
    assert weights_sha256(restored.state_dict()) == weights_sha256(fitted.state_dict())


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("test_vit2", make(img_size=32).state_dict(), "not of test_vit2"),
        ("test_vit", make(num_classes=0, img_size=32).state_dict(), "no classifier .*no head.weight"),
        ("test_vit", {"visual.proj": torch.zeros(3, 3)}, "tower"),
        ("swin_n", {"a": torch.zeros(3)}, "no classifier"),
    ],
    ids=["other model", "features only", "CLIP tower", "foreign"],
)
def test_weights_that_do_not_fit(name: str, state: dict[str, torch.Tensor], message: str) -> None:
    torch.save(state, "m.pth")
    with pytest.raises(ModelError, match=message) as caught:
        load_teacher(name, checkpoint="m.pth", size=32, device="cpu")
    assert "m.pth" in str(caught.value)


def test_a_card_of_another_model(tmp_path: Path) -> None:
    save_with_card(tmp_path / "model.safetensors", make(img_size=32))
    with pytest.raises(ModelError, match="holds weights of test_vit, not of test_vit2"):
        load_teacher("test_vit2", checkpoint=tmp_path, size=32, device="cpu")


def test_a_size_that_the_model_cannot_take() -> None:
    torch.save(make("efficientformer_l1", 2).state_dict(), "m.pth")
    with pytest.raises(ModelError, match="does not run on images of 32 px"):
        load_teacher("efficientformer_l1", checkpoint="m.pth", size=32, device="cpu")


class TestWithoutCheckpoint:
    """Where weights come from when none are named."""

    folder = Path("runs/finetune/test_vit-pets")

    def load(self, images: ImageSet | None, said: list[str] | None = None) -> Teacher:
        say = None if said is None else said.append
        return load_teacher("test_vit", images=images, size=32, device="cpu", say=say)

    @pytest.fixture
    def tag(self, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
        """Stands for timm's pretrained weights, which tests must not fetch."""
        model = make(num_classes=1000, img_size=32)

        monkeypatch.setattr(logitstore.teacher.finding, "pretrained_model", lambda *_, **__: model)
        return model

    def test_what_finetune_left_comes_first(self, tag: nn.Module) -> None:
        card = save_with_card(self.folder / "model.safetensors", make(img_size=32))
        assert self.load(Named("pets")).sha256 == card.sha256
        assert self.load(Named("cars")).sha256 == weights_sha256(tag.state_dict())
        assert self.load(None).num_classes == 1000

    @pytest.mark.parametrize(
        ("names", "fits"),
        [(None, True), (("g", "a"), True), (tuple("gfedcba"), True), (("a", "z"), False), (tuple("abcdefgh"), False)],
    )
    def test_classes_must_match_by_name(self, tag: nn.Module, names: tuple[str, ...] | None, fits: bool) -> None:
        card = save_with_card(self.folder / "model.safetensors", make(img_size=32), class_names=tuple("abcdefg"))
        said: list[str] = []
        teacher = self.load(Named("pets", names), said)
        assert (teacher.sha256 == card.sha256) is fits
        assert any("Not using" in line for line in said) is not fits

    def test_more_classes_than_the_teacher_knows(self, tag: nn.Module) -> None:
        save_with_card(self.folder / "model.safetensors", make(num_classes=2, img_size=32), num_classes=2)
        said: list[str] = []
        assert self.load(Named("pets"), said).num_classes == 1000
        assert "knows 2 classes, the data set has 3" in said[0]

    def test_short_and_long_names_are_one_teacher(self) -> None:
        long = "deit_tiny_patch16_224"
        card = save_with_card(
            Path("runs/finetune/deit_t-pets/model.safetensors"), make(long, img_size=32), model=long
        )
        for name in ("deit_t", "deit_ti", long):
            assert load_teacher(name, images=Named("pets"), size=32, device="cpu").sha256 == card.sha256

    def test_pretrained_weights_bring_imagenets_names(self, tag: nn.Module) -> None:
        said: list[str] = []
        teacher = self.load(Named("pets"), said)
        assert teacher.class_names is not None and teacher.class_names[0] == "n01440764"
        assert "pretrained tag" in said[-1] and teacher.sha256[:16] in said[-1]
        check_equal(teacher, tag)

    def test_digits_take_no_pretrained_weights(self, tag: nn.Module) -> None:
        with pytest.raises(ModelError, match="`logitstore finetune --teacher test_vit --data digits`"):
            self.load(open_images("digits"))

    def test_without_a_network(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(logitstore.hub, "_reachable", lambda endpoint: False)
        with pytest.raises(ModelError, match=r"no network.*--checkpoint"):
            load_teacher("test_vit3", size=160, device="cpu")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("vit_base_patch16_clip_224.openai", "512 outputs are an embedding"),
            ("resnet50_clip.openai", "1024 outputs are an embedding"),
            ("vit_base_patch14_dinov2.lvd142m", "features only"),
            ("swin_n", "no pretrained weights"),
            ("swim_t", "close ones are"),
        ],
    )
    def test_what_can_be_no_teacher(self, name: str, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            load_teacher(name, size=224, device="cpu")
