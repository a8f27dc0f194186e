"""Coded chunks hold what was put in: any shape, any base, any order of records, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.store.blocks import Block
from logitstore.store.codecs.packed import MAX_BASE
from logitstore.store.packed import Base, chunk_bytes, decode_chunk, encode_chunk
from logitstore.store.values import FORMS, Values
from tests.packed_cases import CHECKSUM, Case, cases, copied, cut, same, usual

CODED, AS_THEY_ARE = 1, 2
"""First byte of a chunk."""


def round_trip(case: Case, base: Base, epoch: int, block: Block) -> bytes:
    """Code and decode; what was coded."""
    before = copied(block)
    data = case.encoded(base, epoch, block)
    assert same(block, before), "only read"
    assert len(data) <= chunk_bytes(case.shape, len(block.seed))
    assert same(case.decoded(base, epoch, data), block)
    padded = np.frombuffer(data + bytes(100), np.uint8)
    assert same(decode_chunk(padded, case.samples(epoch), case.seeds(epoch), base, checksum=CHECKSUM), block)
    return data


@settings(max_examples=100)
@given(case=cases(), levels=st.sampled_from([0, 1, 2, 3, MAX_BASE]), chunk=st.sampled_from([1, 7, 1000]))
def test_any_records_come_back(case: Case, levels: int, chunk: int) -> None:
    levels = min(levels, MAX_BASE if case.shape.num_classes < 10_000 else 2)
    base = case.base(levels, chunk=chunk)
    assert base.level == levels
    round_trip(case, base, levels, case.block(levels))


@settings(max_examples=100)
@given(case=cases(), data=st.data())
def test_any_arrays_come_back(case: Case, data: st.DataObject) -> None:
    """Whatever stands in them, in an order or not; also as base epochs."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    noise = rng.bytes(1 << 16)

    def scrambled(epoch: int) -> Block:
        block = copied(case.block(epoch))
        for name, array in vars(block).items():
            if array is not None and data.draw(st.sampled_from([True, False, False]), label=name):
                flat = array.reshape(-1)
                at = rng.integers(0, len(flat), data.draw(st.sampled_from([1, 3, 1000])))
                flat[at] = rng.choice(np.frombuffer(noise, array.dtype), len(at))
        return block

    base = Base(case.shape, case.num_samples)
    for epoch in range(data.draw(st.integers(0, 2))):
        base.add([(case.samples(epoch), scrambled(epoch))])
    round_trip(case, base, base.level, scrambled(base.level))


def first_two_exchanged(block: Block) -> None:
    row = int(np.argmax(block.logp[0, :, 0] < block.logp[0, :, 1]))
    for array in (block.index, block.logp):
        array[0, row, :2] = array[0, row, 1::-1]


def write(array: str, place: tuple[Any, ...], value: Any) -> Callable[[Block], None]:
    def alter(block: Block) -> None:
        getattr(block, array)[place] = value

    return alter


QUIET, SIGNALLING = np.array([0xFE00, 0x7D01], np.uint16).view(np.float16)
ODD = [
    *((values, "values out of order", first_two_exchanged) for values in FORMS),
    ("q8", "padding before a class", write("index", (0, 7, 0), 65_535)),
    ("q8", "a value at padding", write("logp", (0, 7, -1), 3)),
    ("q8", "padding of a value alone", write("logp", (0, 7, 0), 255)),
    ("f16", "padding of a value alone", write("logp", (0, 7, 0), np.nan)),
    ("q8", "no such class", write("index", (0, 7, 0), 11)),
    ("f16", "a positive value", write("logp", (0, 7, 0), 0.5)),
    ("f16", "a negative zero", write("logp", (0, 7, 0), -0.0)),
    ("f16", "an infinite value", write("logp", (0, 7, 0), -np.inf)),
    ("f16", "another NaN", write("logp", (0, 7, 0), QUIET)),
    ("f16", "another NaN in a tail", write("tail", (7,), SIGNALLING)),
    ("f16", "an infinite tail", write("tail", (7,), -np.inf)),
]


@pytest.mark.parametrize(("values", "alter"), [(v, a) for v, _, a in ODD], ids=[f"{v} {n}" for v, n, _ in ODD])
@pytest.mark.parametrize("levels", [0, 2])
def test_odd_records_are_stored_as_they_are(values: Values, alter: Callable[[Block], None], levels: int) -> None:
    case = replace(usual(values), skipped=0.0)
    block = copied(case.block(levels))
    block.index[0, 7], block.logp[0, 7] = block.index[0, 3], block.logp[0, 3]
    block.index[0, 7, -1], block.logp[0, 7, -1] = 65_535, np.nan if values == "f16" else 255
    alter(block)
    data = round_trip(case, case.base(levels), levels, block)
    assert data[0] == AS_THEY_ARE and len(data) == 20 + len(block.seed) * (case.shape.record_bytes - 4)


@pytest.mark.parametrize("values", ["q4", "q2"])
@pytest.mark.parametrize(
    ("classes", "form"), [([9, 1, 2, 3, 4], CODED), ([9, 2, 1, 3, 4], AS_THEY_ARE), ([9, 2, 2, 3, 4], AS_THEY_ARE)]
)
def test_tied_classes_behind_the_first_must_be_in_order(values: Values, classes: list[int], form: int) -> None:
    case = usual(values)
    block = copied(case.block(0))
    block.index[0, :], block.logp[0, :] = classes, 5
    assert round_trip(case, case.base(0), 0, block)[0] == form


@pytest.mark.parametrize("values", FORMS)
def test_a_class_may_stand_twice_in_a_record(values: Values) -> None:
    case = replace(usual(values), skipped=0.0)
    block = copied(case.block(3))
    several = block.index[0, :, 1] != 65_535
    block.index[0, several, 1] = block.index[0, several, 0]
    assert round_trip(case, case.base(3), 3, block)[0] == CODED or values in ("q4", "q2")


@pytest.mark.parametrize("values", FORMS)
def test_long_chunks(values: Values) -> None:
    """Longer than what is learnt from; frequencies are made anew many times."""
    case = usual(values, num_samples=2500, topk=10, num_classes=40)
    sizes = [len(round_trip(case, case.base(levels, chunk=512), 4, case.block(4))) for levels in (0, 1, 4)]
    assert sizes[2] < 0.9 * sizes[0] and sizes[2] < sizes[1] < sizes[0], "base epochs make chunks smaller"
    assert sizes[0] < 0.8 * 2500 * (case.shape.record_bytes - 4), "and so does coding alone"


@settings(max_examples=20)
@given(case=cases(most=10), levels=st.sampled_from([0, 2]), own=st.sampled_from(["none", "one", "all"]))
def test_seeds_of_ones_own(case: Case, levels: int, own: str) -> None:
    block, base = copied(case.block(levels)), case.base(levels)
    if own == "one":
        block.seed[-1] ^= 1
    elif own == "all":
        block.seed[:] = ~block.seed
    data, derived = (round_trip(case, base, levels, b) for b in (block, case.block(levels)))
    assert len(data) <= len(derived) + (0 if own == "none" else 4 * case.num_samples)
    assert (data == derived) == (own == "none")


@pytest.mark.parametrize("values", FORMS)
def test_any_part_of_an_epoch_is_a_chunk(values: Values) -> None:
    case = replace(usual(values, num_samples=41, logz=True), skipped=0.2)
    base, whole = case.base(2), case.block(2)
    for start, stop in [(0, 1), (40, 41), (3, 20), (0, 41), (7, 7)]:
        sample_P, seed_P, block = case.samples(2)[start:stop], case.seeds(2)[start:stop], cut(whole, start, stop)
        data = encode_chunk(block, sample_P, seed_P, base, checksum=CHECKSUM)
        assert same(decode_chunk(data, sample_P, seed_P, base, checksum=CHECKSUM), block)


@settings(max_examples=20)
@given(case=cases(most=20), levels=st.sampled_from([1, 3]))
def test_a_base_of_fewer_epochs_is_the_base_of_those(case: Case, levels: int) -> None:
    whole = case.base(levels)
    for level in range(levels + 1):
        lower = whole.upto(level)
        assert lower.level == level and whole.level == levels
        data = case.encoded(lower, levels)
        assert data == case.encoded(case.base(level), levels)
        assert same(case.decoded(lower, levels, data), case.block(levels))


def test_how_a_base_epoch_is_cut_into_chunks_counts_for_nothing_but_what_is_learnt() -> None:
    """What is known of samples and neighbours is the same; only the first chunks' records are counted."""
    case = usual(num_samples=200)
    one, other = case.base(2), case.base(2, chunk=13)
    for name in ("start", "classes", "code", "neighbour", "weight", "upto"):
        assert np.array_equal(getattr(one.model, name), getattr(other.model, name)), name


def test_several_threads_code_the_same() -> None:
    case = usual("q4", num_samples=500, num_classes=40)
    base = case.base(3)
    expected = [case.encoded(base.upto(level), 3) for level in range(4)]
    with ThreadPoolExecutor(8) as pool:
        coded = list(pool.map(lambda i: case.encoded(base.upto(i % 4), 3), range(40)))
        decoded = list(pool.map(lambda i: case.decoded(base.upto(i % 4), 3, expected[i % 4]), range(40)))
    assert coded == 10 * expected
    assert all(same(block, case.block(3)) for block in decoded)


def test_a_base_refuses_what_is_no_epoch() -> None:
    case = usual()
    base = case.base(1)
    sample_N, block = case.samples(1), case.block(1)
    twice = np.where(sample_N == 3, 4, sample_N)
    for wrong in ([(sample_N[:-1], cut(block, 0, 59))], [(twice, block)], [(sample_N, block), (sample_N, block)]):
        with pytest.raises(ValueError, match="must hold each of the 60 samples once"):
            case.base(1).add(wrong)
    for level in (-1, 2):
        with pytest.raises(ValueError, match="there are 1 base epochs"):
            base.upto(level)
    with pytest.raises(ValueError, match="1 base epochs are known already, here only 0"):
        base.upto(0).add([(sample_N, block)])
    with pytest.raises(ValueError, match="at most 8"):
        case.base(MAX_BASE).add([(sample_N, block)])
