"""Coding of a chunk's records: one kernel for both directions, so that they cannot differ. docs/format.md defines it.

A record is a run of steps: how far it is from a class's level to the next one (or the end), then which class that is.
Classes that the base epochs kept for the sample are *expected*: each has a chance that depends on how far the level is
from where they had it. If it is none of these, it may be a *neighbour*, a class that often comes with those listed so
far; or any class.

Shape suffixes: P positions of a chunk, K ranks, C classes, L base epochs, W neighbours of a class.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import inlined, kernel
from logitstore.store.packed.rangecoder import begin, even, finish, flagged, quotient, step, tabled
from logitstore.store.packed.statistics import (
    ALONE,
    BANDS,
    CENTRE,
    END,
    FAR,
    GAPS,
    KEY_ORIGIN,
    NEAR,
    OFFSETS,
    ROOMS,
    SUPPORTS,
    SYMBOLS,
    TAILS,
    renew,
    step_frequencies,
)

MAX_BASE = 8
"""Base epochs at most."""
BASE_RANKS = 32
"""Ranks of a base record at most that make classes expected."""
LEARNT = 1024
"""Records of a chunk that are counted; frequencies are made anew after 16, 32, ... and after all of these."""

_BLOCK_BITS = 5


class Model(NamedTuple):
    """What base epochs tell. ``Base`` makes it."""

    start: NDArray[np.uint32]
    """[L, N + 1]: where a sample's classes begin in each base epoch's part"""
    part: NDArray[np.int64]
    """[L]: where that part begins"""
    classes: NDArray[Any]
    """classes that were kept,"""
    code: NDArray[np.uint8]
    """and their levels"""
    neighbour: NDArray[Any]
    """[C, W]: classes that come with a class, most frequent first,"""
    weight: NDArray[np.int64]
    """and how often; 0 behind the last"""
    upto: NDArray[np.int64]
    """[C + 1]: cumulated frequency of classes"""


class Scale(NamedTuple):
    """What levels mean."""

    mass: NDArray[np.int64]
    """[256]: probability, in 2**24, of each level"""
    first: NDArray[np.int64]
    """[256]: for values finer than levels, the first value of each level and one behind the last; else empty"""
    absent: int
    """Level of a class that was not kept."""
    shift: int
    """Levels of a band are 2**shift."""
    by_code: bool
    """Whether classes of one level are in ascending order."""


class Chunk(NamedTuple):
    """Records of a chunk; read in coding, written in decoding."""

    sample: NDArray[np.int64]
    """[P]; always read"""
    classes: NDArray[Any]
    """[P, K]"""
    level: NDArray[np.uint8]
    """[P, K]: codes of quantised values"""
    fine: NDArray[np.uint16]
    """[P, K]: values finer than levels, in ascending order of their negatives; [0, K] where there are none"""
    kept: NDArray[np.int64]
    """[P]"""
    tail: NDArray[np.uint8]
    """[P]"""
    tail_fine: NDArray[np.uint16]
    """[P], or empty"""


@kernel
def code_records(decoding, words, chunk, model, scale, counts, frequencies):  # type: ignore[no-untyped-def]
    """Code the records of a chunk, or decode them.

    Args:
        decoding: the direction.
        words: uint16; must have room in coding.
        chunk: ``Chunk``.
        model: ``Model``.
        scale: ``Scale``.
        counts: ``Counts`` before the chunk; the chunk's are added.
        frequencies: ``Frequencies``, written.

    Returns:
        Words written, or that a decoder of what was written reads at most.
    """
    topk = chunk.classes.shape[1]
    num_classes = len(model.upto) - 1
    levels, width = model.start.shape[0], model.neighbour.shape[1]
    slot_C, out_C = np.full(num_classes, -1, np.int64), np.zeros(num_classes, np.bool_)
    room = levels * BASE_RANKS + 1
    class_M, key_M, chance_M, sum_M, views_M = (
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
    )
    score_C = np.zeros(num_classes, np.int64)
    block_S = np.zeros((num_classes >> _BLOCK_BITS) + 1, np.int64)
    step_upto, tail_upto = frequencies.step.ravel(), frequencies.tail.ravel()
    low, span, place = begin(decoding, words)
    renewal = 0
    for p in range(len(chunk.sample)):
        if p == renewal:
            renew(counts, frequencies)
            renewal = 16 if p == 0 else 2 * p if p < LEARNT else -1
        learning = p < LEARNT
        expected = _expect(chunk.sample[p], model, scale.absent, slot_C, out_C, class_M, key_M, sum_M, views_M)
        num_expected = expected
        nearest = _nearest(key_M, expected)
        level, fine, left, bound = 0, 0, scale.mass[0], 0
        previous, rank, applied, scored = -1, 0, 0, 0
        while rank < topk:
            # How far is the next level?
            band = 0 if rank == 0 else 1 + min(BANDS - 2, level >> scale.shift)
            gap = _gap(nearest, level) if expected else 7
            space = bound - level
            space = 0 if space <= 0 else 1 if space <= 3 else 2 if space <= 9 else 3
            before, symbol = level, END
            if not decoding and rank < chunk.kept[p]:
                level = np.int64(chunk.level[p, rank])
                symbol = min(FAR, 1 + level - before)
            row = ((band * GAPS + gap) * ROOMS + space) * (SYMBOLS + 1)
            if step_upto[row + SYMBOLS] == 0:
                step_frequencies(counts.step, frequencies, band, gap, space)
            symbol, low, span, place = tabled(decoding, low, span, place, words, step_upto, row, symbol)
            if learning:
                counts.step[band, gap, space, symbol] += 1
            if symbol == END:
                break
            if symbol == FAR:
                level, low, span, place = even(decoding, low, span, place, words, 255, level)
            elif decoding:
                level = min(254, before + symbol - 1)
            if len(scale.first):
                least = max(scale.first[level], fine) if rank else scale.first[level]
                fine = np.int64(chunk.fine[p, rank])
                fine, low, span, place = even(
                    decoding, low, span, place, words, max(1, scale.first[level + 1] - least), fine - least
                )
                fine += least
            left -= scale.mass[level]
            while bound < 254 and scale.mass[bound] > left:
                bound += 1
            # Which class is it?
            least_class = previous + 1 if scale.by_code and rank > 1 and level == before else 0
            cls = np.int64(chunk.classes[p, rank])
            hit = -1
            if expected:
                band = min(BANDS - 1, level >> scale.shift)
                total = 0
                for e in range(expected):
                    key = key_M[e] + (level << 2)
                    chance = frequencies.expected[key] if class_M[e] >= least_class else 0
                    chance_M[e] = chance
                    total += chance
                    if learning:
                        counts.risk[_offset(key), key & 3] += 1
                hit, low, span, place = _which(
                    decoding, low, span, place, words, chance_M, class_M, expected, total, frequencies.other[band], cls
                )
                if learning:
                    counts.other[band, 0] += 1
                    if hit < 0:
                        counts.other[band, 1] += 1
                    else:
                        key = key_M[hit] + (level << 2)
                        counts.hit[_offset(key), key & 3] += 1
            if hit >= 0:
                cls = class_M[hit]
                expected -= 1
                gone = key_M[hit]
                class_M[hit], class_M[expected] = class_M[expected], cls
                key_M[hit], key_M[expected] = key_M[expected], gone
                if (gone >> 2) == nearest:
                    nearest = _nearest(key_M, expected)
            else:
                while applied < rank:
                    scored += _score(np.int64(chunk.classes[p, applied]), model, out_C, score_C, block_S)
                    applied += 1
                below = _below(least_class, score_C, block_S) if least_class else 0
                flag = 0
                if scored > below:
                    band = min(BANDS - 1, rank)
                    if not decoding:
                        flag = 1 if score_C[cls] > 0 else 0
                    flag, low, span, place = flagged(
                        decoding, low, span, place, words, frequencies.neighbour[band], flag
                    )
                    if learning:
                        counts.neighbour[band, 0] += 1
                        counts.neighbour[band, 1] += flag
                if flag:
                    cls, low, span, place = _neighbour(
                        decoding, low, span, place, words, score_C, block_S, below, scored, cls
                    )
                    scored -= score_C[cls]
                    block_S[cls >> _BLOCK_BITS] -= score_C[cls]
                    score_C[cls] = 0
                else:
                    least_class = min(least_class, num_classes - 1)
                    cls, low, span, place = _any(decoding, low, span, place, words, model.upto, least_class, cls)
                    scored -= score_C[cls]
                    block_S[cls >> _BLOCK_BITS] -= score_C[cls]
                    score_C[cls] = 0
                out_C[cls] = True
            previous = cls
            if decoding:
                chunk.classes[p, rank], chunk.level[p, rank] = cls, level
                if len(scale.first):
                    chunk.fine[p, rank] = fine
            rank += 1
        if decoding:
            chunk.kept[p] = rank
        low, span, place = _tail(decoding, low, span, place, words, chunk, p, bound, scale, tail_upto, counts, learning)
        for e in range(num_expected):
            out_C[class_M[e]] = False
        for k in range(rank):
            cls = np.int64(chunk.classes[p, k])
            out_C[cls] = False
            if k < applied:
                for w in range(width):
                    score_C[np.int64(model.neighbour[cls, w])] = 0
        if applied:
            block_S[:] = 0
    return place if decoding else finish(low, place, words)


@inlined
def _expect(sample, model, absent, slot_C, out_C, class_M, key_M, sum_M, views_M):  # type: ignore[no-untyped-def]
    """Collect the classes that base epochs kept for a sample, and where they had them; how many."""
    levels = model.start.shape[0]
    expected = 0
    for b in range(levels):
        part = model.part[b]
        first, last = np.int64(model.start[b, sample]), np.int64(model.start[b, sample + 1])
        for entry in range(part + first, part + last):
            cls = np.int64(model.classes[entry])
            e = slot_C[cls]
            if e < 0:
                slot_C[cls] = expected
                out_C[cls] = True
                class_M[expected], sum_M[expected], views_M[expected] = cls, np.int64(model.code[entry]), 1
                expected += 1
            else:
                sum_M[e] += np.int64(model.code[entry])
                views_M[e] += 1
    for e in range(expected):
        slot_C[class_M[e]] = -1
        views = views_M[e]
        level = (sum_M[e] + (levels - views) * absent + (levels >> 1)) // levels
        key_M[e] = ((CENTRE - level) << 2) + max(0, SUPPORTS * views // levels - 1) + KEY_ORIGIN
    return expected


@inlined
def _offset(key):  # type: ignore[no-untyped-def]
    return min(OFFSETS - 1, max(0, (key - KEY_ORIGIN) >> 2))


@inlined
def _nearest(key_M, expected):  # type: ignore[no-untyped-def]
    """The key, without support, of the expected class of the least level."""
    nearest = 0
    for e in range(expected):
        nearest = max(nearest, key_M[e] >> 2)
    return nearest


@inlined
def _gap(nearest, level):  # type: ignore[no-untyped-def]
    """Class of the distance from a level to the least expected one."""
    gap = CENTRE + (KEY_ORIGIN >> 2) - nearest - level
    if gap < 0:
        return 0 if gap < -8 else 1 if gap < -3 else 2
    return 3 if gap < 3 else 4 if gap < 7 else 5 if gap < 14 else 6


@inlined
def _which(decoding, low, span, place, words, chance_M, class_M, expected, total, other, cls):  # type: ignore[no-untyped-def]
    """The expected class that is next, or -1."""
    part = quotient(span, total + other)
    hit, first = -1, 0
    if decoding:
        value = quotient(low, part)
        if value < total:
            hit = 0
            while first + chance_M[hit] <= value:
                first += chance_M[hit]
                hit += 1
    else:
        for e in range(expected):
            if class_M[e] == cls:
                hit = e
                break
            first += chance_M[e]
    if hit < 0:
        low, span, place = step(decoding, low, part, place, words, total, other)
    else:
        low, span, place = step(decoding, low, part, place, words, first, chance_M[hit])
    return hit, low, span, place


@inlined
def _score(cls, model, out_C, score_C, block_S):  # type: ignore[no-untyped-def]
    """Add the neighbours of a class that was listed; what was added."""
    added = 0
    for w in range(model.neighbour.shape[1]):
        weight = model.weight[cls, w]
        if weight == 0:
            break
        other = np.int64(model.neighbour[cls, w])
        if not out_C[other]:
            score_C[other] += weight
            block_S[other >> _BLOCK_BITS] += weight
            added += weight
    return added


@inlined
def _below(cls, score_C, block_S):  # type: ignore[no-untyped-def]
    """Scores of all classes before one."""
    block = cls >> _BLOCK_BITS
    below = 0
    for s in range(block):
        below += block_S[s]
    for c in range(block << _BLOCK_BITS, cls):
        below += score_C[c]
    return below


@inlined
def _neighbour(decoding, low, span, place, words, score_C, block_S, below, scored, cls):  # type: ignore[no-untyped-def]
    """A class by its score, among those from ``below`` on."""
    part = quotient(span, scored - below)
    if decoding:
        value = min(quotient(low, part), scored - below - 1) + below
        first, block = 0, 0
        while first + block_S[block] <= value:
            first += block_S[block]
            block += 1
        cls = block << _BLOCK_BITS
        while first + score_C[cls] <= value:
            first += score_C[cls]
            cls += 1
    else:
        first = _below(cls, score_C, block_S)
    low, span, place = step(decoding, low, part, place, words, first - below, score_C[cls])
    return cls, low, span, place


@inlined
def _any(decoding, low, span, place, words, upto, least, cls):  # type: ignore[no-untyped-def]
    """A class by how common it is, among those from ``least`` on."""
    total = upto[-1] - upto[least]
    part = quotient(span, total)
    if decoding:
        value = min(quotient(low, part), total - 1) + upto[least]
        cls, behind = least, len(upto) - 1
        while behind - cls > 1:
            middle = (cls + behind) >> 1
            if upto[middle] <= value:
                cls = middle
            else:
                behind = middle
    low, span, place = step(decoding, low, part, place, words, upto[cls] - upto[least], upto[cls + 1] - upto[cls])
    return cls, low, span, place


@inlined
def _tail(decoding, low, span, place, words, chunk, p, bound, scale, tail_upto, counts, learning):  # type: ignore[no-untyped-def]
    """The tail: near to the mass that is left, or a level by itself."""
    band = min(BANDS // 2 - 1, bound >> scale.shift)
    level = np.int64(chunk.tail[p])
    symbol = level - bound + NEAR
    if symbol < 0 or symbol >= ALONE or level == 255:
        symbol = ALONE
    symbol, low, span, place = tabled(decoding, low, span, place, words, tail_upto, band * (TAILS + 1), symbol)
    if learning:
        counts.tail[band, symbol] += 1
    if symbol == ALONE:
        level, low, span, place = even(decoding, low, span, place, words, 256, level)
    elif decoding:
        level = max(0, min(254, bound + symbol - NEAR))
    if len(scale.first) and level < 255:
        least = scale.first[level]
        fine, low, span, place = even(
            decoding, low, span, place, words, scale.first[level + 1] - least, np.int64(chunk.tail_fine[p]) - least
        )
        if decoding:
            chunk.tail_fine[p] = fine + least
    if decoding:
        chunk.tail[p] = level
    return low, span, place
