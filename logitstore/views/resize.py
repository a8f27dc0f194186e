"""Crop and antialiased bicubic resize in fixed point, equal to Pillow's bit for bit.

Pillow computes the weights of each output pixel in float64, rounds them to 22 bits and makes two integer passes, along rows
and along columns, rounding to 8 bits in between (``Image.resize`` with ``Resampling.BICUBIC``). This module does the
same sums in another order of memory: a block of source rows is transposed, so that both passes are weighted sums of
contiguous runs, which compilers turn into vector code.

The output is planar. What is cropped and how large the output is comes from the caller; no draw is made here.

Shape suffixes: H W source, O outputs along one axis, K weights of one output.
"""

from __future__ import annotations

import math
import threading

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

_BITS = 32 - 8 - 2
_ONE = float(1 << _BITS)
_HALF = np.int32(1 << (_BITS - 1))
_BLOCK_ROWS = 64
"""Source rows transposed at a time: a block of three channels then stays in the cache."""


class _Buffers(threading.local):
    """Buffers of one thread that grow to the largest request and are reused."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[np.generic]] = {}

    def take(self, name: str, dtype: DTypeLike, *shape: int) -> NDArray[np.generic]:
        """An uninitialised C-contiguous array; valid until the same name is taken again in this thread."""
        count = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.size < count:
            flat = self._flat[name] = np.empty(count, dtype)
        return flat[:count].reshape(shape)


buffers = _Buffers()


@njit(nogil=True, cache=True)
def _bicubic(x):  # type: ignore[no-untyped-def]
    """Keys' cubic with a = -0.5; the order of operations decides the last bit of the weights."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@njit(nogil=True, cache=True)
def _weights(size_in, size_out, begin, first_O, count_O, weight_OK, exact_K):  # type: ignore[no-untyped-def]
    """Weights of the outputs ``begin, begin + 1, ...`` of a resize from ``size_in`` to ``size_out``, in 22 bits.

    Args:
        size_in: length of the source axis.
        size_out: length of the whole output axis.
        begin: first output wanted; as many follow as ``first_O`` is long.
        first_O: int32, set to the first source pixel of each output.
        count_O: int32, set to the number of source pixels of each output.
        weight_OK: int32, set to the weights.
        exact_K: float64 scratch for the weights of one output.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    shrink = 1.0 / stretch
    for o in range(len(first_O)):
        centre = (begin + o + 0.5) * scale
        first = max(np.int64(centre - support + 0.5), 0)
        count = min(np.int64(centre + support + 0.5), size_in) - first
        total = 0.0
        for k in range(count):
            exact_K[k] = _bicubic((k + first - centre + 0.5) * shrink)
            total += exact_K[k]
        for k in range(count):
            weight = exact_K[k] / total if total != 0.0 else exact_K[k]
            weight_OK[o, k] = np.int32(weight * _ONE - 0.5) if weight < 0.0 else np.int32(weight * _ONE + 0.5)
        first_O[o] = first
        count_O[o] = count


@njit(nogil=True, cache=True)
def _transpose_rows(pixels_HWC, x, y, columns, rows, out):  # type: ignore[no-untyped-def]
    """``out[3 * i + c, j] = pixels[y + j, x + i, c]``: channels of columns become contiguous runs over rows."""
    for j in range(rows):
        for i in range(columns):
            out[3 * i, j] = pixels_HWC[y + j, x + i, 0]
            out[3 * i + 1, j] = pixels_HWC[y + j, x + i, 1]
            out[3 * i + 2, j] = pixels_HWC[y + j, x + i, 2]


@njit(nogil=True, cache=True)
def _weighted_sum(src, row, step, weight_OK, o, count, begin, length, acc, dst, target):  # type: ignore[no-untyped-def]
    """``dst[target, :length]`` = values ``begin ...`` of the rows ``row, row + step, ...`` of ``src`` under the weights of output ``o``."""
    k = (count - 1) % 4 + 1
    w0 = weight_OK[o, 0]
    if k == 1:
        for i in range(length):
            acc[i] = _HALF + src[row, begin + i] * w0
    elif k == 2:
        w1 = weight_OK[o, 1]
        for i in range(length):
            acc[i] = _HALF + src[row, begin + i] * w0 + src[row + step, begin + i] * w1
    elif k == 3:
        w1, w2 = weight_OK[o, 1], weight_OK[o, 2]
        for i in range(length):
            acc[i] = _HALF + src[row, begin + i] * w0 + src[row + step, begin + i] * w1 + src[row + 2 * step, begin + i] * w2
    else:
        k = 0
        for i in range(length):
            acc[i] = _HALF
    while k < count:
        w0, w1, w2, w3 = weight_OK[o, k], weight_OK[o, k + 1], weight_OK[o, k + 2], weight_OK[o, k + 3]
        r0 = row + k * step
        r1, r2, r3 = r0 + step, r0 + 2 * step, r0 + 3 * step
        for i in range(length):
            acc[i] = acc[i] + src[r0, begin + i] * w0 + src[r1, begin + i] * w1 + src[r2, begin + i] * w2 + src[r3, begin + i] * w3
        k += 4
    for i in range(length):
        dst[target, i] = min(max(acc[i] >> _BITS, 0), 255)


@njit(nogil=True, cache=True)
def _horizontal(src_HWC, x, y, rows, first_O, count_O, weight_OK, flip, block, summed, acc, out_3RO):  # type: ignore[no-untyped-def]
    """Rows ``y, y + 1, ...`` of the source, from column ``x`` on, resized along the row into ``out_3RO``."""
    outputs = len(first_O)
    left = first_O[0]
    columns = first_O[outputs - 1] + count_O[outputs - 1] - left
    for begin in range(0, rows, _BLOCK_ROWS):
        height = min(_BLOCK_ROWS, rows - begin)
        _transpose_rows(src_HWC, x + left, y + begin, columns, height, block)
        for o in range(outputs):
            start = 3 * (first_O[o] - left)
            target = outputs - 1 - o if flip else o
            for c in range(3):
                _weighted_sum(block, start + c, 3, weight_OK, o, count_O[o], 0, height, acc, summed, 3 * target + c)
        for c in range(3):
            for j in range(height):
                for o in range(outputs):
                    out_3RO[c, begin + j, o] = summed[3 * o + c, j]


@njit(nogil=True, cache=True)
def _vertical_planar(rows_3RW, first_O, count_O, weight_OK, acc, out_3OW):  # type: ignore[no-untyped-def]
    """Resize along columns; row 0 of ``rows_3RW`` is the first source row needed."""
    for c in range(3):
        for o in range(len(first_O)):
            _weighted_sum(
                rows_3RW[c], first_O[o] - first_O[0], 1, weight_OK, o, count_O[o], 0, out_3OW.shape[2], acc, out_3OW[c], o
            )


@njit(nogil=True, cache=True)
def _vertical_interleaved(src_HV, v, y, first_O, count_O, weight_OK, acc, out_OV):  # type: ignore[no-untyped-def]
    """Resize along columns; a row is a run of values of all channels, of which ``v ...`` are used."""
    for o in range(len(first_O)):
        _weighted_sum(src_HV, y + first_O[o], 1, weight_OK, o, count_O[o], v, out_OV.shape[1], acc, out_OV, o)


def _axis_weights(name: str, size_in: int, size_out: int, begin: int, outputs: int) -> tuple[I32, I32, I32]:
    taps = 2 * math.ceil(2 * max(size_in / size_out, 1.0)) + 1
    first_O = buffers.take(name + "_first", np.int32, outputs)
    count_O = buffers.take(name + "_count", np.int32, outputs)
    weight_OK = buffers.take(name + "_weight", np.int32, outputs, taps)
    _weights(size_in, size_out, begin, first_O, count_O, weight_OK, buffers.take("exact", np.float64, taps))
    return first_O, count_O, weight_OK  # type: ignore[return-value]


def _vertical_first(width: int, height: int, width_out: int, height_out: int) -> bool:
    """Whether columns are resized before rows: Pillow 13's rule (earlier releases always begin with the rows)."""
    return height > height_out and height - height_out > 2 * (width - width_out)


def resize_window(
    pixels_HWC: U8,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    corner: tuple[int, int],
    flip: bool,
    out_3HW: U8,
) -> None:
    """Crop, resize and crop again, computing only the pixels that are kept.

    Equal to Pillow's ``image.crop(box).resize(size, BICUBIC)`` followed by a crop of the output's size at ``corner`` and,
    with ``flip``, a left-right mirror.

    Args:
        pixels_HWC: uint8 [H, W, 3].
        box: left, top, width, height of the crop, inside the image, in pixels.
        size: width and height of the whole resized image, in pixels.
        corner: left and top of the part of it that is kept.
        flip: mirror the result left to right.
        out_3HW: uint8 [3, height, width], C-contiguous, written.
    """
    x, y, width, height = box
    _, rows_out, columns_out = out_3HW.shape
    first_X, count_X, weight_X = _axis_weights("x", width, size[0], corner[0], columns_out)
    first_Y, count_Y, weight_Y = _axis_weights("y", height, size[1], corner[1], rows_out)
    left, columns = int(first_X[0]), int(first_X[-1] + count_X[-1] - first_X[0])
    top, rows = int(first_Y[0]), int(first_Y[-1] + count_Y[-1] - first_Y[0])
    block = buffers.take("block", np.uint8, 3 * columns, _BLOCK_ROWS)
    summed = buffers.take("summed", np.uint8, 3 * columns_out, _BLOCK_ROWS)
    acc = buffers.take("acc", np.int32, max(_BLOCK_ROWS, columns_out, 3 * columns))
    if _vertical_first(width, height, *size):
        flat_HV = pixels_HWC.reshape(pixels_HWC.shape[0], -1)
        short = buffers.take("rows", np.uint8, rows_out, 3 * columns)
        _vertical_interleaved(flat_HV, 3 * (x + left), y, first_Y, count_Y, weight_Y, acc, short)
        short_HWC = short.reshape(rows_out, columns, 3)
        _horizontal(short_HWC, -left, 0, rows_out, first_X, count_X, weight_X, flip, block, summed, acc, out_3HW)
    else:
        narrow = buffers.take("rows", np.uint8, 3, rows, columns_out)
        _horizontal(pixels_HWC, x, y + top, rows, first_X, count_X, weight_X, flip, block, summed, acc, narrow)
        _vertical_planar(narrow, first_Y, count_Y, weight_Y, acc, out_3HW)


def crop_resize(pixels_HWC: U8, x0: int, y0: int, width: int, height: int, flip: bool, out_3HW: U8) -> None:
    """Crop, resize to the output's size, mirror when asked.

    Equal to Pillow's ``image.crop((x0, y0, x0 + width, y0 + height)).resize((W, H), BICUBIC)``, with ``flip`` followed by
    ``transpose(FLIP_LEFT_RIGHT)``.

    Args:
        pixels_HWC: uint8 [H, W, 3].
        x0: left edge of the crop, in pixels.
        y0: top edge of the crop, in pixels.
        width: width of the crop, at least 1; the crop lies inside the image.
        height: height of the crop, at least 1.
        flip: mirror the result left to right.
        out_3HW: uint8 [3, H, W], C-contiguous, written.
    """
    resize_window(pixels_HWC, (x0, y0, width, height), out_3HW.shape[:0:-1], (0, 0), flip, out_3HW)
