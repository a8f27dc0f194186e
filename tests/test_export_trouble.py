"""What an export refuses, and that nothing is left of one that fails."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from export_cases import tiny_weights
from helpers import small_disk
from timm.models import register_model
from torch import Tensor, nn

from logitstore.cards import Card, load_card, load_model, save_model
from logitstore.errors import InputError, ModelError
from logitstore.export import ExportConfig, export
from logitstore.export.config import FORMATS as NAMES
from logitstore.export.formats import FORMATS
from logitstore.models import default_preprocessing


@pytest.mark.usefixtures("torch_untouched")
def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    folder, out = tiny_weights(tmp_path / "vit"), tmp_path / "out"
    with pytest.raises(InputError, match="holds something else"):
        export(ExportConfig(checkpoint=str(folder), out=str(folder)))
    first = export(ExportConfig(checkpoint=str(folder), out=str(out)))
    (out / "README.md").write_text("old")
    assert export(ExportConfig(checkpoint=str(folder), out=str(out))) == first
    assert (out / "README.md").read_text() != "old"
    with pytest.raises(InputError, match="holds something else than a model exported as onnx"):
        export(ExportConfig(checkpoint=str(folder), out=str(out), format="onnx"))
    assert not list(tmp_path.glob(".*")), "work folders are gone"


class Drifting(nn.Module):
    """Adds how often it was called: a recording of it always adds the same."""

    def __init__(self, *, moody: bool) -> None:
        super().__init__()
        self.head, self.moody, self.calls = nn.Linear(3, 3), moody, 0
        self.num_classes, self.pretrained_cfg = 3, {"classifier": "head"}

    def forward(self, images_BCHW: Tensor) -> Tensor:
        self.calls += 1
        if self.moody and images_BCHW.sum() > 0:  # a program cannot know
            images_BCHW = -images_BCHW
        return self.head(images_BCHW.mean((2, 3))) + (0 if self.moody else self.calls)


@register_model
def test_export_drifting(pretrained: bool = False, **options: Any) -> nn.Module:
    return Drifting(moody=False)


@register_model
def test_export_moody(pretrained: bool = False, **options: Any) -> nn.Module:
    return Drifting(moody=True)


test_export_drifting.__test__ = test_export_moody.__test__ = False


@pytest.mark.usefixtures("torch_untouched")
@pytest.mark.parametrize(
    ("model", "message"),
    [("test_export_drifting", "does not survive as onnx"), ("test_export_moody", "cannot be exported as onnx")],
)
def test_a_file_that_differs_or_cannot_be_is_not_left(model: str, message: str, tmp_path: Path) -> None:
    state = {"head.weight": torch.eye(3), "head.bias": torch.zeros(3)}
    card = Card(model=model, num_classes=3, size=8, preprocessing=default_preprocessing(None))
    save_model(tmp_path / "in" / "model.safetensors", state, card)
    with pytest.raises(ModelError, match=message):
        export(ExportConfig(checkpoint=str(tmp_path / "in"), format="onnx", out=str(tmp_path / "deep" / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_not_the_models_fault(name: str, tmp_path: Path) -> None:
    checkpoint = tiny_weights(tmp_path / "in")
    out = tmp_path / "deep" / "out"
    with small_disk(20_000), pytest.raises(OSError, match="File too large") as full:
        export(ExportConfig(checkpoint=str(checkpoint), format=name, out=str(out)))
    assert full.value.filename == str(out)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_export_that_is_half_replaced_has_its_old_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, out = tiny_weights(tmp_path / "in"), tmp_path / "out"
    before = load_card(export(ExportConfig(checkpoint=str(checkpoint), out=str(out))).file)
    replace = Path.replace

    def failing(path: Path, target: Path) -> Path:
        if target == out / "model.safetensors":
            raise OSError(errno.EIO, "Input/output error", str(target))
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output error"):
        patch.setattr(Path, "replace", failing)
        export(ExportConfig(checkpoint=str(checkpoint), out=str(out), size=48))
    assert load_card(out) == before
    assert export(ExportConfig(checkpoint=str(checkpoint), out=str(out), size=48)).size == 48


def test_logits_that_are_no_numbers_do_not_agree(tmp_path: Path) -> None:
    state, card = load_model(tiny_weights(tmp_path / "in"))
    assert card is not None
    state["head.bias"][0] = torch.nan
    save_model(tmp_path / "in" / "model.safetensors", state, card)
    with pytest.raises(ModelError, match="does not survive as safetensors"):
        export(ExportConfig(checkpoint=str(tmp_path / "in"), out=str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_a_killed_export_left_goes_with_the_next(tmp_path: Path) -> None:
    checkpoint = tiny_weights(tmp_path / "in")
    left = [tmp_path / f".out.export.{number}.tmp" for number in (1, os.getpid())]
    for folder in left:
        folder.mkdir()
        (folder / "model.safetensors").write_text("half")
    export(ExportConfig(checkpoint=str(checkpoint), out=str(tmp_path / "out")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_without_onnx_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs onnxscript, .* pip install 'logitstore\[export\]'"):
        export(ExportConfig(checkpoint="nowhere", format="onnx"))


def test_unknown_formats_are_refused() -> None:
    assert tuple(FORMATS) == NAMES
    with pytest.raises(InputError, match="safetensors, onnx, torch_export, got pickle"):
        ExportConfig(checkpoint="x", format="pickle")
    with pytest.raises(InputError, match="--size"):
        ExportConfig(checkpoint="x", size=0)
