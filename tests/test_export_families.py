"""Students of every family as ONNX and as programs of torch.export, and their pages in a process without logitstore."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dump_cases
import numpy as np
import pytest
import torch
from PIL import Image

import students
from logitstore.cards import Card, save_model
from logitstore.export import ExportConfig, export
from logitstore.export.config import FORMATS
from logitstore.models import build_model, default_preprocessing, model_name

TINY = {"embed_dim": 16, "num_heads": (1, 1, 2, 2), "depths": (1, 2, 2, 1)}
SMALL: list[tuple[str, int, dict[str, Any], str]] = [
    ("deit_tiny_distilled_patch16_224", 32, {"depth": 1, "embed_dim": 24, "num_heads": 2}, "torch_export"),
    ("mini_swin_t", 64, TINY, "onnx"),
]
WHOLE: list[tuple[str, int, dict[str, Any]]] = [
    ("tinyvit_5m", 224, {}),
    ("swin_t", 224, {}),
    ("deit_ti", 224, {}),
    ("deit_tiny_distilled_patch16_224", 224, {}),
    ("mini_swin_t", 224, {}),
    ("mini_swin_t", 64, {"share": 2, "reference_mask": True}),
    ("mini_swin_t", 64, {"equation_mlp": True, "attn_transform": False}),
    ("mini_deit_ti", 224, {}),
    ("mini_deit_ti", 64, {"plain": True, "share": 0}),
]


def checkpoint(folder: Path, name: str, size: int, given: dict[str, Any]) -> Path:
    """A student of seven classes with noise on all its parameters: some begin at 0."""
    arguments = students.build_arguments(name, size, given)
    model = build_model(name, num_classes=7, size=size, model_args=arguments)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    wants = default_preprocessing(model)
    card = Card(model=model_name(name), model_args=arguments, num_classes=7, size=size, preprocessing=wants)
    save_model(folder / "model.safetensors", model.state_dict(), card)
    return folder


@pytest.mark.parametrize(
    ("name", "size", "given", "form"),
    [
        *SMALL,
        *(pytest.param(*row, form, marks=pytest.mark.slow) for row in WHOLE for form in ("onnx", "torch_export")),
    ],
)
def test_every_family_survives(name: str, size: int, given: dict[str, Any], form: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "in", name, size, given)
    result = export(ExportConfig(checkpoint=str(source), format=form, out=str(tmp_path / "out")))
    assert result.difference <= 1e-4  # of logits of a few units
    assert result.bytes < 4.5 * result.parameters + 8e6, "shared weights and tables are stored once"


FRESH = """
import sys
sys.modules["logitstore"] = None
exec(open(sys.argv[1]).read())
print(*logits.tolist()[0])
"""


@pytest.mark.slow
def test_the_code_of_the_pages_needs_nothing_of_logitstore(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "in", "swin_n", 64, {})
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    found = []
    for form in FORMATS:
        out = Path(export(ExportConfig(checkpoint=str(source), format=form, out=str(tmp_path / form))).out)
        Image.fromarray(pixels).save(out / "image.png")
        (code,) = re.findall(r"^```python\n(.*?)^```", (out / "README.md").read_text(), re.MULTILINE | re.DOTALL)
        (out / "code.py").write_text(code)
        words = [sys.executable, "-c", FRESH, "code.py"]
        done = subprocess.run(words, cwd=out, env=dump_cases.environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(np.array(done.stdout.splitlines()[-1].split(), np.float64))
    assert all(len(logits) == 7 for logits in found)
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], atol=1e-4)
