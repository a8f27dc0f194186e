"""Affine transforms with bicubic interpolation in float64, equal to Pillow's bit for bit.

Pillow evaluates the matrix at pixel centres, interpolates with the cubic convolution of a = -1 over 4 x 4 neighbours
whose indices are clamped to the image, truncates to 8 bits, and leaves the fill colour where the centre maps outside
(``Image.transform(size, AFFINE, matrix, BICUBIC, fillcolor=...)``; ``Image.rotate`` uses it too). The same sums are
made here row by row: positions first, then one channel after the other, so that each step is a loop without branches,
which compilers turn into vector code. Four horizontal neighbours are packed into one 32-bit word and fetched at once.
Rows that need no vertical interpolation (shear and translation along x) or no horizontal one (along y) skip it: at an
offset of exactly 0 the polynomial returns its second value.

Shape suffixes: H W image, P a packed plane of H + 4 rows and W + 1 words, flat.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel
from logitstore.views.buffers import buffers

U8 = NDArray[np.uint8]

_BYTE = np.uint32(255)
_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)


@kernel
def _pack(src_3HW, packed_3P):  # type: ignore[no-untyped-def]
    """Word ``j`` of packed row ``i`` holds the values at columns ``j - 2 ... j + 1`` of row ``i - 2``, all clamped."""
    _, height, width = src_3HW.shape
    stride = width + 1
    for c in range(3):
        for i in range(height + 4):
            row = min(max(i - 2, 0), height - 1)
            words = packed_3P[c, i * stride : (i + 1) * stride]
            values = src_3HW[c, row]
            for j in range(min(2, stride)):
                words[j] = _pack_clamped(values, j)
            for j in range(max(width - 1, 2), stride):
                words[j] = _pack_clamped(values, j)
            # Shifted slices instead of shifted indices: nothing is left to check inside the loop.
            inner, second, third, fourth = words[2:], values[1:], values[2:], values[3:]
            for j in range(width - 3):
                inner[j] = _word(values[j], second[j], third[j], fourth[j])


@kernel
def _word(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    return np.uint32(v0) | np.uint32(v1) << _8 | np.uint32(v2) << _16 | np.uint32(v3) << _24


@kernel
def _pack_clamped(values, j):  # type: ignore[no-untyped-def]
    last = len(values) - 1
    return _word(
        values[min(max(j - 2, 0), last)],
        values[min(max(j - 1, 0), last)],
        values[min(j, last)],
        values[min(j + 1, last)],
    )


@kernel
def _cubic(v1, v2, v3, v4, offset):  # type: ignore[no-untyped-def]
    """The cubic through four neighbours, ``offset`` in [0, 1) beyond the second, in Pillow's order of operations."""
    p2 = v3 - v1
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = v2 - v1 - v3 + v4
    return v2 + offset * (p2 + offset * (p3 + offset * p4))


@kernel
def _cubic_word(word, offset):  # type: ignore[no-untyped-def]
    """The same for four packed values: their differences are exact in integers too."""
    v1, v2 = np.int32(word & _BYTE), np.int32((word >> _8) & _BYTE)
    v3, v4 = np.int32((word >> _16) & _BYTE), np.int32(word >> _24)
    p2 = np.float64(np.int32(v3 - v1))
    p3 = np.float64(np.int32(2 * (v1 - v2) + v3 - v4))
    p4 = np.float64(np.int32(v2 - v1 - v3 + v4))
    return np.float64(v2) + offset * (p2 + offset * (p3 + offset * p4))


@kernel
def _second(word):  # type: ignore[no-untyped-def]
    return np.float64(np.int32((word >> _8) & _BYTE))


@kernel
def _to_byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(np.int32(min(max(value, 0.0), 255.0)))


@kernel
def _positions(y, height, width, a, b, c, d, e, f, at_W, du_W, dv_W, inside_W):  # type: ignore[no-untyped-def]
    """Where the pixels of row ``y`` lie in the packed plane, and their offsets beyond it."""
    along, down = b * (y + 0.5), e * (y + 0.5)
    stride = width + 1
    for x in range(len(at_W)):
        u = a * (x + 0.5) + along + c
        v = d * (x + 0.5) + down + f
        inside = (u >= 0.0) & (u < width) & (v >= 0.0) & (v < height)
        u = u - 0.5 if inside else 0.0
        v = v - 0.5 if inside else 0.0
        left, top = np.floor(u), np.floor(v)
        du_W[x] = u - left
        dv_W[x] = v - top
        at_W[x] = np.uint32((np.int32(top) + 1) * stride + np.int32(left) + 1)
        inside_W[x] = inside


@kernel
def _interpolate(packed_P, stride, at_W, du_W, dv_W, moved_x, moved_y, word_4W, out_W):  # type: ignore[no-untyped-def]
    """One row of one channel; ``moved`` tells whether any offset along that axis differs from 0.

    Words are fetched in a loop of their own: a compiler does not vectorise stores next to loads from computed places.
    """
    columns = len(out_W)
    word0, word1, word2, word3 = word_4W[0], word_4W[1], word_4W[2], word_4W[3]
    row1, row2, row3 = packed_P[stride:], packed_P[2 * stride :], packed_P[3 * stride :]
    if not moved_y:
        for x in range(columns):
            word1[x] = row1[at_W[x]]
        for x in range(columns):
            out_W[x] = _to_byte(_cubic_word(word1[x], du_W[x]))
        return
    for x in range(columns):
        at = at_W[x]
        word0[x] = packed_P[at]
        word1[x] = row1[at]
        word2[x] = row2[at]
        word3[x] = row3[at]
    if not moved_x:
        for x in range(columns):
            v1, v2, v3, v4 = _second(word0[x]), _second(word1[x]), _second(word2[x]), _second(word3[x])
            out_W[x] = _to_byte(_cubic(v1, v2, v3, v4, dv_W[x]))
        return
    for x in range(columns):
        v1, v2 = _cubic_word(word0[x], du_W[x]), _cubic_word(word1[x], du_W[x])
        v3, v4 = _cubic_word(word2[x], du_W[x]), _cubic_word(word3[x], du_W[x])
        out_W[x] = _to_byte(_cubic(v1, v2, v3, v4, dv_W[x]))


@kernel
def _fill(values, value):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        values[i] = value


@kernel
def _affine(packed_3P, height, width, a, b, c, d, e, f, fill_3, at_W, du_W, dv_W, inside_W, word_4W, dst_3HW):  # type: ignore[no-untyped-def]
    """All rows; the arrays over W are scratch."""
    columns = dst_3HW.shape[2]
    for y in range(dst_3HW.shape[1]):
        _positions(y, height, width, a, b, c, d, e, f, at_W, du_W, dv_W, inside_W)
        # Both coordinates are monotone along a row, rounding included: what lies inside is one run.
        begin, end = 0, columns
        while begin < columns and not inside_W[begin]:
            begin += 1
        while end > begin and not inside_W[end - 1]:
            end -= 1
        # Slices, so that the loops below count from 0: a start of unknown sign costs a check on every access.
        at, du, dv = at_W[begin:end], du_W[begin:end], dv_W[begin:end]
        moved_x = moved_y = 0
        for x in range(end - begin):
            moved_x += du[x] != 0.0
            moved_y += dv[x] != 0.0
        for channel in range(3):
            out_W = dst_3HW[channel, y]
            _fill(out_W[:begin], fill_3[channel])
            _fill(out_W[end:], fill_3[channel])
            _interpolate(packed_3P[channel], width + 1, at, du, dv, moved_x > 0, moved_y > 0, word_4W, out_W[begin:end])


def affine(src_3HW: U8, dst_3HW: U8, matrix: Sequence[float], fill: Sequence[int]) -> None:
    """Apply an affine transform.

    Equal to Pillow's ``image.transform((W, H), AFFINE, matrix, BICUBIC, fillcolor=fill)``.

    Args:
        src_3HW: uint8 [3, H, W], C-contiguous.
        dst_3HW: uint8 [3, H, W], C-contiguous, written; not the source.
        matrix: (a, b, c, d, e, f): the output pixel (x, y) shows the source at (a x + b y + c, d x + e y + f), both
            measured at pixel centres, in pixels.
        fill: three values in 0..255 for what maps outside the source.
    """
    a, b, c, d, e, f = (float(value) for value in matrix)
    _, height, width = src_3HW.shape
    columns = dst_3HW.shape[2]
    packed_3P = buffers.take("packed", np.uint32, 3, (height + 4) * (width + 1))
    at_W, inside_W = buffers.take("at", np.uint32, columns), buffers.take("inside", np.bool_, columns)
    du_W, dv_W = buffers.take("du", np.float64, columns), buffers.take("dv", np.float64, columns)
    word_4W = buffers.take("words", np.uint32, 4, columns)
    _pack(src_3HW, packed_3P)
    fill_3 = np.array(fill, np.uint8)
    _affine(packed_3P, height, width, a, b, c, d, e, f, fill_3, at_W, du_W, dv_W, inside_W, word_4W, dst_3HW)
