"""Random erasing: one rectangle of a view overwritten with per-pixel noise of the spec's mean and deviation.

Noise belongs to the view spec and is drawn in pixel values, so that one stored view serves models of any
normalisation. Where the rectangle stands is drawn in ``stages``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel
from logitstore.views.stages import NOISE, next_bits, start
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


@kernel
def box_pixels(height, width, top, left, size):  # type: ignore[no-untyped-def]
    """Top, left, height and width in pixels of a rectangle relative to a view of this size; at least 1 x 1."""
    rows = max(1, math.floor(height * size + 0.5))
    columns = max(1, math.floor(width * size + 0.5))
    return math.floor(top * (size - rows + 1)), math.floor(left * (size - columns + 1)), rows, columns


@kernel
def fill_noise(view, size, rectangle, seed, noise_3x4096):  # type: ignore[no-untyped-def]
    """Overwrite a rectangle of a flat view with noise.

    Values are drawn channel by channel, row by row: the upper 12 bits of a draw, then its middle ones.
    """
    top, left, height, width = rectangle
    state, inc = start(seed, NOISE)
    bits, fresh = 0, True
    for c in range(3):
        for y in range(top, top + height):
            begin = np.uint64((c * size + y) * size + left)
            for at in range(begin, begin + np.uint64(width)):
                if fresh:
                    state, bits = next_bits(state, inc)
                    view[at] = noise_3x4096[c, bits >> 20]
                else:
                    view[at] = noise_3x4096[c, (bits >> 4) & 0xFFF]
                fresh = not fresh
