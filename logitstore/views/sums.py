"""Weighted sums of runs of bytes, in fixed point: one axis of a resize, the other axis being contiguous.

Arrays are flat and offsets unsigned: slices cost a count of references each, and an index of unknown sign a check. The
sums have no branches: compilers count references around those. Shape suffixes: O outputs, K weights of one output.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel
from logitstore.views.weights import BITS

_HALF = np.int32(1 << (BITS - 1))
_0, _1, _2, _3, _4 = (np.uint64(n) for n in range(5))


@inlined
def _clip(total):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(total >> BITS, 0), 255))


@inlined
def _weights4(weight_KO, o, outputs, k):  # type: ignore[no-untyped-def]
    """Weights ``k`` to ``k + 3`` of output ``o``."""
    at = o + k * outputs
    return weight_KO[at], weight_KO[at + outputs], weight_KO[at + _2 * outputs], weight_KO[at + _3 * outputs]


@inlined
def _runs4(at, step, count, k):  # type: ignore[no-untyped-def]
    """Where the runs ``k`` to ``k + 3`` begin. Those that are missing have weight 0 and may be any: run ``k``."""
    first, left = at + k * step, count - np.int64(k)
    second, third = first + (step if left > 1 else _0), first + (_2 * step if left > 2 else _0)
    return first, second, third, first + (_3 * step if left > 3 else _0)


@inlined
def _sum4(src, at, step, count, weight_KO, o, outputs, dst, to, length):  # type: ignore[no-untyped-def]
    """``dst[to : to + length]``: up to 4 runs of ``src``, ``step`` apart from ``at`` on, under the weights of ``o``."""
    w0, w1, w2, w3 = _weights4(weight_KO, o, outputs, _0)
    a0, a1, a2, a3 = _runs4(at, step, count, _0)
    for i in range(length):
        total = np.int32(src[a0 + i] * w0 + src[a1 + i] * w1 + src[a2 + i] * w2 + src[a3 + i] * w3)
        dst[to + i] = _clip(np.int32(_HALF + total))


@inlined
def _sum6(src, at, step, count, weight_KO, o, outputs, dst, to, length):  # type: ignore[no-untyped-def]
    """The same for 5 or 6 runs."""
    w0, w1, w2, w3 = _weights4(weight_KO, o, outputs, _0)
    w4, w5, _, _ = _weights4(weight_KO, o, outputs, _4)
    a0, a1, a2, a3 = _runs4(at, step, count, _0)
    a4, a5, _, _ = _runs4(at, step, count, _4)
    for i in range(length):
        low = np.int32(src[a0 + i] * w0 + src[a1 + i] * w1 + src[a2 + i] * w2)
        high = np.int32(src[a3 + i] * w3 + src[a4 + i] * w4 + src[a5 + i] * w5)
        dst[to + i] = _clip(np.int32(_HALF + low + high))


@inlined
def _sum8(src, at, step, count, weight_KO, o, outputs, dst, to, length):  # type: ignore[no-untyped-def]
    """The same for 7 or 8 runs: enough down to half the size."""
    w0, w1, w2, w3 = _weights4(weight_KO, o, outputs, _0)
    w4, w5, w6, w7 = _weights4(weight_KO, o, outputs, _4)
    a0, a1, a2, a3 = _runs4(at, step, count, _0)
    a4, a5, a6, a7 = _runs4(at, step, count, _4)
    for i in range(length):
        low = np.int32(src[a0 + i] * w0 + src[a1 + i] * w1 + src[a2 + i] * w2 + src[a3 + i] * w3)
        high = np.int32(src[a4 + i] * w4 + src[a5 + i] * w5 + src[a6 + i] * w6 + src[a7 + i] * w7)
        dst[to + i] = _clip(np.int32(_HALF + low + high))


@inlined
def _sum_many(src, at, step, count, weight_KO, o, outputs, acc, dst, to, length):  # type: ignore[no-untyped-def]
    """The same for any number of runs, four at a time."""
    for i in range(length):
        acc[i] = _HALF
    for k in range(_0, np.uint64(count), _4):
        w0, w1, w2, w3 = _weights4(weight_KO, o, outputs, k)
        a0, a1, a2, a3 = _runs4(at, step, count, k)
        for i in range(length):
            total = np.int32(src[a0 + i] * w0 + src[a1 + i] * w1 + src[a2 + i] * w2 + src[a3 + i] * w3)
            acc[i] = np.int32(acc[i] + total)
    for i in range(length):
        dst[to + i] = _clip(acc[i])


@kernel
def weighted_runs(  # type: ignore[no-untyped-def]
    src, begin, step, channel, channels, first_O, count_O, weight_KO, flip, acc, dst, to, dst_step, dst_channel, length
):  # fmt: skip
    """Resize along one axis, for each channel: output ``o`` is a weighted sum of runs of ``length`` values.

    ``begin`` is where the first run that is needed begins; ``step`` leads from one to the next, ``channel`` to the same
    one of the next channel. Outputs lie ``dst_step`` apart, with ``flip`` in reverse.
    """
    outputs = np.uint64(len(first_O))
    for o in range(outputs):
        count = np.int64(count_O[o])
        at = begin + np.uint64(first_O[o] - first_O[_0]) * step
        into = to + (outputs - _1 - o if flip else o) * dst_step
        for _ in range(channels):
            if count <= 4:
                _sum4(src, at, step, count, weight_KO, o, outputs, dst, into, length)
            elif count <= 6:
                _sum6(src, at, step, count, weight_KO, o, outputs, dst, into, length)
            elif count <= 8:
                _sum8(src, at, step, count, weight_KO, o, outputs, dst, into, length)
            else:
                _sum_many(src, at, step, count, weight_KO, o, outputs, acc, dst, into, length)
            at += channel
            into += dst_channel
