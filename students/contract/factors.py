"""The contraction factors of a TinyViT (section 3.2 of its paper), and the parameters that they come to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from students.tinyvit import fitted_windows, published_windows

_STAGES = 4
_WIDTHS = {21: (96, 192, 384, 576), 11: (64, 128, 256, 448), 5: (64, 128, 160, 320)}  # by millions of parameters
_IN_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a TinyViT is made of. The paper's signs stand in brackets."""

    widths: tuple[int, ...]
    """Embedding dimension of the four stages (D); those of the last three are multiples of ``head_dim``."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks in each stage (N)."""
    windows: tuple[int, ...] = (7, 14, 7)
    """Side of the attention windows in the last three stages (W); the first one is convolutional."""
    mbconv_ratio: float = 4.0
    """Channel expansion of the MBConv blocks (R)."""
    mlp_ratio: float = 4.0
    """Expansion of the MLP in all transformer blocks (M)."""
    head_dim: int = 32
    """Width of an attention head (E): the smaller, the more heads."""

    def __post_init__(self) -> None:
        for name, length in (("widths", _STAGES), ("depths", _STAGES), ("windows", _STAGES - 1)):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) != length or min(values) < 1:
                raise ValueError(f"A TinyViT has {length} {name} of at least 1, got {values}.")
        if self.head_dim < 1 or any(width % self.head_dim for width in self.widths[1:]):
            raise ValueError(
                f"Widths of attention stages must be multiples of the head dimension, got {self.widths[1:]} and "
                f"{self.head_dim}."
            )
        if self.widths[0] % 2:
            raise ValueError(f"The first width must be even, for the stem has half of it; got {self.widths[0]}.")
        if min(self.mbconv_ratio * self.widths[0], self.mlp_ratio * min(self.widths[1:])) < 1:
            raise ValueError(f"Ratios must leave channels, got {self.mbconv_ratio} and {self.mlp_ratio}.")

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each stage; the first one has none, and a number that timm asks for all the same."""
        return tuple(max(1, width // self.head_dim) for width in self.widths)

    def model_args(self) -> dict[str, Any]:
        """The arguments of ``timm.create_model`` that make this model."""
        return {
            "embed_dims": self.widths,
            "depths": self.depths,
            "num_heads": self.heads,
            "window_sizes": (self.windows[0], *self.windows),  # the first stage's is never read
            "mbconv_expand_ratio": self.mbconv_ratio,
            "mlp_ratio": self.mlp_ratio,
        }

    def student_args(self) -> tuple[str, ...]:
        """The same as ``NAME=VALUE``, numbers of a list joined by colons."""
        return tuple(
            f"{name}={':'.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in self.model_args().items()
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Factors:
        """Back from JSON.

        Raises:
            ValueError: the values make no model.
        """
        if set(values) != (known := {field.name for field in fields(cls)}):
            raise ValueError(f"Factors have the fields {', '.join(sorted(known))}; got {', '.join(sorted(values))}.")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**plain)

    def __str__(self) -> str:
        parts = {"": self.widths, "depths ": self.depths, "windows ": self.windows}
        lists = [f"{word}{'-'.join(map(str, values))}" for word, values in parts.items()]
        ratios = f"MBConv x{self.mbconv_ratio:g}, MLP x{self.mlp_ratio:g}, heads of {self.head_dim}"
        return ", ".join([*lists, ratios])


def published_factors(model: str, size: int) -> Factors | None:
    """The factors of a published TinyViT, its windows cut to the maps of this image size.

    Args:
        model: timm's name, with or without a tag.
        size: side of the images in pixels.

    Returns:
        None for any other model.
    """
    published = published_windows(model)
    match = re.match(r"tiny_vit_(\d+)m_", model)
    if published is None or match is None or int(match[1]) not in _WIDTHS:
        return None
    fitted = fitted_windows(model, size)
    return Factors(widths=_WIDTHS[int(match[1])], windows=published[1] if fitted is None else fitted[1:])


def published_name(factors: Factors, like: str, size: int) -> str | None:
    """Which published TinyViT these factors are.

    Args:
        factors: any model's.
        like: timm's name of one whose windows count: those for 224, 384 or 512 px.
        size: side of the images in pixels.

    Returns:
        A short name such as ``tinyvit_11m``; None for a model that nobody published.
    """
    for millions in _WIDTHS:
        name = re.sub(r"tiny_vit_\d+m", f"tiny_vit_{millions}m", like.partition(".")[0])
        if published_factors(name, size) == factors:
            return f"tinyvit_{millions}m"
    return None


def count_parameters(factors: Factors, num_classes: int) -> int:
    """Parameters of a model, from its factors alone: no model is made.

    Args:
        factors: the model's.
        num_classes: C.
    """
    first = factors.widths[0]
    hidden = int(first * factors.mbconv_ratio)
    total = _convolution(_IN_CHANNELS, first // 2, 9) + _convolution(first // 2, first, 9)
    mbconv = _convolution(first, hidden) + _convolution(1, hidden, 9) + _convolution(hidden, first)
    total += factors.depths[0] * mbconv
    for stage in range(1, _STAGES):
        before, width = factors.widths[stage - 1 : stage + 1]
        window, heads = factors.windows[stage - 1], factors.heads[stage]
        total += _convolution(before, width) + _convolution(1, width, 9) + _convolution(width, width)
        # One attention bias for each head and each distance in the window.
        attention = _norm(width) + _linear(width, 3 * width) + _linear(width, width) + heads * window * window
        hidden = int(width * factors.mlp_ratio)
        mlp = _norm(width) + _linear(width, hidden) + _linear(hidden, width)
        total += factors.depths[stage] * (attention + _convolution(1, width, 9) + mlp)
    return total + _norm(factors.widths[-1]) + _linear(factors.widths[-1], num_classes)


def _convolution(inputs: int, outputs: int, taps: int = 1) -> int:
    """Without bias, with its BatchNorm; a depthwise one has one input."""
    return inputs * outputs * taps + _norm(outputs)


def _norm(channels: int) -> int:
    return 2 * channels


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
