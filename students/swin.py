"""Swin-N and Swin-M: Swin-T with two and four blocks in its third stage instead of six.

Everything else is Swin-T's: embedding 96, heads 3, 6, 12, 24, windows of 7 on patches of 4. 20,490,286 and 24,043,270
parameters with 100 classes. timm's own Swin class is used, so timm's weights, filters and feature extraction apply.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["from_reference", "is_reference_checkpoint", "swin_m", "swin_n"]

_CFG = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "fixed_input_size": True,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "patch_embed.proj",
    "classifier": "head.fc",
    "license": "apache-2.0",
}

default_cfgs = generate_default_cfgs({"swin_n.untrained": dict(_CFG), "swin_m.untrained": dict(_CFG)})


def _swin(variant: str, depths: tuple[int, ...], pretrained: bool, options: dict[str, Any]) -> SwinTransformer:
    out_indices = options.pop("out_indices", tuple(range(len(depths))))
    arguments = {
        "patch_size": 4,
        "window_size": 7,
        "embed_dim": 96,
        "depths": depths,
        "num_heads": (3, 6, 12, 24),
        **options,
    }
    return build_model_with_cfg(
        SwinTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **arguments,
    )


@register_model
def swin_n(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Swin-N: depths 2, 2, 2, 2. ``options`` as for timm's Swin-T; there are no pretrained weights."""
    return _swin("swin_n", (2, 2, 2, 2), pretrained, options)


@register_model
def swin_m(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Swin-M: depths 2, 2, 4, 2. ``options`` as for timm's Swin-T; there are no pretrained weights."""
    return _swin("swin_m", (2, 2, 4, 2), pretrained, options)


def is_reference_checkpoint(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of the reference implementation, whose stages end with the patch merging."""
    return "layers.0.downsample.reduction.weight" in state


def from_reference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference checkpoint's tensors under timm's names. Values are not touched."""
    return {_timm_name(name): tensor for name, tensor in state.items()}


def _timm_name(name: str) -> str:
    name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample.", name)
    return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
