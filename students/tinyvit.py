"""TinyViT: timm's models, with windows that fit small images, and the names of the reference's weights.

An attention window larger than its feature map is padded with empty tokens that cost time and draw attention: at 32 px
a map of 2x2 would be padded to a window of 14x14. ``fitted_windows`` cuts each window to its map, as Swin does. At 224
and above nothing changes; the models named ``_384`` and ``_512`` have larger windows of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Windows per stage as published (the first stage is convolutional and has none), by the size in timm's name.
_WINDOWS = {224: (7, 7, 14, 7), 384: (12, 12, 24, 12), 512: (16, 16, 32, 16)}
_STRIDES = (4, 8, 16, 32)


def published_windows(model: str) -> tuple[int, tuple[int, ...]] | None:
    """The size that a TinyViT's windows were made for, and the windows of its three attention stages.

    Args:
        model: timm's name, with or without a tag.

    Returns:
        Pixels and window sides; None for any other model.
    """
    match = re.fullmatch(r"tiny_vit_\d+m_(\d+)", model.split(".")[0])
    if match is None or int(match[1]) not in _WINDOWS:
        return None
    return int(match[1]), _WINDOWS[int(match[1])][1:]


def published_crop(model: str) -> float | None:
    """Share of the resized image that the published evaluation keeps: 0.875 at 224 px, all of it at 384 and 512.

    timm's 0.95 for the models of 224 px is a choice of its own.

    Args:
        model: timm's name, with or without a tag.

    Returns:
        The share of the side; None for any other model.
    """
    if (published := published_windows(model)) is None:
        return None
    return 0.875 if published[0] == 224 else 1.0


def fitted_windows(model: str, size: int, own: Sequence[int] | None = None) -> tuple[int, ...] | None:
    """Window sizes per stage for images of ``size`` pixels, where the model's own do not fit.

    Args:
        model: timm's name, with or without a tag.
        size: side of the images in pixels.
        own: one window side per stage instead of the published ones.

    Returns:
        One window side per stage, or None where the model's own windows fit, or it is no TinyViT.
    """
    if (published := published_windows(model)) is None:
        return None
    own = own or _WINDOWS[published[0]]
    fitted = tuple(min(window, -(-size // stride)) for window, stride in zip(own, _STRIDES, strict=True))
    return None if fitted[1:] == tuple(own[1:]) else fitted


def is_reference_checkpoint(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of the reference implementation instead of timm's."""
    return "patch_embed.seq.0.c.weight" in state


def from_reference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference checkpoint's tensors under timm's names. Values are not touched."""
    return {_timm_name(name): tensor for name, tensor in state.items() if not name.endswith("attention_bias_idxs")}


def _timm_name(name: str) -> str:
    name = re.sub(r"\.c\.", ".conv.", name)
    name = re.sub(r"^patch_embed\.seq\.([02])\.", lambda m: f"patch_embed.conv{1 + int(m[1]) // 2}.", name)
    # The reference ends a stage with the downsampling, timm begins the next one with it.
    name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    name = re.sub(r"^layers\.", "stages.", name)
    name = re.sub(r"^norm_head\.", "head.norm.", name)
    return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
