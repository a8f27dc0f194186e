"""Moves along one axis with bicubic interpolation in float64: shears and translations (see ``affine``).

At an offset of exactly 0 the cubic returns its second value, so what moves along one axis needs one cubic for a pixel,
not five: along x its neighbours are runs of the same row; along y by whole rows they are four rows; a shear along y is
one along x between two transpositions. Arrays are flat, see ``sums``.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel
from logitstore.views.turn import TILE_WORDS, turn

_0, _1, _2, _3, _8, _63, _64 = (np.uint64(n) for n in (0, 1, 2, 3, 8, 63, 64))


@inlined
def to_byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@inlined
def cubic(v1, v2, v3, v4, offset):  # type: ignore[no-untyped-def]
    """The cubic through four neighbours, ``offset`` in [0, 1) beyond the second, in Pillow's order of operations."""
    p2 = v3 - v1
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = v2 - v1 - v3 + v4
    return v2 + offset * (p2 + offset * (p3 + offset * p4))


@inlined
def cubic_bytes(b1, b2, b3, b4, offset):  # type: ignore[no-untyped-def]
    """The same for bytes: their differences are exact in integers too."""
    v1, v2, v3, v4 = np.int32(b1), np.int32(b2), np.int32(b3), np.int32(b4)
    p2 = np.float64(np.int32(v3 - v1))
    p3 = np.float64(np.int32(2 * (v1 - v2) + v3 - v4))
    p4 = np.float64(np.int32(v2 - v1 - v3 + v4))
    return np.float64(v2) + offset * (p2 + offset * (p3 + offset * p4))


@inlined
def copy(src, at, dst, to, length):  # type: ignore[no-untyped-def]
    """``length`` values from place ``at`` of the one to place ``to`` of the other."""
    for i in range(length):
        dst[to + i] = src[at + i]


@inlined
def fill_run(dst, begin, end, value):  # type: ignore[no-untyped-def]
    for i in range(begin, end):
        dst[i] = value


@inlined
def _cubic_runs(src, at1, at2, at3, at4, offset_W, dst, to, length):  # type: ignore[no-untyped-def]
    for i in range(length):
        dst[to + i] = to_byte(cubic_bytes(src[at1 + i], src[at2 + i], src[at3 + i], src[at4 + i], offset_W[i]))


@inlined
def clamped(n, length):  # type: ignore[no-untyped-def]
    return np.uint64(min(max(n, 0), length - 1))


@kernel
def shift_rows(  # type: ignore[no-untyped-def]
    src, pitch, plane, height, width, slope, shift, fill,
    dst, dst_pitch, dst_plane, rows, columns, padded, left_W, offset_W,
):  # fmt: skip
    """Move three planes along their rows: the output (x, y) shows the source at (x + slope (y + 0.5) + shift, y).

    ``padded`` is scratch for a row with its ends repeated.
    """
    for y in range(rows):
        along = slope * (np.float64(np.int32(y)) + 0.5)
        begin, end = _0, _0
        if y < height:
            begin, end = _inside(along, shift, np.float64(np.int32(width)), columns)
        even = _lefts(along, shift, begin, end, left_W, offset_W)
        for c in range(_3):
            at, to = c * plane + y * pitch, c * dst_plane + y * dst_pitch
            fill_run(dst, to, to + begin, fill[c])
            fill_run(dst, to + end, to + columns, fill[c])
            if begin == end:
                continue
            padded[_0] = padded[_1] = src[at]
            copy(src, at, padded, _2, width)
            padded[_2 + width] = padded[_3 + width] = src[at + width - _1]
            if even:
                first = np.uint64(left_W[_0] + 1)
                _cubic_runs(padded, first, first + _1, first + _2, first + _3, offset_W, dst, to + begin, end - begin)
            else:
                for i in range(end - begin):
                    first = np.uint64(left_W[i] + 1)
                    _cubic_runs(
                        padded, first, first + _1, first + _2, first + _3, offset_W[i:], dst, to + begin + i, _1
                    )


@inlined
def _inside(along, shift, width, columns):  # type: ignore[no-untyped-def]
    """Positions rise along a row, rounding included: what lies inside the source is one run."""
    outside_left = inside = np.int32(0)
    for x in range(np.int32(columns)):
        u = (np.float64(x) + 0.5) + along + shift
        outside_left += np.int32(u < 0.0)
        inside += np.int32((u >= 0.0) & (u < width))
    return np.uint64(outside_left), np.uint64(outside_left + inside)


@inlined
def _lefts(along, shift, begin, end, left_W, offset_W):  # type: ignore[no-untyped-def]
    """The pixels left of positions and the offsets beyond them; whether the pixels follow one another.

    They do but where an offset rounds to 0 or 1.
    """
    for i in range(end - begin):
        u = (np.float64(np.int32(begin + i)) + 0.5) + along + shift - 0.5
        left = np.floor(u)
        offset_W[i] = u - left
        left_W[i] = np.int32(left)
    uneven = 0
    for i in range(end - begin):
        uneven |= left_W[i] ^ np.int32(left_W[_0] + np.int32(i))
    return uneven == 0


@kernel
def shift_columns(src, height, width, shift, fill, dst, rows, columns, offset_W):  # type: ignore[no-untyped-def]
    """Move one plane along its columns: the output (x, y) shows the source at (x, y + shift)."""
    inside = min(width, columns)
    for y in range(rows):
        v, to = np.float64(np.int32(y)) + 0.5 + shift, y * columns
        if not 0.0 <= v < height:
            fill_run(dst, to, to + columns, fill)
            continue
        v -= 0.5
        top = np.int64(np.floor(v))
        for i in range(inside):
            offset_W[i] = v - np.float64(top)
        last = np.int64(height)
        row1, row2 = clamped(top - 1, last) * width, clamped(top, last) * width
        row3, row4 = clamped(top + 1, last) * width, clamped(top + 2, last) * width
        _cubic_runs(src, row1, row2, row3, row4, offset_W, dst, to, inside)
        fill_run(dst, to + inside, to + columns, fill)


@kernel
def shift_turned(src_3HW, height, width, slope, shift, fill, dst_3HW, rows, columns, row, left_W, offset_W, arena):  # type: ignore[no-untyped-def]
    """Move along columns: along rows, between two transpositions."""
    tile, at = arena[: np.uint64(TILE_WORDS)], np.uint64(TILE_WORDS)
    pitch, moved_pitch, back_pitch = (height + _63) // _64 * _8, (rows + _63) // _64 * _8, (columns + _63) // _64 * _8
    plane, moved_plane = width * pitch, columns * moved_pitch
    source, at = arena[at : at + _3 * plane], at + _3 * plane
    moved, at = arena[at : at + _3 * moved_plane], at + _3 * moved_plane
    back = arena[at : at + rows * back_pitch]
    for c in range(_3):
        turn(src_3HW, c * height * width, width, height, width, tile, source, c * plane, pitch)
    shift_rows(
        source.view(np.uint8), pitch * _8, plane * _8, width, height, slope, shift, fill,
        moved.view(np.uint8), moved_pitch * _8, moved_plane * _8, columns, rows, row, left_W, offset_W,
    )  # fmt: skip
    for c in range(_3):
        turn(moved.view(np.uint8), c * moved_plane * _8, moved_pitch * _8, columns, rows, tile, back, _0, back_pitch)
        for y in range(rows):
            copy(back.view(np.uint8), y * back_pitch * _8, dst_3HW, (c * rows + y) * columns, columns)
