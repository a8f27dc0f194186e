"""Steps of the kernel that have to do with classes that are not expected: neighbours of those listed, or any.

Neighbours have scores; ``block_S`` holds the sums of runs of 2**bits classes, so that a place is found in few steps.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import lean_inlined
from logitstore.store.packed.rangecoder import quotient, step


@lean_inlined
def run_bits(num_classes):  # type: ignore[no-untyped-def]
    """Logarithm of the length of a run: about the root of C, at least 5."""
    bits = 5
    while num_classes >> (2 * bits) > 0:
        bits += 1
    return bits


@lean_inlined
def score(cls, neighbour, weight, out_C, score_C, block_S, bits):  # type: ignore[no-untyped-def]
    """Add the neighbours of a class that was listed, but those expected or listed themselves; what was added."""
    added = np.int64(0)
    for w in range(neighbour.shape[1]):
        other = np.int64(neighbour[cls, w])
        more = np.int64(weight[cls, w]) * (1 - out_C[other])  # no branch: which are out cannot be foretold
        score_C[other] += more
        block_S[other >> bits] += more
        added += more
    return added


@lean_inlined
def score_below(cls, score_C, block_S, bits):  # type: ignore[no-untyped-def]
    """Scores of all classes before one."""
    block = cls >> bits
    below = 0
    for s in range(block):
        below += block_S[s]
    for c in range(block << bits, cls):
        below += score_C[c]
    return below


@lean_inlined
def by_score(decoding, low, width, place, words, score_C, block_S, bits, below, scored, cls):  # type: ignore[no-untyped-def]
    """A class by its score, of those behind ``below``."""
    part = quotient(width, scored - below)
    first = 0
    if decoding:
        value = min(quotient(low, part), scored - below - 1) + below
        block = 0
        while first + block_S[block] <= value:
            first += block_S[block]
            block += 1
        cls = block << bits
        while first + score_C[cls] <= value:
            first += score_C[cls]
            cls += 1
    else:
        first = score_below(cls, score_C, block_S, bits)
    low, width, place = step(decoding, low, part, place, words, first - below, score_C[cls])
    return cls, low, width, place


@lean_inlined
def by_frequency(decoding, low, width, place, words, upto, least, cls):  # type: ignore[no-untyped-def]
    """A class by how common it is, of those from ``least`` on."""
    total = upto[len(upto) - 1] - upto[least]
    part = quotient(width, total)
    if decoding:
        value = min(quotient(low, part), total - 1) + upto[least]
        cls, behind = least, len(upto) - 1
        while behind - cls > 1:
            middle = (cls + behind) >> 1
            if upto[middle] <= value:
                cls = middle
            else:
                behind = middle
    low, width, place = step(decoding, low, part, place, words, upto[cls] - upto[least], upto[cls + 1] - upto[cls])
    return cls, low, width, place


@lean_inlined
def forget(classes_K, rank, applied, neighbour, out_C, score_C, block_S):  # type: ignore[no-untyped-def]
    """Leave nothing of a record behind: no class is listed, none has a score."""
    for k in range(rank):
        out_C[np.int64(classes_K[k])] = 0
    if 4 * applied * neighbour.shape[1] > len(score_C):
        score_C[:] = 0
    else:
        for k in range(applied):
            listed = np.int64(classes_K[k])
            for w in range(neighbour.shape[1]):
                score_C[np.int64(neighbour[listed, w])] = 0
    if applied > 0:
        block_S[:] = 0
