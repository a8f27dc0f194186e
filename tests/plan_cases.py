"""Small plans that the tests of ``plan`` share: the pictures and the teacher of ``dump_cases``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from dump_cases import MIXED_VIEW, write_data
from torch import Tensor, nn

from logitstore.plan import PlanConfig
from logitstore.sampling import Sample


def plan_config(folder: Path, **options: Any) -> PlanConfig:
    """A plan over all views that a dump of ``dump_cases.config`` makes in epochs 0 to 3.

    Args:
        folder: where ``data.npz`` lies or is made, and ``view.yaml``.
        options: fields of ``PlanConfig`` that differ.
    """
    data, view = folder / "data.npz", folder / "view.yaml"
    if not data.exists():
        write_data(data)
    view.write_text(MIXED_VIEW)
    values: dict[str, Any] = {
        "teacher": "dump_cases:teacher",
        "data": str(data),
        "sample": 1200,
        "views": 4,
        "epochs": 12,
        "topk": (3, 12),
        "floor": (0.0, 0.05),
        "mass": (0.8,),
        "gain": (0.1,),
        "values": ("q8", "f16"),
        "size": 16,
        "view": str(view),
        "batch_size": 32,
        "workers": 1,
        "seed": 11,
    }
    return PlanConfig(**{**values, **options})


def certain_teacher() -> nn.Module:
    """Knows one class only."""

    class Certain(nn.Module):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            return images_BCHW.mean((1, 2, 3))[:, None]

    return Certain()


def made_sample(images: int = 50, views: int = 4, classes: int = 30) -> Sample:
    """Logits of a made-up teacher: views of an image are alike."""
    rng = np.random.default_rng(5)
    logits = 2 * rng.standard_normal((images, 1, classes)) + rng.standard_normal((images, views, classes))
    return Sample(
        logits_SVC=logits.astype(np.float32), skipped=0, views_per_second=100.0, teacher_views_per_second=120.0
    )
