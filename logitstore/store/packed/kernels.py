"""Coding of a chunk's records: one kernel for both directions, so that they cannot differ. docs/format.md defines it.

A record is a run of steps: how far it is from a class's level to the next one (or the end), then which class that is.
Classes that the base epochs kept for the sample are *expected*: each has a chance that depends on how far the level is
from where they had it. If it is none of these, it may be a *neighbour*, a class that often comes with those listed so
far; or any class.

Shape suffixes: P positions of a chunk, K ranks, C classes, M expected classes, S runs of
classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from logitstore.jit import lean_kernel
from logitstore.store.packed.expected import chances, expect, gap_of, nearest_key, offset, which
from logitstore.store.packed.others import by_frequency, by_score, forget, run_bits, score, score_below
from logitstore.store.packed.rangecoder import begin, even, finish, flagged, tabled
from logitstore.store.packed.statistics import (
    ALONE,
    BANDS,
    END,
    FAR,
    GAPS,
    NEAR,
    ROOMS,
    SYMBOLS,
    TAILS,
    renew,
    step_frequencies,
)

LEARNT = 1024
"""Records of a chunk that are counted; frequencies are made anew after 16, 32, ... and after all of these."""


@lean_kernel
def code_records(decoding, words, chunk, model, scale, counts, frequencies, space):  # type: ignore[no-untyped-def]
    """Code the records of a chunk, or decode them.

    Args:
        decoding: the direction.
        words: uint16; must have room in coding.
        chunk: ``Chunk``.
        model: ``Model``.
        scale: ``Scale``.
        counts: ``Counts`` before the chunk; the chunk's are added.
        frequencies: ``Frequencies``, written.
        space: ``Space``; left as it was found.

    Returns:
        Words written, or that a decoder of what was written reads at most.
    """
    sample_P, classes_PK, level_PK, fine_PK, kept_P, tail_P, tail_fine_P = chunk
    start, stride, levels, known, code, neighbour, weight, upto = model
    mass, hint, first_fine, absent, shift, by_code = scale
    steps, risk, hits, others, neighbours, tails = counts
    chance, other_chance, neighbour_chance = frequencies.expected, frequencies.other, frequencies.neighbour
    step_upto, tail_upto = frequencies.step, frequencies.tail
    slot_C, out_C, score_C, block_S, class_M, key_M, chance_M, sum_M, views_M = space
    topk, num_classes, is_fine = classes_PK.shape[1], len(upto) - 1, len(first_fine) > 0
    bits = run_bits(num_classes)
    low, width, place = begin(decoding, words)
    renewal = 0
    level: Any = 0
    for p in range(len(sample_P)):
        if p == renewal:
            renew(counts, frequencies)
            renewal = 16 if p == 0 else 2 * p if p < LEARNT else -1
        learning = p < LEARNT
        entry = sample_P[p] * stride
        first, last = np.int64(start[entry]), np.int64(start[entry + levels])
        expected = expect(first, last, levels, known, code, absent, slot_C, out_C, class_M, key_M, sum_M, views_M)
        all_expected, nearest = expected, nearest_key(key_M, expected)
        level, fine, left, bound = 0, 0, mass[0], 0
        previous, rank, applied, scored = -1, 0, 0, 0
        while rank < topk:
            # How far is the next level?
            band = 0 if rank == 0 else 1 + min(BANDS - 2, level >> shift)
            gap = gap_of(nearest, level) if expected > 0 else GAPS - 1
            slack = 0 if bound <= level else 1 if bound <= level + 3 else 2 if bound <= level + 9 else 3
            before, symbol = level, END
            if not decoding and rank < kept_P[p]:
                level = np.int64(level_PK[p, rank])
                symbol = min(FAR, 1 + level - before)
            row = ((band * GAPS + gap) * ROOMS + slack) * (SYMBOLS + 1)
            if step_upto[row + SYMBOLS] == 0:
                step_frequencies(steps, frequencies, band, gap, slack)
            symbol, low, width, place = tabled(decoding, low, width, place, words, step_upto, row, symbol)
            if learning:
                steps[band, gap, slack, symbol] += 1
            if symbol == END:
                break
            if symbol == FAR:
                level, low, width, place = even(decoding, low, width, place, words, 255, level)
            elif decoding:
                level = min(254, before + symbol - 1)
            if is_fine:
                least = max(first_fine[level], fine) if rank > 0 else first_fine[level]
                count = max(1, first_fine[level + 1] - least)
                fine = np.int64(fine_PK[p, rank]) - least
                fine, low, width, place = even(decoding, low, width, place, words, count, fine)
                fine += least
            left -= mass[level]
            bound = max(bound, hint[max(0, left) >> 12])
            while bound < 254 and mass[bound] > left:
                bound += 1
            # Which class is it?
            least_class = previous + 1 if by_code and rank > 1 and level == before else 0
            cls, hit = np.int64(classes_PK[p, rank]), -1
            if expected > 0:
                band = min(BANDS - 1, level >> shift)
                total = chances(level, least_class, chance, class_M, key_M, chance_M, expected)
                hit, low, width, place = which(
                    decoding, low, width, place, words, chance_M, class_M, expected, total, other_chance[band], cls
                )
                if learning:
                    for e in range(expected):
                        risk[offset(key_M[e] + (level << 2)), key_M[e] & 3] += 1
                    others[band, 0] += 1
                    if hit < 0:
                        others[band, 1] += 1
                    else:
                        hits[offset(key_M[hit] + (level << 2)), key_M[hit] & 3] += 1
            if hit >= 0:
                cls, key = class_M[hit], key_M[hit]
                expected -= 1
                class_M[hit], class_M[expected] = class_M[expected], cls
                key_M[hit], key_M[expected] = key_M[expected], key
                if key >> 2 == nearest:
                    nearest = nearest_key(key_M, expected)
            else:
                while applied < rank:
                    listed = np.int64(classes_PK[p, applied])
                    scored += score(listed, neighbour, weight, out_C, score_C, block_S, bits)
                    applied += 1
                below = score_below(least_class, score_C, block_S, bits) if least_class > 0 else 0
                flag = 0
                if scored > below:
                    band = min(BANDS - 1, rank)
                    if not decoding:
                        flag = 1 if score_C[cls] > 0 else 0
                    flag, low, width, place = flagged(decoding, low, width, place, words, neighbour_chance[band], flag)
                    if learning:
                        neighbours[band, 0] += 1
                        neighbours[band, 1] += flag
                if flag == 1:
                    cls, low, width, place = by_score(
                        decoding, low, width, place, words, score_C, block_S, bits, below, scored, cls
                    )
                else:
                    least_class = min(least_class, num_classes - 1)
                    cls, low, width, place = by_frequency(decoding, low, width, place, words, upto, least_class, cls)
                out_C[cls] = 1
                scored -= score_C[cls]
                block_S[cls >> bits] -= score_C[cls]
                score_C[cls] = 0
            previous = cls
            if decoding:
                classes_PK[p, rank], level_PK[p, rank] = cls, level
                if is_fine:
                    fine_PK[p, rank] = fine
            rank += 1
        # What is the tail?
        band, before, level = min(BANDS // 2 - 1, bound >> shift), bound - NEAR, np.int64(tail_P[p])
        symbol = level - before if before <= level < before + ALONE and level < 255 else ALONE
        symbol, low, width, place = tabled(decoding, low, width, place, words, tail_upto, band * (TAILS + 1), symbol)
        if learning:
            tails[band, symbol] += 1
        if symbol == ALONE:
            level, low, width, place = even(decoding, low, width, place, words, 256, level)
        elif decoding:
            level = max(0, min(254, before + symbol))
        if is_fine and level < 255:
            least, count = first_fine[level], first_fine[level + 1] - first_fine[level]
            fine, low, width, place = even(decoding, low, width, place, words, count, np.int64(tail_fine_P[p]) - least)
            if decoding:
                tail_fine_P[p] = fine + least
        if decoding:
            tail_P[p], kept_P[p] = level, rank
        for e in range(all_expected):
            out_C[class_M[e]] = 0
        forget(classes_PK[p], rank, applied, neighbour, out_C, score_C, block_S)
    return place if decoding else finish(low, place, words)
