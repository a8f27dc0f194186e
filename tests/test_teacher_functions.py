"""Teachers that are functions of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from logitstore.cards import weights_sha256
from logitstore.errors import ModelError
from logitstore.images import open_images
from logitstore.teacher import Teacher, load_teacher

pytestmark = pytest.mark.usefixtures("torch_untouched", "own_directory")
VIEWS = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), np.uint8)

MODULE = """
import timm, torch

class Wrapped:
    logits = None

class Doubler(torch.nn.Module):
    mean, std = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5)
    class_names = ["r", "g", "b"]
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))
    def forward(self, images):
        output = Wrapped()
        output.logits = self.factor * images.mean((2, 3))
        return output

def module(): return Doubler()
def plain(): return lambda images: images.mean((2, 3))
def headless(): return timm.create_model("test_vit", num_classes=0, img_size=32)
def maps(): return lambda images: images
def number(): return 3
def broken(): raise KeyError("weights")
nothing = 4
"""


class TestFunctions:
    """Teachers of the user's own."""

    @pytest.fixture(autouse=True)
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own_teachers.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(__import__("sys").modules, "own_teachers", raising=False)

    def load(self, function: str) -> Teacher:
        return load_teacher(f"own_teachers:{function}", images=open_images("digits"), size=32, device="cpu")

    def test_a_module_with_attributes(self) -> None:
        teacher = self.load("module")
        assert (teacher.num_classes, teacher.class_names) == (3, ("r", "g", "b"))
        assert teacher.sha256 == weights_sha256({"factor": torch.tensor(2.0)})
        wanted = torch.from_numpy(2 * (VIEWS / 255).mean((2, 3)) / 0.5).float()
        torch.testing.assert_close(teacher.logits(VIEWS), wanted)

    def test_a_callable_is_hashed_by_its_source(self) -> None:
        teacher = self.load("plain")
        assert teacher.num_classes == 3 and len(teacher.sha256) == 64
        assert teacher.preprocessing.mean == (0.485, 0.456, 0.406)

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("headless", "num_classes is 0"),
            ("maps", r"no classifier: for 2 images it gives \[2, 3, 32, 32\]"),
            ("number", "returned int"),
            ("broken", "cannot be made: KeyError: 'weights'"),
            ("nothing", "no function nothing"),
            ("absent", "no function absent"),
        ],
    )
    def test_refused(self, function: str, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            self.load(function)

    def test_no_module_and_no_checkpoint(self) -> None:
        with pytest.raises(ModelError, match="cannot be imported"):
            load_teacher("no_such_module_xyz:f", size=32)
        with pytest.raises(ModelError, match="leave out --checkpoint"):
            load_teacher("own_teachers:plain", checkpoint="x", size=32)
