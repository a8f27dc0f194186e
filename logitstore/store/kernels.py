"""Numba kernels of reading: stored codes to masses, and runs of the visit order. docs/format.md defines both.

Shape suffixes: B records, Q groups of ranks that are compressed together, P positions of a block, R ranks of a group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logitstore import pcg
from logitstore.jit import kernel, wrapping

_absorb = kernel(pcg.absorb)
_ONE, _32 = np.uint64(1), np.uint64(32)


def visited(order: pcg.VisitOrder, start: int, stop: int) -> NDArray[np.int64]:
    """Sample numbers at positions ``start`` to ``stop``: what ``order.samples`` gives for them, faster."""
    sample_B = np.empty(stop - start, np.int64)
    keys = np.array(order.keys, np.uint64)
    with wrapping():
        _visit(keys, order.half_bits, np.uint64(order.num_samples), np.uint64(start), sample_B)
    return sample_B


@kernel
def decode_masses(  # type: ignore[no-untyped-def]
    index_QPR, code_QPR, tail_P, mass, padding, low, high, index_BK, prob_BK, tail_B, kept_B
):
    """Records ``low`` to ``high`` of a block, normalised; ranks beyond K of ``index_BK`` go to the tail.

    Args:
        index_QPR: stored classes.
        code_QPR: stored log-probabilities, the bits of them where they are float16.
        tail_P: the same of the tails.
        mass: float32 mass of each code.
        padding: the class that stands for none; behind it none is kept.
        low: first position in the block.
        high: one after the last position.
        index_BK: classes, written.
        prob_BK: masses, written.
        tail_B: mass outside of the K classes, written.
        kept_B: number of classes, written.
    """
    groups, _, ranks = index_QPR.shape
    width = index_BK.shape[1]
    for p in range(low, high):
        b = p - low
        kept = 0
        for q in range(groups):
            first = q * ranks
            for r in range(ranks):
                kept += index_QPR[q, p, r] != padding
            for r in range(min(ranks, width - first)):
                index_BK[b, first + r] = index_QPR[q, p, r]
        head = 0.0
        rest = 0.0
        for q in range(groups):
            first = q * ranks
            inside = min(ranks, kept - first)
            for r in range(min(inside, width - first)):
                value = mass[code_QPR[q, p, r]]
                prob_BK[b, first + r] = value
                head += np.float64(value)
            for r in range(max(0, width - first), inside):
                rest += np.float64(mass[code_QPR[q, p, r]])
        tail = np.float64(mass[tail_P[p]]) + rest
        total = head + tail
        scale = 1.0 / total if total > 0.0 else 0.0
        kept = min(kept, width)
        for k in range(kept):
            prob_BK[b, k] *= np.float32(scale)
        for k in range(kept, width):
            prob_BK[b, k] = np.float32(0.0)
        tail_B[b] = np.float32(tail * scale)
        kept_B[b] = kept


@kernel
def _pass(value, keys, half_bits, mask):  # type: ignore[no-untyped-def]
    """The Feistel network once, over all keys."""
    left, right = value >> half_bits, value & mask
    for key in keys:
        state = _absorb(_absorb(right ^ (key << _32), key), right)
        left, right = right, left ^ ((state >> _32) & mask)
    return (left << half_bits) | right


@kernel
def _visit(keys, half_bits, bound, start, sample_B):  # type: ignore[no-untyped-def]
    """Every position once through the network, then those outside again until none is: no branch inside the loops."""
    mask = (_ONE << half_bits) - _ONE
    outside = np.empty(len(sample_B), np.int64)
    left = 0
    for b in range(len(sample_B)):
        value = _pass(start + np.uint64(b), keys, half_bits, mask)
        sample_B[b] = np.int64(value)
        outside[left] = b
        left += value >= bound
    while left > 0:
        still = 0
        for place in range(left):
            b = outside[place]
            value = _pass(np.uint64(sample_B[b]), keys, half_bits, mask)
            sample_B[b] = np.int64(value)
            outside[still] = b
            still += value >= bound
        left = still
