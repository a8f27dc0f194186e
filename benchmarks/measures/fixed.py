"""Teachers with fixed random weights: right for speed, meaningless for accuracy."""

from __future__ import annotations

import timm
import torch


def _fixed(name: str, *, size: int, classes: int) -> torch.nn.Module:
    """The same weights on every call, the global generator untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: torch.nn.Module = timm.create_model(name, img_size=size, num_classes=classes)
    return model.eval()


def swin_t() -> torch.nn.Module:
    """Swin-T for 32 px and ten classes."""
    return _fixed("swin_tiny_patch4_window7_224", size=32, classes=10)


def swin_t_224() -> torch.nn.Module:
    """Swin-T for 224 px and a thousand classes."""
    return _fixed("swin_tiny_patch4_window7_224", size=224, classes=1000)


def swin_l_224() -> torch.nn.Module:
    """Swin-L for 224 px and a thousand classes."""
    return _fixed("swin_large_patch4_window7_224", size=224, classes=1000)
