"""Colour operations on planar uint8 views, each equal to its counterpart in Pillow.

Operations that map a channel's value by itself are lookup tables, uint8 [3, 256]: built here, composed where one
follows another, applied in one pass. Tables of ``autocontrast``, ``equalize`` and ``contrast`` depend on the pixels;
the first two need only the histogram, which can be pushed through a table that is not applied yet.

Blends follow Pillow's ``Image.blend``: float32, clipped, truncated. The greyscale is its ITU-R 601 sum in 16 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

_LEVELS = np.arange(256)


def _same_for_channels(table_256: NDArray[np.generic]) -> U8:
    return np.repeat(np.clip(table_256, 0, 255).astype(np.uint8)[None], 3, axis=0)


def identity_lut() -> U8:
    """The table that changes nothing."""
    return _same_for_channels(_LEVELS)


def invert_lut() -> U8:
    """Table of ``ImageOps.invert``."""
    return _same_for_channels(255 - _LEVELS)


def posterize_lut(bits: int) -> U8:
    """Table of ``ImageOps.posterize``: the upper ``bits`` (0 to 8) stay; 0 gives black, which Pillow refuses."""
    return _same_for_channels(_LEVELS & ~(2 ** (8 - bits) - 1))


def solarize_lut(threshold: int) -> U8:
    """Table of ``ImageOps.solarize``: values of at least ``threshold`` (0 to 256) are inverted."""
    return _same_for_channels(np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add_lut(add: int, threshold: int = 128) -> U8:
    """Table that adds ``add`` to values below ``threshold``."""
    return _same_for_channels(np.where(threshold > _LEVELS, _LEVELS + add, _LEVELS))


def _blend_table(base: int, factor: float) -> U8:
    """``Image.blend`` of the constant ``base`` (factor 0) with each value (factor 1)."""
    mixed = np.float32(base) + np.float32(factor) * (_LEVELS - base).astype(np.float32)
    return _same_for_channels(mixed)


def brightness_lut(factor: float) -> U8:
    """Table of ``ImageEnhance.Brightness``: 0 is black, 1 changes nothing."""
    return _blend_table(0, factor)


def compose_lut(first: U8, second: U8) -> U8:
    """The table that does ``first``, then ``second``."""
    return np.take_along_axis(second, first.astype(np.intp), axis=1)


def apply_lut(view_3HW: U8, lut_3x256: U8) -> None:
    """Map every channel of the C-contiguous view by its table, in place."""
    _apply_lut(view_3HW.reshape(3, -1), lut_3x256)


@kernel
def _apply_lut(view_3P, lut_3x256):  # type: ignore[no-untyped-def]
    for c in range(3):
        values, lut = view_3P[c], lut_3x256[c]
        for i in range(len(values)):
            values[i] = lut[values[i]]


def histogram(view_3HW: U8) -> I64:
    """Counts of each value in each channel of the C-contiguous view, int64 [3, 256]."""
    return _histogram(view_3HW.reshape(3, -1))


@kernel
def _histogram(view_3P):  # type: ignore[no-untyped-def]
    """Four counters for each value in turn: counting one up twice in a row would wait for itself."""
    counts = np.zeros((3, 4, 256), np.int64)
    for c in range(3):
        values, count = view_3P[c], counts[c]
        whole = len(values) // 4 * 4
        for i in range(0, whole, 4):
            count[0, values[i]] += 1
            count[1, values[i + 1]] += 1
            count[2, values[i + 2]] += 1
            count[3, values[i + 3]] += 1
        for i in range(whole, len(values)):
            count[0, values[i]] += 1
    return counts[:, 0] + counts[:, 1] + counts[:, 2] + counts[:, 3]


def push_histogram(counts_3x256: I64, lut_3x256: U8) -> I64:
    """The histogram that a view has after a table was applied to it."""
    pushed = np.zeros_like(counts_3x256)
    for c in range(3):
        np.add.at(pushed[c], lut_3x256[c], counts_3x256[c])
    return pushed


def autocontrast_lut(counts_3x256: I64) -> U8:
    """Table of ``ImageOps.autocontrast`` for a view with this histogram: a channel's range is stretched to 0..255."""
    lut = identity_lut()
    for c in range(3):
        used = np.flatnonzero(counts_3x256[c])
        low, high = int(used[0]), int(used[-1])
        if high > low:
            scale = 255.0 / (high - low)
            lut[c] = np.clip(_LEVELS * scale + -low * scale, 0, 255).astype(np.uint8)
    return lut


def equalize_lut(counts_3x256: I64) -> U8:
    """Table of ``ImageOps.equalize`` for a view with this histogram."""
    lut = identity_lut()
    for c in range(3):
        counts = counts_3x256[c]
        used = counts[counts > 0]
        step = int(used.sum() - used[-1]) // 255
        if len(used) > 1 and step > 0:
            below = np.cumsum(counts) - counts
            lut[c] = np.minimum((below + step // 2) // step, 255).astype(np.uint8)
    return lut


@kernel
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    return np.int32(np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@kernel
def _grey_sum(view_3P):  # type: ignore[no-untyped-def]
    red, green, blue = view_3P[0], view_3P[1], view_3P[2]
    total = 0
    for i in range(len(red)):
        total += _grey(red[i], green[i], blue[i])
    return total


def contrast_lut(view_3HW: U8, factor: float) -> U8:
    """Table of ``ImageEnhance.Contrast`` for this view: 0 is its mean grey, 1 changes nothing."""
    planes_3P = view_3HW.reshape(3, -1)
    mean = int(_grey_sum(planes_3P) / planes_3P.shape[1] + 0.5)
    return _blend_table(mean, factor)


@kernel
def _blend(base, value, factor):  # type: ignore[no-untyped-def]
    """``Image.blend`` for one value; ``base`` and ``value`` are int32, ``factor`` float32."""
    mixed = np.float32(base) + factor * np.float32(np.int32(value - base))
    return np.uint8(np.int32(min(max(mixed, np.float32(0.0)), np.float32(255.0))))


@kernel
def _color(view_3P, factor):  # type: ignore[no-untyped-def]
    red, green, blue = view_3P[0], view_3P[1], view_3P[2]
    for i in range(len(red)):
        r, g, b = red[i], green[i], blue[i]
        grey = np.int32(_grey(r, g, b))
        red[i] = _blend(grey, np.int32(r), factor)
        green[i] = _blend(grey, np.int32(g), factor)
        blue[i] = _blend(grey, np.int32(b), factor)


@kernel
def _sharpness(src_3HW, dst_3HW, factor):  # type: ignore[no-untyped-def]
    _, height, width = src_3HW.shape
    for c in range(3):
        for y in range(height):
            here, out = src_3HW[c, y], dst_3HW[c, y]
            if y == 0 or y == height - 1 or width < 3:
                for i in range(width):
                    out[i] = here[i]
                continue
            above, below = src_3HW[c, y - 1], src_3HW[c, y + 1]
            out[0], out[width - 1] = here[0], here[width - 1]
            inner = out[1:]
            for i in range(width - 2):
                total = np.int32(above[i]) + np.int32(above[i + 1]) + np.int32(above[i + 2])
                total += np.int32(here[i]) + 5 * np.int32(here[i + 1]) + np.int32(here[i + 2])
                total += np.int32(below[i]) + np.int32(below[i + 1]) + np.int32(below[i + 2])
                # round(total / 13): the fraction is never 1/2, and Pillow's float32 sum errs by far less than 1/26.
                smooth = np.int32(np.int32(2 * total + 13) // 26)
                inner[i] = _blend(smooth, np.int32(here[i + 1]), factor)


def color(view_3HW: U8, factor: float) -> None:
    """``ImageEnhance.Color`` in place: 0 is greyscale, 1 changes nothing. Colour jitter's saturation is the same."""
    _color(view_3HW.reshape(3, -1), np.float32(factor))


def contrast(view_3HW: U8, factor: float) -> None:
    """``ImageEnhance.Contrast`` in place."""
    apply_lut(view_3HW, contrast_lut(view_3HW, factor))


def brightness(view_3HW: U8, factor: float) -> None:
    """``ImageEnhance.Brightness`` in place."""
    apply_lut(view_3HW, brightness_lut(factor))


def sharpness(src_3HW: U8, dst_3HW: U8, factor: float) -> None:
    """``ImageEnhance.Sharpness``: 0 is smoothed, 1 changes nothing; the border of one pixel stays.

    Args:
        src_3HW: uint8 [3, H, W], C-contiguous.
        dst_3HW: the same shape, written; not the source.
        factor: strength.
    """
    _sharpness(src_3HW, dst_3HW, np.float32(factor))


def autocontrast(view_3HW: U8) -> None:
    """``ImageOps.autocontrast`` in place."""
    apply_lut(view_3HW, autocontrast_lut(histogram(view_3HW)))


def equalize(view_3HW: U8) -> None:
    """``ImageOps.equalize`` in place."""
    apply_lut(view_3HW, equalize_lut(histogram(view_3HW)))
