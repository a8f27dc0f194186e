"""Random erasing: one rectangle of a view overwritten with per-pixel noise of the spec's mean and deviation.

Noise belongs to the view spec and is drawn in pixel values, so that one stored view serves models of any
normalisation. Where the rectangle stands is drawn in ``draw``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel
from logitstore.views.draw import NOISE, ErasedBox, next_bits, start
from logitstore.views.tables import load_tables, normal_quantile

U8 = NDArray[np.uint8]

_LEVELS = 4096
"""Equally likely noise values of a channel, before rounding to 8 bits; 12 random bits choose one."""


def noise_tables(mean: Sequence[float], std: Sequence[float]) -> U8:
    """Equally likely noise values, uint8 [3, 4096]: normal quantiles in pixel values, rounded and clipped."""
    normal = load_tables().normal
    tables = np.empty((3, _LEVELS), np.uint8)
    for level in range(_LEVELS):
        deviation = float(normal_quantile(level << 20 | 1 << 19, normal))
        for channel in range(3):
            value = math.floor(mean[channel] + std[channel] * deviation + 0.5)
            tables[channel, level] = min(max(value, 0), 255)
    return tables


def erased_pixels(erased: ErasedBox, size: int) -> tuple[int, int, int, int]:
    """Top, left, height, width of an erased rectangle in a view of this size, in pixels; at least 1 x 1."""
    height = max(1, math.floor(erased.height * size + 0.5))
    width = max(1, math.floor(erased.width * size + 0.5))
    top = math.floor(erased.top * (size - height + 1))
    left = math.floor(erased.left * (size - width + 1))
    return top, left, height, width


@kernel
def _fill_noise(view_3HW, top, left, height, width, seed, tables):  # type: ignore[no-untyped-def]
    """Values are drawn channel by channel, row by row: the upper 12 bits of a draw, then its middle ones."""
    state, inc = start(seed, NOISE)
    bits, fresh = 0, True
    for c in range(3):
        for y in range(top, top + height):
            for x in range(left, left + width):
                if fresh:
                    state, bits = next_bits(state, inc)
                    view_3HW[c, y, x] = tables[c, bits >> 20]
                else:
                    view_3HW[c, y, x] = tables[c, (bits >> 4) & 0xFFF]
                fresh = not fresh


def erase(view_3HW: U8, erased: ErasedBox, seed: int, tables: U8) -> None:
    """Overwrite a rectangle with noise, in place.

    Args:
        view_3HW: uint8 [3, S, S].
        erased: the rectangle, relative to the view.
        seed: the view's seed.
        tables: from ``noise_tables``.
    """
    top, left, height, width = erased_pixels(erased, view_3HW.shape[1])
    with np.errstate(over="ignore"):
        _fill_noise(view_3HW, top, left, height, width, np.uint64(seed), tables)
