"""Colour operations on views, each equal to its counterpart in Pillow.

A view is flat here: uint8, three planes of equal length. All but ``sharpness`` work in place. Where a value alone
decides, it is computed again for each pixel: compilers do that for 64 pixels at once, but look tables up one by one.

Blends follow Pillow's ``Image.blend``: float32, clipped, truncated. The greyscale is its ITU-R 601 sum in 16 bits.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel

_0, _1, _2, _3, _4 = (np.uint64(n) for n in range(5))
_WHITE = np.uint8(255)


@inlined
def _blend(base, value, factor):  # type: ignore[no-untyped-def]
    """``Image.blend`` for one value; ``base`` and ``value`` are int32, ``factor`` float32."""
    mixed = np.float32(base) + factor * np.float32(np.int32(value - base))
    return np.uint8(np.int32(min(max(mixed, np.float32(0.0)), np.float32(255.0))))


@kernel
def invert(view):  # type: ignore[no-untyped-def]
    """``ImageOps.invert``."""
    for i in range(np.uint64(len(view))):
        view[i] = _WHITE - view[i]


@kernel
def posterize(view, bits):  # type: ignore[no-untyped-def]
    """``ImageOps.posterize``: the upper ``bits`` (0 to 8) stay; 0 gives black, which Pillow refuses."""
    mask = np.uint8((256 - (1 << (8 - bits))) & 255)
    for i in range(np.uint64(len(view))):
        view[i] = view[i] & mask


@kernel
def solarize(view, threshold):  # type: ignore[no-untyped-def]
    """``ImageOps.solarize``: values of at least ``threshold`` (0 to 256) are inverted."""
    least = np.int32(threshold)
    for i in range(np.uint64(len(view))):
        value = view[i]
        view[i] = value if np.int32(value) < least else _WHITE - value


@kernel
def solarize_add(view, add, threshold):  # type: ignore[no-untyped-def]
    """Add ``add`` to values below ``threshold``."""
    more, least = np.int32(add), np.int32(threshold)
    for i in range(np.uint64(len(view))):
        value = np.int32(view[i])
        view[i] = np.uint8(min(np.int32(value + more), np.int32(255)) if value < least else value)


@kernel
def brightness(view, factor):  # type: ignore[no-untyped-def]
    """``ImageEnhance.Brightness``: 0 is black, 1 changes nothing."""
    _blend_all(view, 0, factor)


@kernel
def contrast(view, factor):  # type: ignore[no-untyped-def]
    """``ImageEnhance.Contrast``: 0 is the view's mean grey, 1 changes nothing."""
    plane = np.uint64(len(view) // 3)
    total = 0
    for i in range(plane):
        total += _grey(view[i], view[i + plane], view[i + _2 * plane])
    _blend_all(view, int(total / plane + 0.5), factor)


@inlined
def _blend_all(view, base, factor):  # type: ignore[no-untyped-def]
    from_value, share = np.int32(base), np.float32(factor)
    for i in range(np.uint64(len(view))):
        view[i] = _blend(from_value, np.int32(view[i]), share)


@inlined
def _grey(red, green, blue):  # type: ignore[no-untyped-def]
    return np.int32(np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@kernel
def color(view, factor):  # type: ignore[no-untyped-def]
    """``ImageEnhance.Color``: 0 is greyscale, 1 changes nothing. Colour jitter's saturation is the same."""
    plane, share = np.uint64(len(view) // 3), np.float32(factor)
    for i in range(plane):
        r, g, b = view[i], view[i + plane], view[i + _2 * plane]
        grey = np.int32(_grey(r, g, b))
        view[i] = _blend(grey, np.int32(r), share)
        view[i + plane] = _blend(grey, np.int32(g), share)
        view[i + _2 * plane] = _blend(grey, np.int32(b), share)


@inlined
def _sharpen(src, at, width, dst, factor):  # type: ignore[no-untyped-def]
    for i in range(at + _1, at + width - _1):
        above, below = i - width, i + width
        total = np.int32(src[above - _1]) + np.int32(src[above]) + np.int32(src[above + _1])
        total += np.int32(src[i - _1]) + 5 * np.int32(src[i]) + np.int32(src[i + _1])
        total += np.int32(src[below - _1]) + np.int32(src[below]) + np.int32(src[below + _1])
        # round(total / 13): the fraction is never 1/2, and Pillow's float32 sum errs by far less than 1/26.
        smooth = np.int32(np.int32(2 * total + 13) // 26)
        dst[i] = _blend(smooth, np.int32(src[i]), factor)


@kernel
def sharpness(src, dst, height, width, factor):  # type: ignore[no-untyped-def]
    """``ImageEnhance.Sharpness``: 0 is smoothed, 1 changes nothing; the border of one pixel stays.

    Args:
        src: the view.
        dst: as long, written; not the source.
        height: of a plane.
        width: of a plane.
        factor: strength.
    """
    rows, columns, share = np.uint64(height), np.uint64(width), np.float32(factor)
    for c in range(_3):
        for y in range(rows):
            at = (c * rows + y) * columns
            if y == 0 or y + _1 == rows or columns < 3:
                for i in range(at, at + columns):
                    dst[i] = src[i]
            else:
                dst[at], dst[at + columns - _1] = src[at], src[at + columns - _1]
                _sharpen(src, at, columns, dst, share)


@kernel
def autocontrast(view):  # type: ignore[no-untyped-def]
    """``ImageOps.autocontrast``: the range of each channel is stretched to 0..255."""
    plane = np.uint64(len(view) // 3)
    for c in range(_3):
        begin = c * plane
        low = high = view[begin]
        for i in range(begin, begin + plane):
            low, high = min(low, view[i]), max(high, view[i])
        if high > low:
            scale = 255.0 / (np.float64(high) - np.float64(low))
            shift = -np.float64(low) * scale
            for i in range(begin, begin + plane):
                stretched = np.float64(np.int32(view[i])) * scale + shift
                view[i] = np.uint8(np.int32(min(max(stretched, 0.0), 255.0)))


@kernel
def equalize(view):  # type: ignore[no-untyped-def]
    """``ImageOps.equalize``: the histogram of each channel is made even."""
    plane = np.uint64(len(view) // 3)
    count_4x256, table_256 = np.empty(1024, np.int64), np.empty(256, np.uint8)
    for c in range(_3):
        _histogram(view, c * plane, plane, count_4x256)
        last = 0
        for value in range(256):
            if count_4x256[value]:
                last = value
        step = (np.int64(plane) - count_4x256[last]) // 255
        if step > 0:
            below = 0
            for value in range(256):
                table_256[value] = min((below + step // 2) // step, 255)
                below += count_4x256[value]
            for i in range(c * plane, (c + _1) * plane):
                view[i] = table_256[view[i]]


@inlined
def _histogram(view, begin, length, count_4x256):  # type: ignore[no-untyped-def]
    """Four counters for each value in turn: counting one up twice in a row would wait for itself."""
    count_4x256[:] = 0
    whole = begin + length // _4 * _4
    for i in range(begin, whole, _4):
        count_4x256[np.uint64(view[i])] += 1
        count_4x256[np.uint64(256) + view[i + _1]] += 1
        count_4x256[np.uint64(512) + view[i + _2]] += 1
        count_4x256[np.uint64(768) + view[i + _3]] += 1
    for i in range(whole, begin + length):
        count_4x256[np.uint64(view[i])] += 1
    for value in range(256):
        count_4x256[value] += count_4x256[256 + value] + count_4x256[512 + value] + count_4x256[768 + value]
