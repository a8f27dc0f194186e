"""The range coder: integers in, 16-bit words out, and back. docs/format.md defines it.

State is ``low`` and ``width``, the interval that is left, and ``place``, the next word. ``width`` stays within
[2**32, 2**48], so every total may be as large as 2**32. All functions are compiled into the kernels that call them.
A decoder at the end of its words reads zeros: whether it read what was written is for a checksum to say.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import lean_inlined

START = 1 << 48
"""The width at the beginning, where ``low`` is 0, or what the first three words say."""

_FULL = (1 << 32) - 1


@lean_inlined
def quotient(a, b):  # type: ignore[no-untyped-def]
    """``a // b`` for 0 <= a <= 2**48 and b >= 1: exact, and faster than the machine's division of integers."""
    guess = np.int64(np.float64(a) / np.float64(b))
    return guess - 1 if guess * b > a else guess


@lean_inlined
def begin(decoding, words):  # type: ignore[no-untyped-def]
    """State before the first symbol."""
    low, place = np.int64(0), 0
    if decoding:
        for _ in range(3):
            low = (low << 16) | np.int64(words[place] if place < len(words) else 0)
            place += 1
    return low, START, place


@lean_inlined
def step(decoding, low, part, place, words, first, count):  # type: ignore[no-untyped-def]
    """Go on with the interval of ``count`` parts from part ``first`` on."""
    width = part * count
    if decoding:
        low = min(low - part * first, width - 1)  # no less, but in words that were altered
        while width <= _FULL:
            low = (low << 16) | (np.int64(words[place]) if place < len(words) else 0)
            place += 1
            width <<= 16
    else:
        low += part * first
        while width <= _FULL:
            _carry(words, place, low >> 48)
            words[place] = (low >> 32) & 0xFFFF
            place += 1
            low = (low & _FULL) << 16
            width <<= 16
    return low, width, place


@lean_inlined
def finish(low, place, words):  # type: ignore[no-untyped-def]
    """Write the one word that puts what follows, zeros, into the interval; the number of words."""
    word = (low + _FULL) >> 32
    _carry(words, place, word >> 16)
    words[place] = word & 0xFFFF
    return place + 1


@lean_inlined
def _carry(words, place, carry):  # type: ignore[no-untyped-def]
    if carry:
        place -= 1
        while words[place] == 0xFFFF:
            words[place] = 0
            place -= 1
        words[place] += 1


@lean_inlined
def tabled(decoding, low, width, place, words, upto, row, symbol):  # type: ignore[no-untyped-def]
    """A symbol by cumulated frequencies, from place ``row`` on, that begin with 0 and end with 2**16."""
    part = width >> 16
    if decoding:
        at = min(low, (part << 16) - 1)
        symbol = 0
        while upto[row + symbol + 1] * part <= at:
            symbol += 1
    first = upto[row + symbol]
    low, width, place = step(decoding, low, part, place, words, first, upto[row + symbol + 1] - first)
    return symbol, low, width, place


@lean_inlined
def even(decoding, low, width, place, words, total, value):  # type: ignore[no-untyped-def]
    """A number in [0, total), each as likely as the others."""
    part = quotient(width, total)
    if decoding:
        value = min(quotient(low, part), total - 1)
    low, width, place = step(decoding, low, part, place, words, value, 1)
    return value, low, width, place


@lean_inlined
def flagged(decoding, low, width, place, words, chance, flag):  # type: ignore[no-untyped-def]
    """A flag, 1 with ``chance`` in 2**16."""
    part = width >> 16
    if decoding:
        flag = 1 if low < chance * part else 0
    if flag:
        low, width, place = step(decoding, low, part, place, words, 0, chance)
    else:
        low, width, place = step(decoding, low, part, place, words, chance, 0x10000 - chance)
    return flag, low, width, place
