"""Affine transforms with bicubic interpolation in float64, equal to Pillow's bit for bit.

Pillow evaluates the matrix at pixel centres, interpolates with the cubic convolution of a = -1 over 4 x 4 neighbours
whose indices are clamped to the image, truncates to 8 bits, and leaves the fill colour where the centre maps outside
(``Image.transform(size, AFFINE, matrix, BICUBIC, fillcolor=...)``; ``Image.rotate`` uses it too).

Moves along one axis are in ``shift``; here is any other matrix: four horizontal neighbours are packed into one 32-bit
word and fetched at once.

Arrays are flat, see ``sums``. Shape suffixes: H W image, P a packed plane of H + 4 rows and W + 1 words.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel
from logitstore.views.shift import (
    clamped,
    cubic,
    cubic_bytes,
    fill_run,
    shift_columns,
    shift_rows,
    shift_turned,
    to_byte,
)
from logitstore.views.turn import TILE_WORDS

_BYTE = np.uint32(255)
_BYTE1, _BYTE2, _BYTE3 = np.uint32(8), np.uint32(16), np.uint32(24)
_0, _1, _2, _3, _4, _8 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8))


@inlined
def _cubic_word(word, offset):  # type: ignore[no-untyped-def]
    return cubic_bytes(word & _BYTE, (word >> _BYTE1) & _BYTE, (word >> _BYTE2) & _BYTE, word >> _BYTE3, offset)


@kernel
def _pack(src, begin, height, width, packed, to):  # type: ignore[no-untyped-def]
    """Word ``j`` of packed row ``i`` holds the values at columns ``j - 2 ... j + 1`` of row ``i - 2``, all clamped."""
    for i in range(height + _4):
        at, into = begin + clamped(np.int64(i) - 2, np.int64(height)) * width, to + i * (width + _1)
        for j in range(min(_2, width + _1)):
            packed[into + j] = _word_at_edge(src, at, width, j)
        for j in range(max(width, _3) - _1, width + _1):
            packed[into + j] = _word_at_edge(src, at, width, j)
        for j in range(_2, max(width, _3) - _1):
            here = at + j - _2
            packed[into + j] = _word(src[here], src[here + _1], src[here + _2], src[here + _3])


@inlined
def _word_at_edge(src, at, width, j):  # type: ignore[no-untyped-def]
    first, length = np.int64(j) - 2, np.int64(width)
    return _word(
        src[at + clamped(first, length)], src[at + clamped(first + 1, length)],
        src[at + clamped(first + 2, length)], src[at + clamped(first + 3, length)],
    )  # fmt: skip


@inlined
def _word(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    return np.uint32(v0) | np.uint32(v1) << _BYTE1 | np.uint32(v2) << _BYTE2 | np.uint32(v3) << _BYTE3


@kernel
def _positions(y, height, width, matrix, at_W, du_W, dv_W, inside_W):  # type: ignore[no-untyped-def]
    """Where the pixels of row ``y`` lie in the packed plane, and their offsets beyond it; the run that lies inside."""
    a, b, c, d, e, f = matrix
    along, down = b * (y + 0.5), e * (y + 0.5)
    stride, columns = np.int32(width + 1), np.uint64(len(at_W))
    for x in range(columns):
        u = a * (np.float64(np.int32(x)) + 0.5) + along + c
        v = d * (np.float64(np.int32(x)) + 0.5) + down + f
        inside = (u >= 0.0) & (u < width) & (v >= 0.0) & (v < height)
        u = u - 0.5 if inside else 0.0
        v = v - 0.5 if inside else 0.0
        left, top = np.floor(u), np.floor(v)
        du_W[x] = u - left
        dv_W[x] = v - top
        at_W[x] = np.uint32((np.int32(top) + np.int32(1)) * stride + np.int32(left) + np.int32(1))
        inside_W[x] = inside
    # Both coordinates are monotone along a row, rounding included: what lies inside is one run.
    begin, end = _0, columns
    while begin < columns and not inside_W[begin]:
        begin += _1
    while end > begin and not inside_W[end - _1]:
        end -= _1
    return begin, end


@inlined
def _fetch(packed_P, begin, at_W, word_W, first, last):  # type: ignore[no-untyped-def]
    """A loop of its own: a compiler does not vectorise stores next to loads from computed places."""
    for x in range(first, last):
        word_W[x] = packed_P[begin + np.uint64(at_W[x])]


@inlined
def _interpolate(word1_W, word2_W, word3_W, word4_W, du_W, dv_W, dst, to, first, last):  # type: ignore[no-untyped-def]
    for x in range(first, last):
        v1, v2 = _cubic_word(word1_W[x], du_W[x]), _cubic_word(word2_W[x], du_W[x])
        v3, v4 = _cubic_word(word3_W[x], du_W[x]), _cubic_word(word4_W[x], du_W[x])
        dst[to + x] = to_byte(cubic(v1, v2, v3, v4, dv_W[x]))


@kernel
def _general(src_3HW, height, width, matrix, fill, dst_3HW, rows, columns, packed_P, at_W, du_W, dv_W, inside_W, words):  # type: ignore[no-untyped-def]
    """Any matrix; the arrays after the sizes are scratch."""
    stride, packed_plane = width + _1, (height + _4) * (width + _1)
    word1_W, word2_W, word3_W, word4_W = words
    for c in range(_3):
        _pack(src_3HW, c * height * width, height, width, packed_P, c * packed_plane)
    for y in range(rows):
        begin, end = _positions(np.float64(np.int32(y)), height, width, matrix, at_W, du_W, dv_W, inside_W)
        for c in range(_3):
            row1, to = c * packed_plane, (c * rows + y) * columns
            fill_run(dst_3HW, to, to + begin, fill[c])
            _fetch(packed_P, row1, at_W, word1_W, begin, end)
            _fetch(packed_P, row1 + stride, at_W, word2_W, begin, end)
            _fetch(packed_P, row1 + _2 * stride, at_W, word3_W, begin, end)
            _fetch(packed_P, row1 + _3 * stride, at_W, word4_W, begin, end)
            _interpolate(word1_W, word2_W, word3_W, word4_W, du_W, dv_W, dst_3HW, to, begin, end)
            fill_run(dst_3HW, to + end, to + columns, fill[c])


@kernel
def affine_words(height, width, rows, columns):  # type: ignore[no-untyped-def]
    """64-bit words of scratch that ``transform`` needs."""
    longest = max(height, width, rows, columns) + 64
    return TILE_WORDS + 7 * longest * longest // 8 + 3 * (height + 4) * (width + 1) // 2 + 8 * longest


@kernel
def transform(src_3HW, height, width, matrix, fill, dst_3HW, rows, columns, arena):  # type: ignore[no-untyped-def]
    """Apply an affine transform: equal to Pillow's ``image.transform(size, AFFINE, matrix, BICUBIC, fillcolor=fill)``.

    Args:
        src_3HW: the source, uint8, flat.
        height: of it, uint64 as all sizes.
        width: of it.
        matrix: (a, b, c, d, e, f): the output pixel (x, y) shows the source at (a x + b y + c, d x + e y + f), both
            measured at pixel centres, in pixels.
        fill: uint8 [3], for what maps outside the source.
        dst_3HW: the output, uint8, flat, written; not the source.
        rows: its height.
        columns: its width.
        arena: scratch, uint64, at least ``affine_words``.
    """
    a, b, c, d, e, f = matrix
    longest = max(height, width, rows, columns) + np.uint64(64)
    offset_W, at = arena[:longest].view(np.float64), longest
    du_W, at = arena[at : at + columns].view(np.float64), at + columns
    left_W, at = arena[at : at + longest].view(np.int32), at + longest
    words, at = arena[at : at + _2 * columns].view(np.uint32), at + _2 * columns
    row, at = arena[at : at + longest].view(np.uint8), at + longest
    if a == 1.0 and d == 0.0 and e == 1.0 and f == 0.0:
        shift_rows(
            src_3HW, width, height * width, height, width, b, c, fill,
            dst_3HW, columns, rows * columns, rows, columns, row, left_W, offset_W,
        )  # fmt: skip
    elif a == 1.0 and b == 0.0 and c == 0.0 and d == 0.0 and e == 1.0:
        for channel in range(_3):
            shift_columns(
                src_3HW[channel * height * width :], height, width, f, fill[channel],
                dst_3HW[channel * rows * columns :], rows, columns, offset_W,
            )  # fmt: skip
    elif a == 1.0 and b == 0.0 and c == 0.0 and e == 1.0 and min(width, columns) >= _8 and min(height, rows) >= _8:
        shift_turned(src_3HW, height, width, d, f, fill, dst_3HW, rows, columns, row, left_W, offset_W, arena[at:])
    else:
        packed_words = (_3 * (height + _4) * (width + _1) + _1) // _2
        _general(
            src_3HW, height, width, matrix, fill, dst_3HW, rows, columns,
            arena[at : at + packed_words].view(np.uint32), left_W.view(np.uint32)[:columns], offset_W, du_W, row,
            (words[:columns], words[columns : _2 * columns], words[_2 * columns : _3 * columns], words[_3 * columns :]),
        )  # fmt: skip
