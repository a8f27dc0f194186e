"""Weights of an antialiased bicubic resize along one axis, as Pillow computes them: float64, then rounded to 22 bits.

On reduction the cubic is stretched over 4 source pixels per output pixel; at the edges it is cut off and normalised.

Shape suffixes: O outputs, K weights of one output, rounded up to a multiple of 8.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel
from logitstore.views.buffers import buffers

I32 = NDArray[np.int32]

BITS = 32 - 8 - 2
"""Fractional bits of a weight: the sum of 8-bit values under overshooting weights still fits 32 bits."""
_ONE = float(1 << BITS)


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


def round_up(count: int, multiple: int) -> int:
    """The least multiple that is not below ``count``."""
    return -(-count // multiple) * multiple


def axis_weights(name: str, size_in: int, size_out: int, begin: int, outputs: int) -> tuple[I32, I32, I32]:
    """Weights of ``outputs`` pixels from ``begin`` on of a resize from ``size_in`` to ``size_out`` pixels.

    Args:
        name: names the thread's buffers, which hold the result until the name is used again.
        size_in: length of the source axis.
        size_out: length of the whole output axis.
        begin: first output wanted.
        outputs: number of outputs wanted, at least 1.

    Returns:
        int32 [O] first source pixel, int32 [O] number of source pixels, int32 [O, K] weights, then zeros.
    """
    taps = round_up(2 * math.ceil(2 * max(size_in / size_out, 1.0)) + 1, 8)
    first_O = buffers.take(name + "_first", np.int32, outputs)
    count_O = buffers.take(name + "_count", np.int32, outputs)
    weight_OK = buffers.take(name + "_weight", np.int32, outputs, taps)
    _weights(size_in, size_out, begin, first_O, count_O, weight_OK, buffers.take("exact", np.float64, taps))
    return first_O, count_O, weight_OK  # type: ignore[return-value]
