"""Counts and the frequencies made of them: whatever was counted, every event keeps a chance, and chances sum up."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logitstore.jit import wrapping
from logitstore.store.packed.neighbours import NEIGHBOURS, RANKS, RECORDS, SLOTS, Neighbours
from logitstore.store.packed.statistics import SYMBOLS, TAILS, Counts, Frequencies, renew, step_frequencies

WHOLE = 1 << 16


def drawn(seed: int, most: int, share: float) -> Counts:
    """Counts up to so many, few or many of them 0; nothing happened more often than it could have."""
    rng = np.random.default_rng(seed)
    counts = Counts.zeros()
    for array in counts:
        array[...] = rng.integers(0, most, array.shape, endpoint=True) * (rng.random(array.shape) < share)
    counts.hit[...] = np.minimum(counts.hit, counts.risk)
    for array in (counts.other, counts.neighbour):
        array[:, 1] = np.minimum(array[:, 0], array[:, 1])
    return counts


def rows_of(now: Frequencies) -> tuple[np.ndarray, np.ndarray]:
    """Cumulated frequencies of steps by band, gap and room, and of tails by band."""
    zeros = Counts.zeros()
    return now.step.reshape(*zeros.step.shape[:3], SYMBOLS + 1), now.tail.reshape(-1, TAILS + 1)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    most=st.sampled_from([0, 1, 100, 1 << 16, 1 << 24, 1 << 30]),
    share=st.sampled_from([0.001, 0.05, 1.0]),
)
@example(seed=0, most=1 << 30, share=1.0)
@example(seed=0, most=1 << 30, share=0.05)
def test_every_event_keeps_a_chance(seed: int, most: int, share: float) -> None:
    counts, now = drawn(seed, most, share), Frequencies.empty()
    before = counts.copied()
    with wrapping():
        renew(counts, now)
        steps, tails = rows_of(now)
        assert (steps[..., -1] == 0).all(), "made when they are first used"
        for place in np.ndindex(steps.shape[:-1]):
            if sum(place) % 3 == 0:
                step_frequencies(counts.step, now, *place)
    made = steps[steps[..., -1] != 0]
    for rows in (made, tails):
        assert (rows[..., 0] == 0).all() and (rows[..., -1] == WHOLE).all()
        assert (np.diff(rows) >= 1).all()
    assert len(made) > 100
    for chances in (now.expected, now.other):
        assert (chances >= 1).all() and (chances <= WHOLE).all()
    assert (now.neighbour >= 1).all() and (now.neighbour < WHOLE).all()
    for array, was in zip(counts, before, strict=True):
        assert np.array_equal(array, was), "only read"


def test_what_is_frequent_gets_the_larger_share() -> None:
    counts, now = Counts.zeros(), Frequencies.empty()
    counts.step[3, 2, 1, 5] = counts.tail[4, 20] = counts.risk[30, 2] = 900
    counts.hit[30, 2] = 300
    with wrapping():
        renew(counts, now)
        step_frequencies(counts.step, now, 3, 2, 1)
        step_frequencies(counts.step, now, 9, 5, 0)
    steps, tails = rows_of(now)
    seen, elsewhere = (np.diff(row) for row in (steps[3, 2, 1], steps[9, 5, 0]))
    assert seen.argmax() == 5 and seen[5] > 0.9 * WHOLE
    assert elsewhere.argmax() == 5 and seen[5] > elsewhere[5] > elsewhere[4], "other contexts learn as well, less"
    assert np.diff(tails[4])[20] > 0.9 * WHOLE
    assert np.isclose(now.expected.max(), WHOLE / 3, rtol=0.05), "300 of 900"


def twin(index: np.ndarray, kept: np.ndarray, num_classes: int) -> tuple[list[list[list[int]]], list[int]]:
    """Classes beside each class with their counts, the most frequent first, and how often each was seen."""
    beside: list[list[list[int]]] = [[] for _ in range(num_classes)]
    seen = [0] * num_classes
    for row, count in zip(index.tolist(), kept.tolist(), strict=True):
        classes = row[: min(count, RANKS)]
        for rank, cls in enumerate(classes):
            seen[cls] += 1
            slots = beside[cls]
            for other in classes[:rank] + classes[rank + 1 :]:
                at = next((i for i, slot in enumerate(slots) if slot[0] == other), None)
                if at is None:
                    if len(slots) == SLOTS:
                        slots.pop()
                    slots.append([other, 0])
                    at = len(slots) - 1
                slots[at][1] += 1
                first = next(i for i, slot in enumerate(slots) if i == at or slot[1] < slots[at][1])
                slots[first], slots[at] = slots[at], slots[first]
    return beside, seen


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32), records=st.integers(0, 300), num_classes=st.sampled_from([1, 3, 40, 200, 1000]),
    topk=st.integers(1, 20), dtype=st.sampled_from([np.uint16, np.uint32]),
)  # fmt: skip
def test_neighbours_are_those_of_the_twin(seed: int, records: int, num_classes: int, topk: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    often = 1 / (1 + np.arange(num_classes))  # some classes come often, and others push each other out
    index = np.stack(
        [rng.choice(num_classes, topk, replace=True, p=often / often.sum()) for _ in range(records)]
        or [np.zeros(topk, np.int64)]
    )[:records]
    index, kept = index.astype(dtype), rng.integers(0, topk, records, endpoint=True)
    index[np.arange(topk) >= kept[:, None]] = np.iinfo(dtype).max
    found = Neighbours(num_classes, np.dtype(dtype))
    half = records // 2
    for part in (slice(half), slice(half, None)):
        found.add(index[part], kept[part])
    neighbour, weight, upto = found.best()
    beside, seen = twin(index, kept, num_classes)
    for cls in range(num_classes):
        expected = [(other, max(1, 1024 * count // (seen[cls] + 1))) for other, count in beside[cls][:NEIGHBOURS]]
        there = weight[cls] > 0
        assert list(zip(neighbour[cls, there].tolist(), weight[cls, there].tolist(), strict=True)) == expected
        assert there[: len(expected)].all(), "none behind the last"
    assert np.diff(upto).tolist() == [4 * (count + 1) for count in seen] and upto[0] == 0


def test_neighbours_look_at_so_many_records_and_no_more() -> None:
    records = RECORDS // 2 + 1
    index, kept = np.tile(np.array([[0, 1]], np.uint16), (records, 1)), np.full(records, 2)
    found = Neighbours(2, np.dtype(np.uint16))
    for _ in range(3):
        found.add(index, kept)
    assert np.diff(found.best()[2]).tolist() == [4 * (RECORDS + 1)] * 2
