"""What the tests of exports share: a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logitstore.cards import Card, save_model
from logitstore.models import build_model, default_preprocessing


def tiny_weights(folder: Path) -> Path:
    """A model with random weights, and its card."""
    arguments = {"img_size": 32}
    made = build_model("test_vit", num_classes=3, size=32, model_args=arguments)
    wants = default_preprocessing(made)
    card = Card(model="test_vit", model_args=arguments, num_classes=3, size=32, preprocessing=wants, **ORIGIN)
    save_model(folder / "model.safetensors", made.state_dict(), card)
    return folder


ORIGIN: dict[str, Any] = {
    "training": {
        "teachers": [{"name": "one", "sha256": "1"}, {"name": "two", "sha256": None}], "store": ["a", "b"],
        "weights": [0.25, 0.75], "teacher_online": {"name": "third", "sha256": "3", "match": ["1:1"]},
        "recipe": {"name": "own", "distillation": "kl", "joint": "ratio"},
    },
    "class_names": ("a|b", "c\nd", "e"),
    "data": {"name": "some | data", "count": 12, "fingerprint": "f"},
    "accuracy": {
        "images": 4, "split": "val", "top1_share": 0.5, "top5_share": 1.0, "top1_interval": [0.15, 0.85],
        "top5_interval": [0.5, 1.0],
    },
}  # fmt: skip
