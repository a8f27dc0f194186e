"""Counts of what was coded, and the frequencies that are made of them: integers only. docs/format.md defines both.

Counts only ever grow. From time to time the frequencies are made anew; an event that was never seen keeps a small one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import lean_kernel

I64 = NDArray[np.int64]

BANDS = 16
"""Of levels: the first for a record's first class, which no level precedes; for others by the level before."""
GAPS = 8
"""Of distances to the next expected class; the last where none is expected."""
ROOMS = 4
"""Of distances to the level that the mass which is left allows."""
END, FAR = 0, 40
"""Symbols of a step: the record's end; 1 + a distance to the next level below 39; a level by itself."""
SYMBOLS = 41
NEAR, ALONE, TAILS = 12, 25, 26
"""A tail is coded by 12 + its distance to the mass that is left, or by 25 and itself: 26 symbols."""
OFFSETS, CENTRE, SUPPORTS = 48, 24, 4
"""Of a level from the expected one, where 0 lies among them, and of how many views kept the class."""
KEYS, KEY_ORIGIN = 2176, 1024
"""Keys of expected classes: 4 (level - expected level + 24) + support, and what is added to have them positive."""


class Counts(NamedTuple):
    """What was coded."""

    step: I64
    """[BANDS, GAPS, ROOMS, SYMBOLS]"""
    risk: I64
    """[OFFSETS, SUPPORTS]: how often an expected class could have been the next one,"""
    hit: I64
    """and how often it was."""
    other: I64
    """[BANDS, 2]: how often there was a choice, and it was no expected class; by level."""
    neighbour: I64
    """[BANDS, 2]: how often there was a choice, and a neighbour was taken; by rank."""
    tail: I64
    """[BANDS / 2, TAILS]"""

    @classmethod
    def zeros(cls) -> Counts:
        """Nothing was coded yet."""
        return cls(
            step=np.zeros((BANDS, GAPS, ROOMS, SYMBOLS), np.int64),
            risk=np.zeros((OFFSETS, SUPPORTS), np.int64),
            hit=np.zeros((OFFSETS, SUPPORTS), np.int64),
            other=np.zeros((BANDS, 2), np.int64),
            neighbour=np.zeros((BANDS, 2), np.int64),
            tail=np.zeros((BANDS // 2, TAILS), np.int64),
        )

    def copied(self) -> Counts:
        """The same counts in other memory."""
        return Counts(*(array.copy() for array in self))


class Frequencies(NamedTuple):
    """How likely things are taken to be, in 2**16."""

    step: I64
    """[BANDS * GAPS * ROOMS * (SYMBOLS + 1)], cumulated by context; a row that ends in 0 was not made yet"""
    wider: I64
    """[BANDS, GAPS, SYMBOLS]: shares of any room"""
    scratch: I64
    """[BANDS + 5, SYMBOLS]"""
    expected: I64
    """[KEYS]: chance that an expected class is the next one"""
    other: I64
    """[BANDS]: the same of all other classes together"""
    neighbour: I64
    """[BANDS]"""
    tail: I64
    """[BANDS / 2 * (TAILS + 1)], cumulated by band"""

    @classmethod
    def empty(cls) -> Frequencies:
        """Room for them."""
        return cls(
            step=np.zeros(BANDS * GAPS * ROOMS * (SYMBOLS + 1), np.int64),
            wider=np.zeros((BANDS, GAPS, SYMBOLS), np.int64),
            scratch=np.zeros((BANDS + 5, SYMBOLS), np.int64),
            expected=np.zeros(KEYS, np.int64),
            other=np.zeros(BANDS, np.int64),
            neighbour=np.zeros(BANDS, np.int64),
            tail=np.zeros(BANDS // 2 * (TAILS + 1), np.int64),
        )


@lean_kernel
def renew(counts, now):  # type: ignore[no-untyped-def]
    """Make frequencies of counts.

    Args:
        counts: ``Counts``.
        now: ``Frequencies``, written; the rows of ``step`` are left to ``step_frequencies``.
    """
    _renew_steps(counts.step, now)
    for z in range(OFFSETS):
        usual = max(197, min(9830, 9830 * (z - 12) // 24))
        for support in range(SUPPORTS):
            chance = max(1, ((counts.hit[z, support] << 16) + 6 * usual) // (counts.risk[z, support] + 6))
            first = 0 if z == 0 else KEY_ORIGIN + (z << 2)
            last = KEYS if z == OFFSETS - 1 else KEY_ORIGIN + ((z + 1) << 2)
            for key in range(first + support, last, SUPPORTS):
                now.expected[key] = chance
    for band in range(BANDS):
        now.other[band] = max(1, ((counts.other[band, 1] << 16) + 26214) // (counts.other[band, 0] + 4))
        now.neighbour[band] = max(1, ((counts.neighbour[band, 1] << 16) + 65536) // (counts.neighbour[band, 0] + 2))
    usual_tail = now.scratch[0, :TAILS]
    for symbol in range(TAILS):
        usual_tail[symbol] = 6553 // (1 + abs(symbol - NEAR))
    for band in range(BANDS // 2):
        upto = now.tail[band * (TAILS + 1) : (band + 1) * (TAILS + 1)]
        _blend(counts.tail[band], usual_tail, 8, upto[1:])
        _cumulate(upto, NEAR)


@lean_kernel
def _renew_steps(step, now):  # type: ignore[no-untyped-def]
    """Rarely seen contexts borrow from wider ones: any room, then any gap, then any band, then what is usual."""
    of_band, rest = now.scratch[:BANDS], now.scratch[BANDS:]
    usual, everywhere, anywhere, in_band, seen = rest[0], rest[1], rest[2], rest[3], rest[4]
    now.scratch[:] = 0
    now.step[:] = 0
    for symbol in range(SYMBOLS):
        usual[symbol] = 6342 if symbol == END else 211 if symbol == FAR else 21000 // (symbol + 2)
    for band in range(BANDS):
        for gap in range(GAPS):
            for room in range(ROOMS):
                for symbol in range(SYMBOLS):
                    of_band[band, symbol] += step[band, gap, room, symbol]
        for symbol in range(SYMBOLS):
            everywhere[symbol] += of_band[band, symbol]
    _blend(everywhere, usual, 20, anywhere)
    for band in range(BANDS):
        _blend(of_band[band], anywhere, 12, in_band)
        for gap in range(GAPS):
            seen[:] = 0
            for room in range(ROOMS):
                for symbol in range(SYMBOLS):
                    seen[symbol] += step[band, gap, room, symbol]
            _blend(seen, in_band, 10, now.wider[band, gap])


@lean_kernel
def step_frequencies(step, now, band, gap, room):  # type: ignore[no-untyped-def]
    """The frequencies of a context; made when it is first used, since most are not between two renewals."""
    row = ((band * GAPS + gap) * ROOMS + room) * (SYMBOLS + 1)
    upto = now.step[row : row + SYMBOLS + 1]
    _blend(step[band, gap, room], now.wider[band, gap], 8, upto[1:])
    _cumulate(upto, END + 1)


@lean_kernel
def _blend(seen, wider, trust, share):  # type: ignore[no-untyped-def]
    """Shares in 2**16 of what was seen here and, as if seen ``trust`` times, of the wider context."""
    total = trust
    for symbol in range(len(seen)):
        total += seen[symbol]
    inverse = (1 << 45) // total
    for symbol in range(len(seen)):
        share[symbol] = (((seen[symbol] << 16) + trust * wider[symbol]) * inverse) >> 45


@lean_kernel
def _cumulate(upto, rest):  # type: ignore[no-untyped-def]
    """Turn shares that stand from place 1 on, together at most 2**16, into cumulated frequencies that end there.

    Each is at least 1; what rounding leaves goes to the symbol ``rest``.
    """
    symbols = len(upto) - 1
    left = 0x10000
    for symbol in range(symbols):
        upto[symbol + 1] = 1 + ((upto[symbol + 1] * (0x10000 - symbols)) >> 16)
        left -= upto[symbol + 1]
    upto[rest + 1] += left
    upto[0] = 0
    for symbol in range(symbols):
        upto[symbol + 1] += upto[symbol]
