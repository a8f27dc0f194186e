"""Transposition of byte matrices, 8 x 8 bytes at a time in 64-bit words, which compilers turn into vector code.

Arrays are flat and offsets unsigned: slices cost a count of references each, and an index of unknown sign a check.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel

ROWS = 64
"""Source rows of one strip: the words that eight of their columns become make one vector of 64 bytes."""
TILE_WORDS = 8 * 64
"""64-bit words of scratch that ``turn`` needs: eight strips, so that what is written rests before it is read back."""

_0, _1, _2, _3, _4, _5, _6, _7 = (np.uint64(n) for n in range(8))
_8, _16, _24, _32, _40, _48, _56, _64 = (np.uint64(8 * n) for n in range(1, 9))
_MASK8, _MASK16, _MASK32 = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF), np.uint64(0x00000000FFFFFFFF)


@kernel
def turn(src, begin, pitch, rows, columns, tile, dst_words, to, dst_pitch):  # type: ignore[no-untyped-def]
    """Byte (j, i) of the source becomes byte (i, j) of the destination. All numbers are uint64.

    Rows are written in strips of 64 bytes: beyond ``rows``, up to a multiple of 64, the destination holds anything.

    Args:
        src: uint8, flat.
        begin: where the source matrix begins, in bytes.
        pitch: bytes from one of its rows to the next.
        rows: its height.
        columns: its width, at least 8.
        tile: scratch, uint64 [512].
        dst_words: uint64, flat.
        to: where the destination begins, in words.
        dst_pitch: words from one of its rows to the next.
    """
    for top in range(_0, rows, _64):
        height = min(_64, rows - top)
        for left in range(_0, columns, _64):
            right = min(left + _64, columns)
            slot = _0
            for column in range(left, right, _8):
                at = begin + top * pitch + min(column, columns - _8)  # the last word overlaps the one before
                _gather(src, at, pitch, height, tile, slot)
                slot += _64
            slot = _0
            for column in range(left, right, _8):
                _turn_words(tile, slot)
                _put(tile, slot, dst_words, to + min(column, columns - _8) * dst_pitch + (top >> _3), dst_pitch)
                slot += _64


@inlined
def _word(src, at):  # type: ignore[no-untyped-def]
    """Eight bytes, the first one lowest; compilers make one load of it."""
    low = np.uint64(src[at]) | np.uint64(src[at + _1]) << _8 | np.uint64(src[at + _2]) << _16
    low |= np.uint64(src[at + _3]) << _24 | np.uint64(src[at + _4]) << _32 | np.uint64(src[at + _5]) << _40
    return low | np.uint64(src[at + _6]) << _48 | np.uint64(src[at + _7]) << _56


@inlined
def _gather(src, at, pitch, rows, tile, slot):  # type: ignore[no-untyped-def]
    """Words of up to 64 rows: that of row 8 j + r goes to place 8 r + j."""
    to = slot
    for row in range(_0, rows, _8):
        here = at + row * pitch
        if row + _8 <= rows:
            tile[to] = _word(src, here)
            tile[to + _8] = _word(src, here + pitch)
            tile[to + _16] = _word(src, here + _2 * pitch)
            tile[to + _24] = _word(src, here + _3 * pitch)
            tile[to + _32] = _word(src, here + _4 * pitch)
            tile[to + _40] = _word(src, here + _5 * pitch)
            tile[to + _48] = _word(src, here + _6 * pitch)
            tile[to + _56] = _word(src, here + _7 * pitch)
        else:
            for r in range(rows - row):
                tile[to + _8 * r] = _word(src, here + r * pitch)
        to += _1


@inlined
def _swap(a, b, shift, mask):  # type: ignore[no-untyped-def]
    """Exchange the fields of ``a`` that lie ``shift`` above the mask with the fields of ``b`` under the mask."""
    change = ((a >> shift) ^ b) & mask
    return a ^ (change << shift), b ^ change


@inlined
def _turn_words(tile, slot):  # type: ignore[no-untyped-def]
    """Transpose 8 x 8 bytes in the words (0, j) to (7, j) for each j: byte k of word r becomes byte r of word k."""
    for j in range(_8):
        at = slot + j
        a0, a1, a2, a3 = tile[at], tile[at + _8], tile[at + _16], tile[at + _24]
        a4, a5, a6, a7 = tile[at + _32], tile[at + _40], tile[at + _48], tile[at + _56]
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
        tile[at], tile[at + _8], tile[at + _16], tile[at + _24] = a0, a1, a2, a3
        tile[at + _32], tile[at + _40], tile[at + _48], tile[at + _56] = a4, a5, a6, a7


@inlined
def _put(tile, slot, dst_words, to, pitch):  # type: ignore[no-untyped-def]
    """Eight rows of eight words; all of a row is read before it is written, so that each is one load and one store."""
    for k in range(_8):
        at, into = slot + _8 * k, to + k * pitch
        w0, w1, w2, w3 = tile[at], tile[at + _1], tile[at + _2], tile[at + _3]
        w4, w5, w6, w7 = tile[at + _4], tile[at + _5], tile[at + _6], tile[at + _7]
        dst_words[into], dst_words[into + _1], dst_words[into + _2], dst_words[into + _3] = w0, w1, w2, w3
        dst_words[into + _4], dst_words[into + _5], dst_words[into + _6], dst_words[into + _7] = w4, w5, w6, w7
