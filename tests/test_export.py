"""Exported students: the same logits in each format, a card that tells their origin, nothing left that differs."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from export_cases import tiny_weights
from PIL import Image
from safetensors import safe_open
from torch import nn
from train_cases import config, make_store

import logitstore
from logitstore.cards import Card, load_card, load_model, load_weights, save_model
from logitstore.device import Compute
from logitstore.errors import ModelError
from logitstore.evaluate import EvalConfig, evaluate
from logitstore.export import ExportConfig, ExportResult, export
from logitstore.export.config import FORMATS as NAMES
from logitstore.export.formats import FORMATS
from logitstore.images import open_images
from logitstore.train import TrainResult, train
from logitstore.trained import TrainedModel, load_trained

SMALL = ("embed_dims=16:32:48:64", "num_heads=1:1:2:2", "depths=1:1:1:1")
STUDENT = {"student": "tinyvit_5m", "student_args": SMALL, "drop_path": None}
SAMPLE = 5  # of the digits that are validated on


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A small TinyViT, distilled for one epoch."""
    folder = tmp_path_factory.mktemp("export")
    return train(config(folder / "small", store=str(make_store(folder / "store")), epochs=1, **STUDENT))


@pytest.fixture(scope="module")
def original(run: TrainResult) -> TrainedModel:
    return load_trained(run.out, option="--checkpoint", compute=Compute(device=torch.device("cpu")))


@pytest.fixture(scope="module")
def exported(run: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportResult]:
    folder = tmp_path_factory.mktemp("exported")
    return {name: export(ExportConfig(checkpoint=run.out, format=name, out=str(folder / name))) for name in NAMES}


def metadata(result: ExportResult) -> dict[str, str]:
    """What an exported file says of itself, read without any of our code."""
    if result.format == "onnx":
        return {entry.key: entry.value for entry in onnx.load(result.file).metadata_props}
    if result.format == "safetensors":
        with safe_open(result.file, framework="numpy") as weights:
            return dict(weights.metadata())
    with zipfile.ZipFile(result.file) as archive:
        extra = [name for name in archive.namelist() if "/extra/" in name]
        return {name.partition("/extra/")[2]: archive.read(name).decode() for name in extra}


@pytest.mark.parametrize("name", NAMES)
def test_the_file_agrees_and_its_card_says_what_it_is(
    name: str, run: TrainResult, exported: dict[str, ExportResult]
) -> None:
    result = exported[name]
    assert result.difference <= 1e-5 and (name != "safetensors" or result.difference == 0)
    card, trained = load_card(result.file), load_card(run.out)
    assert card is not None and trained is not None
    assert (card.sha256, card.model_args, card.preprocessing) == (
        trained.sha256, trained.model_args, trained.preprocessing
    )  # fmt: skip
    assert (card.accuracy, card.training) == (trained.accuracy, trained.training)
    assert "export" not in trained.to_dict()
    told = card.export
    assert told["file_sha256"] == hashlib.sha256(Path(result.file).read_bytes()).hexdigest()
    assert told["parameters"] == sum(tensor.numel() for tensor in timm_model(card).parameters())
    assert told["macs"] > 1e5
    assert (told["versions"]["timm"], told["versions"]["logitstore"]) == (timm.__version__, logitstore.__version__)
    wanted = {"README.md", "model.json", FORMATS[name].file} | ({"config.json"} if name == "safetensors" else set())
    assert {path.name for path in Path(result.out).iterdir()} == wanted


def timm_model(card: Card) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = timm.create_model(card.model, num_classes=card.num_classes, **card.model_args)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_the_file_alone_tells_a_stranger_what_to_feed_it(name: str, exported: dict[str, ExportResult]) -> None:
    says = metadata(exported[name])
    assert says["architecture"] == "tiny_vit_5m_224"
    assert json.loads(says["class_names"]) == [str(digit) for digit in range(10)]
    assert json.loads(says["mean"]) == [0.485, 0.456, 0.406] and json.loads(says["std"]) == [0.229, 0.224, 0.225]
    assert (says["size"], says["num_classes"], says["interpolation"]) == ("32", "10", "bicubic")
    (teacher,) = json.loads(says["teachers"])
    assert teacher["name"] == "train_cases:pooled_teacher" and len(says["store"]) == 64


@pytest.mark.parametrize("name", NAMES)
def test_the_page_tells_origin_and_accuracy(name: str, run: TrainResult, exported: dict[str, ExportResult]) -> None:
    page, card = (Path(exported[name].out) / "README.md").read_text(), load_card(run.out)
    assert card is not None and card.accuracy is not None
    low, high = card.accuracy["top1_interval"]
    shown = f"{100 * card.accuracy['top1_share']:.2f}% top-1 ({100 * low:.2f} to {100 * high:.2f} at 95%)"
    assert f"{shown}, " in page and "360 images of digits (val)." in page
    assert "| architecture | `tiny_vit_5m_224` of timm (" in page
    for part in ("train_cases:pooled_teacher (SHA-256 ", card.training["store"], "| recipe | digits |", card.sha256):
        assert part in page
    assert f"| parameters | {exported[name].parameters:,} |" in page


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_the_page_classifies_an_image(
    name: str, exported: dict[str, ExportResult], original: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images("digits", split="val")
    with original.logits(images) as batches:
        wanted = torch.cat([logits for _, logits in batches])[SAMPLE]
    folder = Path(exported[name].out)
    Image.fromarray(images.pixels(SAMPLE)).save(folder / "image.png")
    monkeypatch.chdir(folder)
    try:
        found = run_code(folder / "README.md")
    finally:
        (folder / "image.png").unlink()
    np.testing.assert_allclose(np.asarray(found["logits"].tolist())[0], wanted.numpy(), atol=1e-3)
    assert found["best"] == int(wanted.argmax())


def run_code(page: Path) -> dict[str, Any]:
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "documented"}
    exec(compile(code, str(page), "exec"), namespace)
    return namespace


def test_the_code_of_the_page_crops_as_the_card_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A white picture with a black frame, a sixteenth of its side wide, comes out white."""
    state, card = load_model(tiny_weights(tmp_path / "in"))
    assert card is not None
    wants = replace(card.preprocessing, crop_pct=0.875)
    save_model(tmp_path / "in" / "model.safetensors", state, replace(card, preprocessing=wants))
    folder = Path(export(ExportConfig(checkpoint=str(tmp_path / "in"), out=str(tmp_path / "out"))).out)
    framed = np.pad(np.full((140, 140, 3), 255, np.uint8), ((10, 10), (10, 10), (0, 0)))
    Image.fromarray(framed).save(folder / "image.png")
    monkeypatch.chdir(folder)
    white = ((1 - np.array(wants.mean)) / wants.std).reshape(1, 3, 1, 1)
    inner = run_code(folder / "README.md")["batch"][:, :, 1:-1, 1:-1]  # the filter reaches a little over the edge
    np.testing.assert_allclose(inner, np.tile(white, (1, 1, 30, 30)), atol=0.1)


def test_timm_makes_the_model_of_the_folder_also_as_a_backbone(
    exported: dict[str, ExportResult], original: TrainedModel
) -> None:
    source = f"local-dir:{exported['safetensors'].out}"
    model, backbone = (timm.create_model(source, pretrained=True, features_only=only).eval() for only in (False, True))
    assert model.pretrained_cfg["label_names"] == [str(digit) for digit in range(10)]
    assert timm.data.resolve_model_data_config(model)["crop_pct"] == original.preprocessing.crop_pct == 1.0
    assert not {"license", "tag"} & model.pretrained_cfg.keys(), "they are of other weights"
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model(images), original.model(images))
        wanted = original.model.forward_intermediates(images, intermediates_only=True)
        assert all(map(torch.equal, backbone(images), wanted))


def test_the_folder_is_a_checkpoint_again(run: TrainResult, exported: dict[str, ExportResult]) -> None:
    result = evaluate(EvalConfig(checkpoint=exported["safetensors"].out, workers=1))
    assert run.accuracy is not None and result.top1 == run.accuracy["top1_share"]


def test_another_size_is_exported_and_said_not_to_be_measured(tmp_path: Path) -> None:
    checkpoint = tiny_weights(tmp_path / "small")
    result = export(ExportConfig(checkpoint=str(checkpoint), size=48, out=str(tmp_path / "out")))
    card, page = load_card(result.file), (tmp_path / "out" / "README.md").read_text()
    assert card is not None and (card.size, result.size, card.model_args) == (48, 48, {"img_size": 48})
    assert load_weights(result.file)["pos_embed"].shape[1] == 10  # nine patches of 16 px and a class token
    assert "That was measured at 32 px; at 48 px it was not." in page
    export(ExportConfig(checkpoint=str(tmp_path / "out"), size=64, out=str(tmp_path / "again")))
    assert "That was measured at 32 px; at 64 px it was not." in (tmp_path / "again" / "README.md").read_text()
    for row in (
        r"| classes | a\|b, c d, e |",
        r"| data | some \| data, 12 images, fingerprint f |",
        "| teacher | one (SHA-256 1); two |",
        "| teacher in memory | third (SHA-256 3) |",
        "| store | a, b |",
        "| weights of the stores | 0.25, 0.75 |",
        "| loss | kl with the teacher, joined with hard labels (ratio) |",
    ):
        assert row in page


def test_weights_without_a_card_need_the_name_of_the_model(tmp_path: Path) -> None:
    checkpoint = tiny_weights(tmp_path / "small")
    (checkpoint / "model.json").unlink()
    with pytest.raises(ModelError, match="name it with --model"):
        export(ExportConfig(checkpoint=str(checkpoint), out=str(tmp_path / "out")))
    export(ExportConfig(checkpoint=str(checkpoint), model="test_vit", size=32, out=str(tmp_path / "out")))
    page = (tmp_path / "out" / "README.md").read_text()
    assert "It was not measured." in page and "not known" in page and "| classes | without names |" in page


def test_folders_are_named_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_weights(tmp_path / "vit-digits")
    assert export(ExportConfig(checkpoint=str(folder))).out == "runs/export/vit-digits-safetensors"
    for ending in ("safetensors", "json"):
        (folder / f"model.{ending}").rename(folder / f"best.{ending}")
    result = export(ExportConfig(checkpoint=str(folder / "best.safetensors")))
    assert result.out == "runs/export/vit-digits-best-safetensors"
