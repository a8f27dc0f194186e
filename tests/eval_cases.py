"""Models of ImageNet's classes for the tests of evaluation: one whose answer is known."""

from __future__ import annotations

from pathlib import Path

import torch
from timm.data import ImageNetInfo

from logitstore.cards import Card, Preprocessing, save_model
from logitstore.models import build_model

MODEL = "test_vit"
PLAIN = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WNIDS = tuple(ImageNetInfo().label_names())


def constant_model(path: Path, winner: int, names: tuple[str, ...] | None, num_classes: int = 1000) -> str:
    """A model that takes everything for one class."""
    state = build_model(MODEL, num_classes=num_classes, size=32).state_dict()
    state = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    state["head.bias"] = torch.nn.functional.one_hot(torch.tensor(winner), num_classes).float()
    values = {"model": MODEL, "model_args": {"img_size": 32}, "size": 32, "preprocessing": PLAIN}
    save_model(path, state, Card(**values, num_classes=num_classes, class_names=names))
    return str(path)
