"""Crop and antialiased bicubic resize in fixed point, equal to Pillow's bit for bit.

Pillow makes two integer passes, along rows and along columns, with weights of 22 bits (see ``weights``) and rounding to
8 bits in between (``Image.resize`` with ``Resampling.BICUBIC``). This module makes the same sums in another order of
memory: blocks of source rows are transposed, eight by eight bytes in 64-bit words, so that both passes are weighted
sums of contiguous runs, which compilers turn into vector code.

The output is planar. What is cropped and how large the output is comes from the caller; no draw is made here.

Shape suffixes: H W image, V values of a row (3 per pixel), O outputs along one axis, K weights of one output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel
from logitstore.views.buffers import buffers
from logitstore.views.weights import BITS, axis_weights, round_up

U8 = NDArray[np.uint8]

_HALF = np.int32(1 << (BITS - 1))

_BLOCK = 192
"""Source rows transposed at a time: fewer blocks mean fewer sums to start, as long as a block stays in the cache."""
_WORDS = _BLOCK // 8
_LANES = 16
"""Rows are summed in multiples of this, so that the last ones need no loop of their own."""
_NONE = np.uint64(0)
_STEP_ROW, _STEP_PIXEL = np.int64(1), np.int64(3)

_8, _16, _32 = np.uint64(8), np.uint64(16), np.uint64(32)
_MASK8, _MASK16, _MASK32 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)


@kernel
def _swap(a, b, shift, mask):  # type: ignore[no-untyped-def]
    """Exchange the fields of ``a`` that lie ``shift`` above the mask with the fields of ``b`` under the mask."""
    change = ((a >> shift) ^ b) & mask
    return a ^ (change << shift), b ^ change


@kernel
def _turn(rows, turned):  # type: ignore[no-untyped-def]
    """Transpose eight rows of 24 words, 8 x 8 bytes at a time.

    Byte ``i`` of word ``g`` in row ``k`` becomes byte ``k`` of word ``g`` in row ``i`` of ``turned``. Both are flat.
    """
    for g in range(_WORDS):
        a0, a1, a2, a3 = rows[g], rows[_WORDS + g], rows[2 * _WORDS + g], rows[3 * _WORDS + g]
        a4, a5, a6, a7 = rows[4 * _WORDS + g], rows[5 * _WORDS + g], rows[6 * _WORDS + g], rows[7 * _WORDS + g]
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
        turned[g], turned[_WORDS + g], turned[2 * _WORDS + g], turned[3 * _WORDS + g] = a0, a1, a2, a3
        turned[4 * _WORDS + g], turned[5 * _WORDS + g], turned[6 * _WORDS + g], turned[7 * _WORDS + g] = a4, a5, a6, a7


@kernel
def _load_block(src_HV, begin, y, height, used, strip, strip_words, turned, block_words):  # type: ignore[no-untyped-def]
    """``block[i, j] = src_HV[y + j, begin + i]`` for ``height`` rows of ``used`` values."""
    for j in range(0, height, 8):
        for left in range(0, used, _BLOCK):
            width = min(_BLOCK, used - left)
            start = begin + np.uint64(left)
            for k in range(min(8, height - j)):
                for i in range(np.uint64(width)):
                    strip[k, i] = src_HV[y + j + k, start + i]
            _turn(strip_words, turned)
            for g in range((width + 7) // 8):
                for k in range(8):
                    block_words[left + 8 * g + k, j // 8] = turned[k * _WORDS + g]


@kernel
def _store_block(summed_words, y, height, turned, out_words):  # type: ignore[no-untyped-def]
    """``out[c, y + j, o] = summed[c, o, j]`` for ``height`` rows; eight outputs make a word."""
    words = out_words.shape[2]
    for c in range(3):
        for word in range(words):
            start = 8 * _WORDS * (c * words + word)
            _turn(summed_words[start : start + 8 * _WORDS], turned)
            for j in range(height):
                out_words[c, y + j, word] = turned[j % 8 * _WORDS + j // 8]


@kernel
def _clip(total):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(total >> BITS, 0), 255))


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
    strip, strip_words, turned, block, block_words, summed, summed_words, acc, out_words,
):  # fmt: skip
    """Resize ``rows`` rows of the source along the row, from row ``y`` and value ``begin`` on, into planes of words.

    The other arrays are scratch: ``strip`` [8, 192], ``block`` [V, 192] and ``summed`` [3 O, 192] bytes, with V rounded
    up to a multiple of 192 and O to one of 8, and the same memory as words.
    """
    outputs, padded = len(first_O), summed.shape[0] // 3
    used = 3 * (first_O[outputs - 1] + count_O[outputs - 1] - first_O[0])
    for top in range(0, rows, _BLOCK):
        height = min(_BLOCK, rows - top)
        length = np.uint64((height + _LANES - 1) // _LANES * _LANES)
        _load_block(src_HV, begin, y + top, height, used, strip, strip_words, turned, block_words)
        for o in range(outputs):
            start = 3 * (first_O[o] - first_O[0])
            target = outputs - 1 - o if flip else o
            for c in range(3):
                run = c * padded + target
                _weighted_sum(block, _NONE, start + c, _STEP_PIXEL, weight_OK, o, count_O[o], acc, summed, run, length)
        _store_block(summed_words, top, height, turned, out_words)


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
    first_X, count_X, weight_X = axis_weights("x", width, size[0], corner[0], columns_out)
    first_Y, count_Y, weight_Y = axis_weights("y", height, size[1], corner[1], rows_out)
    left, columns = int(first_X[0]), int(first_X[-1] + count_X[-1] - first_X[0])
    top, rows = int(first_Y[0]), int(first_Y[-1] + count_Y[-1] - first_Y[0])
    values, words_out = round_up(3 * columns, _BLOCK), round_up(columns_out, 8) // 8
    strip_words, strip = buffers.take_words("strip", 8, _WORDS)
    turned = buffers.take("turned", np.uint64, 8 * _WORDS)
    block_words, block = buffers.take_words("block", values, _WORDS)
    summed_words, summed = buffers.take_words("summed", 24 * words_out, _WORDS)
    acc = buffers.take("acc", np.int32, max(_BLOCK, columns_out, 3 * columns))
    axis = (first_X, count_X, weight_X, flip)
    scratch = (strip, strip_words.ravel(), turned, block, block_words, summed, summed_words.ravel(), acc)
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
