"""Crop and antialiased bicubic resize in fixed point, equal to Pillow's bit for bit.

Pillow computes the weights of each output pixel in float64, rounds them to 22 bits and makes two integer passes, along
rows and along columns, rounding to 8 bits in between (``Image.resize`` with ``Resampling.BICUBIC``). This module makes
the same sums in another order of memory: blocks of source rows are transposed, eight by eight bytes in 64-bit words, so
that both passes are weighted sums of contiguous runs, which compilers turn into vector code.

The output is planar. What is cropped and how large the output is comes from the caller; no draw is made here.

Shape suffixes: H W image, V values of a row (3 per pixel), O outputs along one axis, K weights of one output.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from logitstore.views.buffers import buffers
from logitstore.views.jit import kernel

U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

_BITS = 32 - 8 - 2
_ONE = float(1 << _BITS)
_HALF = np.int32(1 << (_BITS - 1))

_BLOCK = 192
"""Source rows transposed at a time: fewer blocks mean fewer sums to start, as long as a block stays in the cache."""
_LANES = 16
"""Rows are summed in multiples of this, so that the last ones need no loop of their own."""
_NONE = np.uint64(0)
_STEP_ROW, _STEP_PIXEL = np.int64(1), np.int64(3)

_8, _16, _32 = np.uint64(8), np.uint64(16), np.uint64(32)
_MASK8, _MASK16, _MASK32 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)


@kernel
def _bicubic(x):  # type: ignore[no-untyped-def]
    """Keys' cubic with a = -0.5; the order of operations decides the last bit of the weights."""
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@kernel
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
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size_in) - first
        total = 0.0
        for k in range(count):
            exact_K[k] = _bicubic((k + first - centre + 0.5) * shrink)
            total += exact_K[k]
        for k in range(count):
            weight = exact_K[k] / total if total != 0.0 else exact_K[k]
            weight_OK[o, k] = np.int32(weight * _ONE - 0.5) if weight < 0.0 else np.int32(weight * _ONE + 0.5)
        for k in range(count, weight_OK.shape[1]):
            weight_OK[o, k] = 0
        first_O[o] = first
        count_O[o] = count


@kernel
def _swap(a, b, shift, mask):  # type: ignore[no-untyped-def]
    """Exchange the fields of ``a`` that lie ``shift`` above the mask with the fields of ``b`` under the mask."""
    change = ((a >> shift) ^ b) & mask
    return a ^ (change << shift), b ^ change


@kernel
def _transpose_8x8(src, row, word):  # type: ignore[no-untyped-def]
    """Word k of the result holds byte k of the words in column ``word`` of eight rows, the first row lowest."""
    a0, a1, a2, a3 = src[row, word], src[row + 1, word], src[row + 2, word], src[row + 3, word]
    a4, a5, a6, a7 = src[row + 4, word], src[row + 5, word], src[row + 6, word], src[row + 7, word]
    a0, a4 = _swap(a0, a4, _32, _MASK32)
    a1, a5 = _swap(a1, a5, _32, _MASK32)
    a2, a6 = _swap(a2, a6, _32, _MASK32)
    a3, a7 = _swap(a3, a7, _32, _MASK32)
    a0, a2 = _swap(a0, a2, _16, _MASK16)
    a1, a3 = _swap(a1, a3, _16, _MASK16)
    a4, a6 = _swap(a4, a6, _16, _MASK16)
    a5, a7 = _swap(a5, a7, _16, _MASK16)
    a0, a1 = _swap(a0, a1, _8, _MASK8)
    a2, a3 = _swap(a2, a3, _8, _MASK8)
    a4, a5 = _swap(a4, a5, _8, _MASK8)
    a6, a7 = _swap(a6, a7, _8, _MASK8)
    return a0, a1, a2, a3, a4, a5, a6, a7


@kernel
def _clip(total):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(total >> _BITS, 0), 255))


@kernel
def _weighted_sum(src, begin, row, step, weight_OK, o, count, acc, dst, target, length):  # type: ignore[no-untyped-def]
    """``dst[target, :length]`` = the rows ``row, row + step, ...`` of ``src[:, begin:]`` under weights ``o``.

    ``begin`` and ``length`` are unsigned: an index of unknown sign costs a check on every access. Up to 8 weights,
    enough down to half the size, are summed at once; missing ones are 0 and read the first row.
    """
    w0, w1, w2, w3 = weight_OK[o, 0], weight_OK[o, 1], weight_OK[o, 2], weight_OK[o, 3]
    r0, r1 = row, row + (step if count > 1 else 0)
    r2, r3 = row + (2 * step if count > 2 else 0), row + (3 * step if count > 3 else 0)
    if count <= 4:
        for i in range(length):
            j = begin + i
            total = np.int32(src[r0, j] * w0 + src[r1, j] * w1 + src[r2, j] * w2 + src[r3, j] * w3)
            dst[target, i] = _clip(np.int32(_HALF + total))
        return
    if count <= 8:
        w4, w5, w6, w7 = weight_OK[o, 4], weight_OK[o, 5], weight_OK[o, 6], weight_OK[o, 7]
        r4, r5 = row + 4 * step, row + (5 * step if count > 5 else 0)
        r6, r7 = row + (6 * step if count > 6 else 0), row + (7 * step if count > 7 else 0)
        if count <= 6:
            for i in range(length):
                j = begin + i
                low = np.int32(src[r0, j] * w0 + src[r1, j] * w1 + src[r2, j] * w2)
                high = np.int32(src[r3, j] * w3 + src[r4, j] * w4 + src[r5, j] * w5)
                dst[target, i] = _clip(np.int32(_HALF + low + high))
            return
        for i in range(length):
            j = begin + i
            low = np.int32(src[r0, j] * w0 + src[r1, j] * w1 + src[r2, j] * w2 + src[r3, j] * w3)
            high = np.int32(src[r4, j] * w4 + src[r5, j] * w5 + src[r6, j] * w6 + src[r7, j] * w7)
            dst[target, i] = _clip(np.int32(_HALF + low + high))
        return
    for i in range(length):
        acc[i] = _HALF
    for k in range(0, count, 4):
        w0, w1, w2, w3 = weight_OK[o, k], weight_OK[o, k + 1], weight_OK[o, k + 2], weight_OK[o, k + 3]
        r0 = row + k * step
        r1 = r0 + (step if count > k + 1 else 0)
        r2, r3 = r0 + (2 * step if count > k + 2 else 0), r0 + (3 * step if count > k + 3 else 0)
        for i in range(length):
            j = begin + i
            acc[i] = np.int32(acc[i] + src[r0, j] * w0 + src[r1, j] * w1 + src[r2, j] * w2 + src[r3, j] * w3)
    for i in range(length):
        dst[target, i] = _clip(acc[i])


@kernel
def _horizontal(  # type: ignore[no-untyped-def]
    src_HV, begin, y, rows, first_O, count_O, weight_OK, flip,
    copy, copy_words, block, block_words, summed, summed_words, acc, out_words,
):  # fmt: skip
    """Resize ``rows`` rows of the source along the row, from row ``y`` and value ``begin`` on, into planes of words.

    The other arrays are scratch, each of 64-bit words with a view of its bytes: ``copy`` [192, V], ``block`` [V, 192],
    ``summed`` [3 O, 192], with V and O rounded up to multiples of 8.
    """
    outputs, padded = len(first_O), summed.shape[0] // 3
    used = np.uint64(3 * (first_O[outputs - 1] + count_O[outputs - 1] - first_O[0]))
    for top in range(0, rows, _BLOCK):
        height = min(_BLOCK, rows - top)
        length = np.uint64((height + _LANES - 1) // _LANES * _LANES)
        for j in range(height):
            for i in range(used):
                copy[j, i] = src_HV[y + top + j, begin + i]
        for j in range(0, height, 8):
            for word in range(copy_words.shape[1]):
                columns = _transpose_8x8(copy_words, j, word)
                for k in range(8):
                    block_words[8 * word + k, j // 8] = columns[k]
        for o in range(outputs):
            start = 3 * (first_O[o] - first_O[0])
            target = outputs - 1 - o if flip else o
            for c in range(3):
                run = c * padded + target
                _weighted_sum(
                    block, _NONE, start + c, _STEP_PIXEL, weight_OK, o, count_O[o], acc, summed, run, length
                )
        for c in range(3):
            for word in range(padded // 8):
                for j in range(0, height, 8):
                    rows_8 = _transpose_8x8(summed_words, c * padded + 8 * word, j // 8)
                    for k in range(min(8, height - j)):
                        out_words[c, top + j + k, word] = rows_8[k]


@kernel
def _vertical_planar(rows_3RW, first_O, count_O, weight_OK, acc, out_3OW):  # type: ignore[no-untyped-def]
    """Resize along columns; row 0 of ``rows_3RW`` is the first source row needed."""
    length = np.uint64(out_3OW.shape[2])
    for c in range(3):
        for o in range(len(first_O)):
            row = first_O[o] - first_O[0]
            _weighted_sum(rows_3RW[c], _NONE, row, _STEP_ROW, weight_OK, o, count_O[o], acc, out_3OW[c], o, length)


@kernel
def _vertical_interleaved(src_HV, begin, y, first_O, count_O, weight_OK, acc, out_OV):  # type: ignore[no-untyped-def]
    """Resize along columns; a row is a run of values of all channels, of which those from ``begin`` on are used."""
    for o in range(len(first_O)):
        row = y + first_O[o]
        length = np.uint64(out_OV.shape[1])
        _weighted_sum(src_HV, begin, row, _STEP_ROW, weight_OK, o, count_O[o], acc, out_OV, o, length)


def _round_up(count: int) -> int:
    return -(-count // 8) * 8


def _axis_weights(name: str, size_in: int, size_out: int, begin: int, outputs: int) -> tuple[I32, I32, I32]:
    taps = _round_up(2 * math.ceil(2 * max(size_in / size_out, 1.0)) + 1)
    first_O = buffers.take(name + "_first", np.int32, outputs)
    count_O = buffers.take(name + "_count", np.int32, outputs)
    weight_OK = buffers.take(name + "_weight", np.int32, outputs, taps)
    _weights(size_in, size_out, begin, first_O, count_O, weight_OK, buffers.take("exact", np.float64, taps))
    return first_O, count_O, weight_OK  # type: ignore[return-value]


def _vertical_first(width: int, height: int, width_out: int, height_out: int) -> bool:
    """Whether the height is resized before the width: Pillow 13's rule; earlier releases begin with the width."""
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

    Equal to Pillow's ``image.crop(box).resize(size, BICUBIC)`` followed by a crop of the output's size at ``corner``
    and, with ``flip``, a left-right mirror.

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
    values, words_out = _round_up(3 * columns), _round_up(columns_out) // 8
    copy_words, copy = buffers.take_words("copy", _BLOCK, values // 8)
    block_words, block = buffers.take_words("block", values, _BLOCK // 8)
    summed_words, summed = buffers.take_words("summed", 24 * words_out, _BLOCK // 8)
    acc = buffers.take("acc", np.int32, max(_BLOCK, columns_out, 3 * columns))
    axis = (first_X, count_X, weight_X, flip)
    scratch = (copy, copy_words, block, block_words, summed, summed_words, acc)
    source_HV = pixels_HWC.reshape(pixels_HWC.shape[0], -1)
    begin = np.uint64(3 * (x + left))
    if _vertical_first(width, height, *size):
        short_OV = buffers.take("short", np.uint8, rows_out, 3 * columns)
        _vertical_interleaved(source_HV, begin, y, first_Y, count_Y, weight_Y, acc, short_OV)
        narrow_words, narrow = buffers.take_words("narrow", 3, rows_out, words_out)
        _horizontal(short_OV, _NONE, 0, rows_out, *axis, *scratch, narrow_words)
        out_3HW[:] = narrow[:, :, :columns_out]
    else:
        narrow_words, narrow = buffers.take_words("narrow", 3, rows, words_out)
        _horizontal(source_HV, begin, y + top, rows, *axis, *scratch, narrow_words)
        _vertical_planar(narrow, first_Y, count_Y, weight_Y, acc, out_3HW)


def crop_resize(pixels_HWC: U8, x0: int, y0: int, width: int, height: int, flip: bool, out_3HW: U8) -> None:
    """Crop, resize to the output's size, mirror when asked.

    Equal to Pillow's ``image.crop((x0, y0, x0 + width, y0 + height)).resize((W, H), BICUBIC)``, with ``flip`` followed
    by ``transpose(FLIP_LEFT_RIGHT)``.

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
