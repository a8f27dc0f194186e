"""Steps of the kernel that have to do with expected classes, those that base epochs kept for a sample.

Each has a key: 4 (24 - its expected level) + how many views kept it (0 to 3) + an origin. With 4 times a level added it
says how far that level is from the expected one, and chances are looked up by it. Shape suffix: M expected classes.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import lean_inlined, lean_kernel
from logitstore.store.packed.rangecoder import quotient, step
from logitstore.store.packed.statistics import CENTRE, KEY_ORIGIN, OFFSETS, SUPPORTS


@lean_inlined
def expect(first, last, levels, known, code, absent, slot_C, out_C, class_M, key_M, sum_M, views_M):  # type: ignore[no-untyped-def]
    """Collect the expected classes of a sample from its entries: how many. What a view lacks lies at ``absent``."""
    expected = 0
    for entry in range(first, last):
        cls = np.int64(known[entry])
        e = slot_C[cls]
        if e < 0:
            slot_C[cls] = expected
            out_C[cls] = 1
            class_M[expected], sum_M[expected], views_M[expected] = cls, np.int64(code[entry]), 1
            expected += 1
        else:
            sum_M[e] += np.int64(code[entry])
            views_M[e] += 1
    inverse = 0x10000 // max(1, levels) + 1  # x * inverse >> 16 is x // levels for all x below 2**12 and levels up to 8
    for e in range(expected):
        slot_C[class_M[e]] = -1
        views = min(levels, views_M[e])  # of records that have a class twice there are more
        level = min(254, ((sum_M[e] + (levels - views) * absent + (levels >> 1)) * inverse) >> 16)
        key_M[e] = ((CENTRE - level) << 2) + max(0, ((SUPPORTS * views * inverse) >> 16) - 1) + KEY_ORIGIN
    return expected


@lean_inlined
def offset(key):  # type: ignore[no-untyped-def]
    """How far a level is from an expected one, 24 where it is there, by a key with the level added."""
    return min(OFFSETS - 1, max(0, (key - KEY_ORIGIN) >> 2))


@lean_inlined
def nearest_key(key_M, expected):  # type: ignore[no-untyped-def]
    """The key, without views, of the expected class of the least level; 0 of none."""
    nearest = 0
    for e in range(expected):
        nearest = max(nearest, key_M[e] >> 2)
    return nearest


@lean_inlined
def gap_of(nearest, level):  # type: ignore[no-untyped-def]
    """In which of the gaps 0 to 6 the distance lies from a level to the least expected one."""
    gap = CENTRE + (KEY_ORIGIN >> 2) - nearest - level
    if gap < 0:
        return 0 if gap < -8 else 1 if gap < -3 else 2
    return 3 if gap < 3 else 4 if gap < 7 else 5 if gap < 14 else 6


@lean_inlined
def chances(level, least, chance, class_M, key_M, chance_M, expected):  # type: ignore[no-untyped-def]
    """Look up the chances of the expected classes, 0 of those below the least one that may come; their sum."""
    total = 0
    if least > 0:
        for e in range(expected):
            chance_M[e] = chance[key_M[e] + (level << 2)] * np.int64(class_M[e] >= least)  # no branch
            total += chance_M[e]
    else:
        for e in range(expected):
            chance_M[e] = chance[key_M[e] + (level << 2)]
            total += chance_M[e]
    return total


@lean_inlined
def which(decoding, low, width, place, words, chance_M, class_M, expected, total, other, cls):  # type: ignore[no-untyped-def]
    """The place of the expected class that is next, or -1. Chances are ``total`` together, ``other`` that of none."""
    part = quotient(width, total + other)
    hit, first = -1, 0
    if decoding:
        if low < total * part:
            hit = 0
            while (first + chance_M[hit]) * part <= low:
                first += chance_M[hit]
                hit += 1
    else:
        for e in range(expected):
            if class_M[e] == cls:
                hit = e
                break
            first += chance_M[e]
    if hit < 0:
        low, width, place = step(decoding, low, part, place, words, total, other)
    else:
        low, width, place = step(decoding, low, part, place, words, first, chance_M[hit])
    return hit, low, width, place


@lean_kernel
def make_room(start, known, code, kept_N, stride, new_start, new_known, new_code):  # type: ignore[no-untyped-def]
    """Copy all samples' entries to where they stand with one more base epoch, whose own places are left free.

    Args:
        start: where the entries of sample i and base epoch b begin, at place i * stride + b.
        known: classes of the entries,
        code: and their levels.
        kept_N: entries of each sample that the new base epoch has.
        stride: base epochs before.
        new_start: the same with one more, written.
        new_known: written,
        new_code: and written.
    """
    at = 0
    for sample in range(len(kept_N)):
        for b in range(stride):
            new_start[sample * (stride + 1) + b] = at
            for entry in range(start[sample * stride + b], start[sample * stride + b + 1]):
                new_known[at], new_code[at] = known[entry], code[entry]
                at += 1
        new_start[sample * (stride + 1) + stride] = at
        at += kept_N[sample]
    new_start[len(kept_N) * (stride + 1)] = at
