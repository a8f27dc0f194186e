"""Small students and teachers of the families whose weights are copied, at 224 px where windows are shifted."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

import students


def make(name: str, *, seed: int, **options: Any) -> nn.Module:
    """A model with noise on all its parameters: some of timm's begin at 0, and would hide what is not copied."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = timm.create_model(name, **{"num_classes": 10, "drop_path_rate": 0.0, **options})
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model.eval()


def swin(*depths: int, seed: int, **options: Any) -> nn.Module:
    small = {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "img_size": 224}
    return make("swin_n", seed=seed, **{"depths": depths, **small, **options})


def tinyvit(*depths: int, seed: int, **options: Any) -> nn.Module:
    small = {"embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4)}
    return make("tiny_vit_21m_224", seed=seed, **{"depths": depths, **small, **options})


def vit(depth: int, *, seed: int, **options: Any) -> nn.Module:
    return make("deit_tiny_patch16_224", seed=seed, **{"depth": depth, "embed_dim": 24, "num_heads": 2, **options})


def images(size: int = 224, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def on_meta(name: str, classes: int = 100, size: int = 224) -> nn.Module:
    with torch.device("meta"):
        return students.create_student(name, num_classes=classes, size=size)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
