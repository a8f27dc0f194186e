"""Affine transforms with bicubic interpolation in float64, equal to Pillow's bit for bit.

Pillow evaluates the matrix at pixel centres, interpolates with the cubic convolution of a = -1 over a 4 x 4 neighbourhood
whose indices are clamped to the image, truncates to 8 bits, and leaves the fill colour where the centre maps outside
(``Image.transform(size, AFFINE, matrix, BICUBIC, fillcolor=...)``; ``Image.rotate`` uses it too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


@njit(nogil=True, cache=True)
def _cubic(v1, v2, v3, v4, d):  # type: ignore[no-untyped-def]
    p2 = v3 - v1
    p3 = 2.0 * (v1 - v2) + v3 - v4
    p4 = v2 - v1 - v3 + v4
    return v2 + d * (p2 + d * (p3 + d * p4))


@njit(nogil=True, cache=True)
def _affine(src_3HW, dst_3HW, a, b, c, d, e, f, fill_3):  # type: ignore[no-untyped-def]
    _, height, width = src_3HW.shape
    row_4 = np.empty(4, np.int64)
    column_4 = np.empty(4, np.int64)
    value_4 = np.empty(4, np.float64)
    for y in range(dst_3HW.shape[1]):
        for x in range(dst_3HW.shape[2]):
            u = a * (x + 0.5) + b * (y + 0.5) + c
            v = d * (x + 0.5) + e * (y + 0.5) + f
            if not (0.0 <= u < width and 0.0 <= v < height):
                for channel in range(3):
                    dst_3HW[channel, y, x] = fill_3[channel]
                continue
            u -= 0.5
            v -= 0.5
            left, top = np.int64(np.floor(u)), np.int64(np.floor(v))
            du, dv = u - left, v - top
            for k in range(4):
                column_4[k] = min(max(left + k - 1, 0), width - 1)
                row_4[k] = min(max(top + k - 1, 0), height - 1)
            for channel in range(3):
                for k in range(4):
                    value_4[k] = _cubic(
                        np.float64(src_3HW[channel, row_4[k], column_4[0]]),
                        np.float64(src_3HW[channel, row_4[k], column_4[1]]),
                        np.float64(src_3HW[channel, row_4[k], column_4[2]]),
                        np.float64(src_3HW[channel, row_4[k], column_4[3]]),
                        du,
                    )
                value = _cubic(value_4[0], value_4[1], value_4[2], value_4[3], dv)
                dst_3HW[channel, y, x] = np.uint8(min(max(value, 0.0), 255.0))


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
    _affine(src_3HW, dst_3HW, a, b, c, d, e, f, np.array(fill, np.uint8))
