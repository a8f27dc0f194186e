"""ImageNet-ReaL: the right classes of ImageNet's validation images, against timm's own count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_cases import MODEL, PLAIN, WNIDS, constant_model
from helpers import write_images
from numpy.typing import NDArray
from timm.data import RealLabelsImagenet

from logitstore.accuracy import wilson_interval
from logitstore.cards import Card, load_model, save_model
from logitstore.device import Compute
from logitstore.errors import DataError, InputError
from logitstore.evaluate import EvalConfig, evaluate
from logitstore.evaluate.real import numbered_by_model
from logitstore.images import open_images
from logitstore.models import build_model
from logitstore.scoring import eval_logits

ON_CPU = Compute(device=torch.device("cpu"))

# Of ImageNet's first validation images, some have no ReaL label, some several.
VALIDATION = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 25)]


def varied_model(path: Path, names: tuple[str, ...] | None) -> str:
    """A model of 1000 classes whose favourites are often ReaL labels of the first validation images."""
    state = dict(build_model(MODEL, num_classes=1000, size=32, seed=4).state_dict())
    labels = RealLabelsImagenet(all_files()).real_labels
    state["head.weight"] = state["head.weight"] * 20
    for name in VALIDATION[::2]:
        state["head.bias"][labels[name]] += 6
    values = {"model": MODEL, "model_args": {"img_size": 32}, "size": 32, "preprocessing": PLAIN}
    save_model(path, state, Card(**values, num_classes=1000, class_names=names))
    return str(path)


def all_files(first: list[str] | None = None) -> list[str]:
    """All 50,000 names, these before the others."""
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 50_001)]
    return [*(first or []), *(name for name in names if name not in (first or []))]


def logits_of(path: str, images: str) -> NDArray[np.float32]:
    state, _ = load_model(path)
    model = build_model(MODEL, num_classes=1000, size=32).eval()
    model.load_state_dict(state)
    data = open_images(images, split="val", whole=True)
    found = eval_logits(model, data, size=32, preprocessing=PLAIN, compute=ON_CPU)
    return torch.cat([logits for _, logits in found]).numpy()


def test_real_labels_of_a_flat_folder_are_timms(tmp_path: Path) -> None:
    write_images(tmp_path / "val", VALIDATION)
    path = varied_model(tmp_path / "model.safetensors", None)
    result = evaluate(EvalConfig(checkpoint=path, data=str(tmp_path / "val"), real=True, workers=1))
    timms = RealLabelsImagenet(all_files(VALIDATION))
    timms.add_result(torch.from_numpy(logits_of(path, str(tmp_path / "val"))))
    assert result.accuracy is None and result.real is not None
    with_labels = len(timms.is_correct[1])
    assert 0 < with_labels < len(VALIDATION) == result.num_samples
    assert result.real.images == with_labels
    assert (result.real.top1, result.real.top5) == (sum(timms.is_correct[1]), sum(timms.is_correct[5]))
    assert 0 < result.real.top1 < result.real.top5 < with_labels  # a test that could fail either way
    found = result.to_dict()
    assert found["top1"] is None and found["top1_interval"] is None and found["matched"] is None
    assert found["real"]["top1"] == pytest.approx(timms.get_accuracy(1) / 100)
    assert found["real"]["top5_interval"] == list(wilson_interval(result.real.top5, with_labels))
    assert list(result.lines()) == ["checkpoint", "data", "ReaL top-1", "ReaL top-5"]


def test_real_labels_beside_the_folders_own(tmp_path: Path) -> None:
    """With class folders both are measured; a model whose classes stand in another order is matched by name."""
    write_images(tmp_path / "flat", VALIDATION)
    write_images(tmp_path / "val", [f"{WNIDS[i % 5]}/{name}" for i, name in enumerate(VALIDATION)])
    for i, name in enumerate(VALIDATION):
        (tmp_path / "val" / WNIDS[i % 5] / name).write_bytes((tmp_path / "flat" / name).read_bytes())
    plain = varied_model(tmp_path / "model.safetensors", WNIDS)
    state, card = load_model(plain)
    order = np.random.default_rng(0).permutation(1000).tolist()
    turned = {name: tensor[order] if name.startswith("head.") else tensor for name, tensor in state.items()}
    assert card is not None
    names = tuple(WNIDS[number] for number in order)
    save_model(tmp_path / "turned.safetensors", turned, replace(card, class_names=names))
    results = [
        evaluate(EvalConfig(checkpoint=path, data=str(tmp_path / folder), real=True, workers=1))
        for path, folder in ((plain, "val"), (str(tmp_path / "turned.safetensors"), "val"), (plain, "flat"))
    ]
    assert results[0].real is not None and results[0].real == results[1].real == results[2].real
    assert results[0].accuracy == results[1].accuracy and results[0].matched == "name"
    assert list(results[0].lines()) == ["checkpoint", "data", "top-1", "top-5", "ReaL top-1", "ReaL top-5"]


def test_classes_named_by_numbers_in_any_order() -> None:
    label_NL = np.array([[3, 999], [0, -1], [-1, -1]])
    backwards = tuple(str(999 - number) for number in range(1000))
    assert numbered_by_model(label_NL, backwards, 1000).tolist() == [[996, 0], [999, -1], [-1, -1]]
    assert numbered_by_model(label_NL, None, 1000).tolist() == label_NL.tolist()


def test_where_there_are_no_real_labels(tmp_path: Path) -> None:
    def refused(path: str, data: Path, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            evaluate(EvalConfig(checkpoint=path, data=str(data), real=True))

    model = constant_model(tmp_path / "model.safetensors", 0, None)
    write_images(tmp_path / "val", VALIDATION)
    small = constant_model(tmp_path / "small.safetensors", 0, None, 10)
    refused(small, tmp_path / "val", InputError, "ImageNet's 1000 classes, and this one has 10")
    own = constant_model(tmp_path / "own.safetensors", 0, tuple(f"thing{i}" for i in range(1000)))
    refused(own, tmp_path / "val", InputError, "this one's begin with thing0, thing1")
    for name in ("ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_1.JPEG", "1.png"):
        write_images(tmp_path / name / "images", [VALIDATION[0], name])
        refused(model, tmp_path / name / "images", DataError, f"has {name}: give these images under their original")
    write_images(tmp_path / "one", VALIDATION[:1])
    refused(model, tmp_path / "one", DataError, "None of the 1 images of one has ReaL labels")
    refused(model, Path("digits"), DataError, "has image 0")
