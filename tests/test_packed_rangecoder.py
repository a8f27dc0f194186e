"""The range coder against big integers, and what it makes of words that nobody wrote."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logitstore.store.packed.others import by_frequency, by_score
from logitstore.store.packed.rangecoder import START, begin, even, finish, flagged, quotient, tabled

FULL = 1 << 16


class Symbol(NamedTuple):
    """One of a row of symbols: where it begins, how much of the total it has, and how it is coded."""

    way: str
    first: int
    count: int
    total: int
    row: tuple[int, ...] = ()
    """Cumulated frequencies."""


def table(counts: list[int]) -> tuple[int, ...]:
    """Frequencies, at least one each, that sum to 2**16, cumulated."""
    whole = sum(counts)
    shares = [1 + count * (FULL - len(counts)) // max(1, whole) for count in counts]
    shares[0] += FULL - sum(shares)
    return tuple(np.cumsum([0, *shares]).tolist())


@st.composite
def symbols(draw: st.DrawFn) -> Symbol:
    way = draw(st.sampled_from(["tabled", "even", "flagged"]))
    if way == "even":
        total = draw(st.one_of(st.integers(1, 300), st.integers(1, 1 << 32), st.sampled_from([1, 1 << 24, 1 << 32])))
        return Symbol(way, draw(st.one_of(st.integers(0, total - 1), st.sampled_from([0, total - 1]))), 1, total)
    if way == "flagged":
        chance = draw(st.one_of(st.integers(1, FULL - 1), st.sampled_from([1, FULL - 1])))
        return draw(st.sampled_from([Symbol(way, 0, chance, FULL), Symbol(way, chance, FULL - chance, FULL)]))
    row = table(draw(st.lists(st.sampled_from([0, 1, 5, 1000]), min_size=1, max_size=40)))
    symbol = draw(st.integers(0, len(row) - 2))
    return Symbol(way, row[symbol], row[symbol + 1] - row[symbol], FULL, row)


State = tuple[int, int, int]


def coded(words: np.ndarray, decoding: bool, wanted: list[Symbol]) -> tuple[list[int], list[State]]:
    """What the kernels' functions code, or decode: where each symbol begins; and the states between."""
    low, width, place = begin(decoding, words)
    found, states = [], [(low, width, place)]
    for one in wanted:
        if one.way == "even":
            value, low, width, place = even(decoding, low, width, place, words, one.total, one.first)
        elif one.way == "flagged":
            chance = one.first or one.count
            flag, low, width, place = flagged(decoding, low, width, place, words, chance, int(one.first == 0))
            value = 0 if flag else chance
        else:
            row = np.array([7, *one.row], np.int64)  # from place 1 on
            symbol = one.row.index(one.first)
            value, low, width, place = tabled(decoding, low, width, place, words, row, 1, symbol)
            value = one.row[value]
        found.append(int(value))
        states.append((low, width, place))
    if not decoding:
        found.append(finish(low, place, words))
    return found, states


def twin(wanted: list[Symbol]) -> list[int]:
    """Words, with one integer of any size in place of carries."""
    low, width, words = 0, 1 << 48, 1
    for _, first, count, total, _ in wanted:
        part = width // total
        low, width = low + part * first, part * count
        while width < 1 << 32:
            low, width, words = low << 16, width << 16, words + 1
    code = -(-low >> 32)
    assert low <= code << 32 < low + width, "zeros may follow"
    return [code >> 16 * place & 0xFFFF for place in reversed(range(words))]


LONG_CARRY = [Symbol("even", (1 << 32) - 1, 1, 1 << 32)] * 9 + [Symbol("flagged", 1, FULL - 1, FULL)] * 3


@settings(max_examples=200)
@given(wanted=st.lists(symbols(), max_size=60))
@example(wanted=LONG_CARRY)
def test_words_are_those_of_big_integers_and_come_back(wanted: list[Symbol]) -> None:
    words = np.full(2 * len(wanted) + 8, 0xABCD, np.uint16)
    used = coded(words, False, wanted)[0].pop()
    assert words[:used].tolist() == twin(wanted)
    assert (words[used:] == 0xABCD).all()
    for given_words in (words[:used], np.append(words[:used], np.zeros(5, np.uint16))):
        assert coded(given_words, True, wanted)[0] == [one.first for one in wanted]


@given(wanted=st.lists(symbols(), max_size=60))
def test_words_are_no_more_than_the_symbols_are_unlikely(wanted: list[Symbol]) -> None:
    wanted = [one for one in wanted if one.total <= FULL]
    used = coded(np.zeros(2 * len(wanted) + 8, np.uint16), False, wanted)[0].pop()
    bits = -sum(math.log2(one.count / one.total) for one in wanted)
    assert 16 * used <= bits + 32 + 0.001 * len(wanted)


@settings(max_examples=200)
@given(data=st.binary(max_size=60), wanted=st.lists(symbols(), max_size=60))
@example(data=b"\xff" * 40, wanted=[Symbol("even", 0, 1, (1 << 32) - 1)] * 40)
@example(data=b"\xff" * 40, wanted=[Symbol("even", 0, 1, 3), Symbol("even", 0, 1, (1 << 24) + 1)] * 20)
@example(
    data=b"\xff" * 40, wanted=[Symbol("even", 0, 1, 3), Symbol("tabled", 0, FULL - 1, FULL, (0, FULL - 1, FULL))] * 9
)
def test_any_words_decode_to_something(data: bytes, wanted: list[Symbol]) -> None:
    """The state stays within its bounds, and symbols within theirs."""
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint16)
    found, states = coded(words, True, wanted)
    for value, one in zip(found, wanted, strict=True):
        assert 0 <= value < one.total
        assert one.way != "tabled" or value in one.row
    for low, width, _ in states:
        assert 1 << 32 <= width <= START and 0 <= low < width
    for (_, _, place), (_, _, later) in pairwise(states):
        assert 0 <= later - place <= 2


@settings(max_examples=500)
@given(
    b=st.one_of(st.integers(1, 1 << 48), st.integers(1, 1 << 25)), c=st.integers(0, 1 << 48), near=st.integers(-2, 2)
)
def test_quotients_are_exact(b: int, c: int, near: int) -> None:
    """Also beside multiples, where a rounded one would show."""
    for a in (c, min(1 << 48, max(0, c // b * b + near))):
        assert quotient(a, b) == a // b


@given(
    scores=st.lists(st.sampled_from([0, 0, 0, 1, 900]), min_size=1, max_size=100).filter(any),
    width=st.integers(1 << 32, START), share=st.sampled_from([0.0, 0.3, 0.9999, 1.0]), least=st.integers(0, 99),
)  # fmt: skip
def test_any_state_decodes_to_a_class_that_has_a_score(scores: list[int], width: int, share: float, least: int) -> None:
    """Also at the end of the interval, which lies behind the last of the whole parts."""
    bits, score_C = 5, np.array(scores, np.int64)
    block_S = np.add.reduceat(score_C, np.arange(0, len(scores), 1 << bits))
    least = min(least, int(np.flatnonzero(score_C)[-1]))
    below, low = int(score_C[:least].sum()), min(width - 1, int(share * width))
    cls, new_low, new_width, _ = by_score(
        True, low, width, 0, np.zeros(4, np.uint16), score_C, block_S, bits, below, sum(scores), 0
    )
    assert least <= cls < len(scores) and score_C[cls] > 0
    assert 0 <= new_low < new_width


@given(
    parts=st.lists(st.integers(1, 1000), min_size=1, max_size=100), width=st.integers(1 << 32, START),
    share=st.sampled_from([0.0, 0.3, 0.9999, 1.0]), least=st.integers(0, 99),
)  # fmt: skip
def test_any_state_decodes_to_a_class(parts: list[int], width: int, share: float, least: int) -> None:
    upto, least = np.cumsum([0, *parts]), min(least, len(parts) - 1)
    low = min(width - 1, int(share * width))
    cls, new_low, new_width, _ = by_frequency(True, low, width, 0, np.zeros(4, np.uint16), upto, least, 0)
    assert least <= cls < len(parts) and 0 <= new_low < new_width
    value = min(low // (width // sum(parts[least:])), sum(parts[least:]) - 1)
    assert sum(parts[least:cls]) <= value < sum(parts[least : cls + 1])
