"""Crop and antialiased bicubic resize in fixed point, equal to Pillow's bit for bit.

Pillow makes two integer passes, along rows and along columns, with weights of 22 bits (see ``weights``) and rounding to
8 bits in between (``Image.resize`` with ``Resampling.BICUBIC``). This module makes the same sums in another order of
memory: blocks of source rows are transposed (see ``turn``), so that both passes are weighted sums of contiguous runs
(see ``sums``), which compilers turn into vector code.

The output is planar. What is cropped and how large the output is comes from the caller; no draw is made here.

Arrays inside are flat and offsets unsigned: slices in a loop cost a count of references each, and an index of unknown
sign a check on every access. Shape suffixes: H W image, O outputs along one axis, K weights of one output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import inlined, kernel
from logitstore.views.buffers import flat, with_arena
from logitstore.views.sums import weighted_runs
from logitstore.views.turn import ROWS, TILE_WORDS, turn
from logitstore.views.weights import axis_weights, most_weights

U8 = NDArray[np.uint8]

BLOCK = 128
"""Source rows transposed at a time: many mean few sums to start, few stay in the cache."""

_0, _1, _3, _8, _16 = (np.uint64(n) for n in (0, 1, 3, 8, 16))
_BLOCK, _ROWS = np.uint64(BLOCK), np.uint64(ROWS)
_UPRIGHT = np.bool_(False)  # where numba sees False, it compiles for that value alone


@inlined
def _round_up(count, multiple):  # type: ignore[no-untyped-def]
    return (count + multiple - _1) // multiple * multiple


@kernel
def _horizontal(  # type: ignore[no-untyped-def]
    src, begin, pitch, rows, used, first_O, count_O, weight_KO, flip, acc,
    tile, block, block_read, summed, summed_read, planes,
):  # fmt: skip
    """Resize ``rows`` rows of ``used`` bytes (at least 8) along the row, into three planes of words.

    Rows of a plane are padded to 64 bytes, and their number to 8.
    """
    padded, plane_pitch = _round_up(np.uint64(len(first_O)), _8), _round_up(np.uint64(len(first_O)), _ROWS) // _8
    plane = _round_up(rows, _8) * plane_pitch
    summed_bytes = summed_read.view(np.uint8)
    for top in range(_0, rows, _BLOCK):
        height = min(_BLOCK, rows - top)
        turn(src, begin + top * pitch, pitch, height, used, tile, block, _0, _BLOCK // _8)
        weighted_runs(
            block_read.view(np.uint8), _0, _3 * _BLOCK, _BLOCK, _3, first_O, count_O, weight_KO, flip, acc,
            summed.view(np.uint8), _0, _BLOCK, padded * _BLOCK, _round_up(height, _16),
        )  # fmt: skip
        for c in range(_3):
            to, columns = c * plane + top * plane_pitch, _round_up(height, _8)
            turn(summed_bytes, c * padded * _BLOCK, _BLOCK, padded, columns, tile, planes, to, plane_pitch)


@kernel
def _copy(src, begin, pitch, dst, dst_pitch, rows, columns):  # type: ignore[no-untyped-def]
    for y in range(rows):
        at, to = begin + y * pitch, y * dst_pitch
        for x in range(columns):
            dst[to + x] = src[at + x]


@inlined
def _vertical_first(width, height, width_out, height_out):  # type: ignore[no-untyped-def]
    """Whether the height is resized before the width: Pillow 13's rule; earlier releases begin with the width."""
    return height > height_out and height - height_out > 2 * (width - width_out)


@inlined
def _sizes(width, height, width_out, height_out, columns, rows):  # type: ignore[no-untyped-def]
    """Words of weights along x and y, exact weights, sums, block, summed block, planes and spare rows."""
    taps_x, taps_y = most_weights(width, width_out) * columns, most_weights(height, height_out) * rows
    padded = (columns + 63) // 64 * 64
    used, most_rows = max(3 * width, 8), (max(height, rows) + 7) // 8 * 8
    return (
        taps_x, taps_y, max(taps_x, taps_y), max(BLOCK, padded, used),
        BLOCK // 8 * used, BLOCK // 8 * 3 * padded, 3 * padded // 8 * most_rows, used * most_rows // 8,
    )  # fmt: skip


@inlined
def resize_words(width, height, width_out, height_out, columns, rows):  # type: ignore[no-untyped-def]
    """64-bit words of scratch that ``resize`` needs; the last two arguments are the size of what is kept."""
    taps_x, taps_y, exact, acc, block, summed, planes, spare = _sizes(
        width, height, width_out, height_out, columns, rows
    )
    return TILE_WORDS + taps_x + taps_y + exact + acc + block + summed + planes + spare + 3 * (columns + rows)


@kernel
def resize(  # type: ignore[no-untyped-def]
    pixels, pitch, box, width_out, height_out, corner_x, corner_y, flip, out, columns, rows, arena, read
):  # fmt: skip
    """``resize_window`` on flat arrays; ``arena`` is uint64 scratch of ``resize_words``. All numbers are int64.

    ``read`` is the same memory, read-only as images are, so that what reads either is compiled once.
    """
    x, y, width, height = box
    taps_x, taps_y, most, sums, block_words, summed_words, plane_words, spare_words = _sizes(
        width, height, width_out, height_out, columns, rows
    )
    tile, at = arena[:TILE_WORDS], TILE_WORDS
    first_X, at = arena[at : at + columns].view(np.int32)[:columns], at + columns
    count_X, at = arena[at : at + columns].view(np.int32)[:columns], at + columns
    first_Y, at = arena[at : at + rows].view(np.int32)[:rows], at + rows
    count_Y, at = arena[at : at + rows].view(np.int32)[:rows], at + rows
    total, at = arena[at : at + columns + rows].view(np.float64), at + columns + rows
    weight_X, at = arena[at : at + taps_x].view(np.int32), at + taps_x
    weight_Y, at = arena[at : at + taps_y].view(np.int32), at + taps_y
    exact, at = arena[at : at + most].view(np.float64), at + most
    acc, at = arena[at : at + sums].view(np.int32), at + sums
    block, block_read, at = arena[at : at + block_words], read[at : at + block_words], at + block_words
    summed, summed_read, at = arena[at : at + summed_words], read[at : at + summed_words], at + summed_words
    planes, planes_read, at = arena[at : at + plane_words], read[at : at + plane_words], at + plane_words
    spare, spare_read = arena[at : at + spare_words].view(np.uint8), read[at : at + spare_words].view(np.uint8)

    axis_weights(width, width_out, corner_x, first_X, count_X, weight_X, exact, total)
    axis_weights(height, height_out, corner_y, first_Y, count_Y, weight_Y, exact, total)
    begin = np.uint64((y + first_Y[0]) * pitch + 3 * (x + first_X[0]))
    rows_in = np.uint64(first_Y[rows - 1] + count_Y[rows - 1] - first_Y[0])
    used = np.uint64(3 * (first_X[columns - 1] + count_X[columns - 1] - first_X[0]))
    padded = max(used, _8)
    kept, width_kept, planes_pitch = np.uint64(rows), np.uint64(columns), _round_up(np.uint64(columns), _ROWS)
    vertical_first = _vertical_first(width, height, width_out, height_out)
    src, src_pitch, src_rows = pixels, np.uint64(pitch), rows_in
    if vertical_first:
        weighted_runs(
            pixels, begin, src_pitch, _0, _1, first_Y, count_Y, weight_Y, _UPRIGHT, acc, spare, _0, padded, _0, used
        )
        src, begin, src_pitch, src_rows = spare_read, _0, padded, kept
    elif used < _8:  # too narrow to be read by words
        _copy(pixels, begin, src_pitch, spare, padded, rows_in, used)
        src, begin, src_pitch = spare_read, _0, padded
    _horizontal(
        src, begin, src_pitch, src_rows, padded, first_X, count_X, weight_X, flip, acc,
        tile, block, block_read, summed, summed_read, planes,
    )  # fmt: skip
    narrow, plane = planes_read.view(np.uint8), _round_up(src_rows, _8) * planes_pitch
    if vertical_first:
        for c in range(_3):
            _copy(narrow[c * plane :], _0, planes_pitch, out[c * kept * width_kept :], width_kept, kept, width_kept)
    else:
        weighted_runs(
            narrow, _0, planes_pitch, plane, _3, first_Y, count_Y, weight_Y, _UPRIGHT, acc,
            out, _0, width_kept, kept * width_kept, width_kept,
        )  # fmt: skip


@kernel
def _try_resize(pixels, pitch, box, width_out, height_out, corner_x, corner_y, flip, out, columns, rows, arena, read):  # type: ignore[no-untyped-def]
    """0 when done, else how many words of scratch are needed."""
    words = resize_words(box[2], box[3], width_out, height_out, columns, rows)
    if words > len(arena):
        return words
    resize(pixels, pitch, box, width_out, height_out, corner_x, corner_y, flip, out, columns, rows, arena, read)
    return 0


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
    _, rows, columns = out_3HW.shape
    with_arena(
        _try_resize, flat(pixels_HWC), 3 * pixels_HWC.shape[1], tuple(map(int, box)), *size, *corner, bool(flip),
        out_3HW.reshape(-1), columns, rows,
    )  # fmt: skip
