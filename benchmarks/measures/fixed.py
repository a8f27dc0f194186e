"""A teacher with fixed random weights: right for speed, meaningless for accuracy."""

from __future__ import annotations

import timm
import torch

SIZE, CLASSES = 32, 10


def swin_t() -> torch.nn.Module:
    """Swin-T for 32 px and ten classes; the same weights on every call, the global generator untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: torch.nn.Module = timm.create_model("swin_tiny_patch4_window7_224", img_size=SIZE, num_classes=CLASSES)
    return model.eval()
