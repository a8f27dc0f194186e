"""Weights of an antialiased bicubic resize along one axis, as Pillow computes them: float64, then rounded to 22 bits.

On reduction the cubic is stretched over 4 source pixels per output pixel; at the edges it is cut off and normalised.

Shape suffixes: O outputs, K weights of one output; arrays over both are flat, the first weights of all outputs first.
"""

from __future__ import annotations

import math

import numpy as np

from logitstore.jit import inlined, kernel

BITS = 32 - 8 - 2
"""Fractional bits of a weight: the sum of 8-bit values under overshooting weights still fits 32 bits."""
_ONE = float(1 << BITS)


@inlined
def _bicubic(x):  # type: ignore[no-untyped-def]
    """Keys' cubic with a = -0.5; the order of operations decides the last bit of the weights."""
    x = abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return near if x < 1.0 else (far if x < 2.0 else 0.0)


@kernel
def axis_weights(size_in, size_out, begin, first_O, count_O, weight_KO, exact_KO, total_O):  # type: ignore[no-untyped-def]
    """Weights of the outputs ``begin, begin + 1, ...`` of a resize from ``size_in`` to ``size_out`` pixels.

    Steps go over the outputs, each of which is summed in Pillow's order.

    Args:
        size_in: length of the source axis.
        size_out: length of the whole output axis.
        begin: first output wanted; as many follow as ``first_O`` is long.
        first_O: int32, set to the first source pixel of each output.
        count_O: int32, set to the number of source pixels of each output.
        weight_KO: int32, set to the weights; room for ``most_weights`` of each output, those not needed are 0.
        exact_KO: float64 scratch of the same size.
        total_O: float64 scratch.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    shrink = 1.0 / stretch
    outputs = np.uint64(len(first_O))
    for o in range(outputs):
        centre = (begin + np.float64(o) + 0.5) * scale
        first_O[o] = max(np.int32(centre - support + 0.5), 0)
        count_O[o] = min(np.int32(centre + support + 0.5), size_in) - first_O[o]
        total_O[o] = 0.0
    taps = np.uint64(most_weights(size_in, size_out))
    for k in range(taps):
        row = k * outputs
        for o in range(outputs):
            centre = (begin + np.float64(o) + 0.5) * scale
            exact = _bicubic((np.float64(k) + first_O[o] - centre + 0.5) * shrink)
            exact = exact if np.int32(k) < count_O[o] else 0.0
            exact_KO[row + o] = exact
            total_O[o] += exact
    for k in range(taps):
        row = k * outputs
        for o in range(outputs):
            # Never a division by 0: the kernel is 1 in its middle, and what it overshoots below is less.
            weight = np.true_divide(exact_KO[row + o], total_O[o]) * _ONE
            weight_KO[row + o] = np.int32(weight - 0.5 if weight < 0.0 else weight + 0.5)


@inlined
def most_weights(size_in, size_out):  # type: ignore[no-untyped-def]
    """An upper bound of the weights of one output: a multiple of 8."""
    return (2 * math.ceil(2.0 * max(size_in / size_out, 1.0)) + 8) // 8 * 8
