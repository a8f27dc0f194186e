"""Padding, quantising, masses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from logitstore.errors import InputError, NonFiniteError
from logitstore.store import decode_records, encode_records
from logitstore.store.records import kept_counts
from logitstore.store.values import FORMS, Values, quantise, rank_by_code
from tests.store_cases import masses

STEPS = {"q8": 1 / 8, "q4": 1 / 4, "q2": 1 / 2}
"""Nats from a code to the next."""


@dataclass
class Case:
    index: NDArray[np.int64]
    logp: NDArray[np.float32]
    tail: NDArray[np.float32]
    kept: NDArray[np.int64]
    topk: int
    num_classes: int

    def encode(self, values: Values) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        return encode_records(
            index_BK=self.index,
            logp_BK=self.logp,
            tail_B=self.tail,
            kept_B=self.kept,
            topk=self.topk,
            values=values,
            num_classes=self.num_classes,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Records of a teacher, of C classes at most K kept; ties, p = 1 and skipped samples among them."""
    num_classes = draw(st.sampled_from([1, 2, 3, 10, 1000, 65_535, 65_536, 100_000]))
    topk = draw(st.integers(1, min(num_classes, 40)))
    given_ranks = draw(st.integers(1, topk))
    records = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([0.0, 1.0, 5.0, 100.0]))  # 0: all tied; 100: one class at p = 1
    logits = np.round(rng.normal(size=(records, num_classes)) * scale, draw(st.sampled_from([0, 4]))).astype(np.float32)
    order = np.argsort(-logits, axis=1, kind="stable")
    logp = np.take_along_axis(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), order, 1)
    kept = rng.integers(draw(st.sampled_from([0, 1])), given_ranks, size=records, endpoint=True)
    outside = np.arange(num_classes) >= kept[:, None]
    with np.errstate(divide="ignore"):
        tail = np.log(np.where(outside, np.exp(logp.astype(np.float64)), 0).sum(axis=1)).astype(np.float32)
    junk = np.arange(given_ranks) >= kept[:, None]
    index = np.where(junk, -7, order[:, :given_ranks])
    cut = np.where(junk, np.float32(np.nan), logp[:, :given_ranks])
    return Case(index=index, logp=cut, tail=tail, kept=kept, topk=topk, num_classes=num_classes)


@settings(max_examples=120)
@given(case=cases(), values=st.sampled_from(FORMS))
def test_stored_form(case: Case, values: Values) -> None:
    index, logp, tail = case.encode(values)
    shape = (len(case.kept), case.topk)
    assert index.shape == logp.shape == shape and tail.shape == shape[:1]
    assert index.dtype == (np.uint16 if case.num_classes <= 65_535 else np.uint32)
    assert np.array_equal(kept_counts(index), case.kept)
    kept = np.arange(case.topk) < case.kept[:, None]
    assert (index[~kept] == np.iinfo(index.dtype).max).all()
    padded = np.isnan(logp) if values == "f16" else logp == 255
    assert np.array_equal(padded, ~kept)
    no_mass = np.isnan(tail) if values == "f16" else tail == 255
    assert no_mass[(case.kept == 0) | np.isneginf(case.tail)].all()
    for row, count in enumerate(case.kept):
        given_index, true = case.index[row, :count], case.logp[row, :count]
        if values in ("q4", "q2"):  # by what is stored; the classes and their values belong together as before
            pairs = list(zip(np.clip(np.rint(-true / STEPS[values]), 0, 254), given_index, strict=True))
            assert list(zip(logp[row, :count], index[row, :count], strict=True)) == pairs[:1] + sorted(pairs[1:])
            continue
        assert np.array_equal(index[row, :count], given_index)
        if values == "f16":
            assert np.array_equal(logp[row, :count], true.astype(np.float16))
            continue
        found, inside = logp[row, :count] / -8.0, true > -254 / 8
        assert (np.abs(found - true)[inside] <= 1 / 16 + 1e-6).all()
        assert (found[~inside] == -254 / 8).all()


@settings(max_examples=100)
@given(data=st.data(), wide=st.booleans())
def test_ranks_by_code_are_a_stable_sort_behind_the_first(data: st.DataObject, wide: bool) -> None:
    """Against numpy's lexicographic one, with every code and the largest classes."""
    dtype = np.dtype(np.uint32 if wide else np.uint16)
    shape = data.draw(st.tuples(st.integers(0, 4), st.integers(1, 70)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    code = rng.integers(0, data.draw(st.sampled_from([2, 20, 256])), shape).astype(np.uint8)
    index = rng.integers(0, data.draw(st.sampled_from([3, np.iinfo(dtype).max])), shape, dtype, endpoint=True)
    order = np.lexsort((index[:, 1:], code[:, 1:]))
    found = rank_by_code(index, code)
    for array, given_array in zip(found, (index, code), strict=True):
        assert array.dtype == given_array.dtype
        assert np.array_equal(array[:, 0], given_array[:, 0])
        assert np.array_equal(array[:, 1:], np.take_along_axis(given_array[:, 1:], order, axis=1))


@pytest.mark.parametrize(("values", "step"), STEPS.items())
def test_a_coarser_form_changes_values_and_order_alone(values: Values, step: float) -> None:
    """The same classes are kept at any step, none is off by more than half of one, and ranks still fall."""
    rng = np.random.default_rng(0)
    logp = np.sort(rng.uniform(-9, 0, (200, 30)).astype(np.float32))[:, ::-1]
    index = rng.permuted(np.tile(np.arange(100), (200, 1)), axis=1)[:, :30]
    case = Case(index=index, logp=logp, tail=logp[:, -1], kept=rng.integers(1, 31, 200), topk=30, num_classes=100)
    stored_index, stored, _ = case.encode(values)
    assert (np.diff(stored.astype(int)) >= 0).all()
    assert np.array_equal(stored_index[:, 0], index[:, 0])
    for row, count in enumerate(case.kept):
        true = dict(zip(index[row, :count].tolist(), logp[row, :count].tolist(), strict=True))
        assert sorted(true) == sorted(stored_index[row, :count].tolist())
        for number, code in zip(stored_index[row, :count].tolist(), stored[row].tolist(), strict=False):
            assert abs(true[number] + step * code) <= step / 2 + 1e-6


@settings(max_examples=80)
@given(case=cases(), values=st.sampled_from(FORMS), cut=st.integers(1, 45))
def test_masses_sum_to_one_and_truncation_moves_mass_to_the_tail(case: Case, values: Values, cut: int) -> None:
    stored = case.encode(values)
    index, prob, tail = decode_records(*stored, values=values)
    assert prob.dtype == tail.dtype == np.float32
    whole = case.kept > 0
    total = prob.sum(axis=1, dtype=np.float64) + tail
    assert np.abs(total[whole] - 1).max(initial=0) < 1e-6
    assert (total[~whole] == 0).all()
    padding = index == np.iinfo(index.dtype).max
    assert (prob[padding] == 0).all() and (prob >= 0).all() and (tail >= 0).all()
    assert values in ("q2", "f16") or (prob[~padding] > 0).all()  # q4 ends at exp(-63.5); the others may underflow

    short_index, short_prob, short_tail = decode_records(*stored, values=values, topk=cut)
    width = min(cut, case.topk)
    assert short_prob.shape == short_index.shape == (len(prob), width)
    assert np.array_equal(short_index, index[:, :width])
    assert np.allclose(short_prob, prob[:, :width], rtol=1e-6, atol=0)
    assert np.allclose(short_tail, tail + prob[:, width:].sum(axis=1), rtol=1e-5, atol=1e-7)


@settings(max_examples=50)
@given(case=cases())
def test_dense_f16_keeps_the_distribution(case: Case) -> None:
    index, prob, tail = decode_records(*case.encode("f16"), values="f16")
    rows, ranks = np.nonzero(index != np.iinfo(index.dtype).max)
    assert np.allclose(prob[rows, ranks], np.exp(case.logp[rows, ranks]), rtol=2e-3 * 20, atol=1e-5)
    whole = case.kept > 0
    assert np.allclose(tail[whole], np.exp(case.tail[whole]), rtol=4e-2, atol=1e-5)


def test_q8_rounds_half_to_even_and_clamps() -> None:
    logp = np.array([0.0, 1e-7, -0.0625, -0.1875, -0.3125, -31.75, -31.8125, -1e30, -np.inf], np.float32)
    assert quantise(logp, "q8").tolist() == [0, 0, 0, 2, 2, 254, 254, 254, 255]


@pytest.mark.parametrize(("values", "step"), STEPS.items())
def test_every_step_rounds_half_to_even_and_clamps(values: Values, step: float) -> None:
    steps = np.array([0.0, 0.5, 0.51, 1.5, 2.5, 253.5, 254, 254.6, 1e6, np.inf], np.float32)
    assert quantise(-step * steps, values).tolist() == [0, 0, 1, 2, 2, 254, 254, 254, 254, 255]


def test_f16_clamps_what_it_cannot_hold() -> None:
    stored = quantise(np.array([-1.0, -1e6, -np.inf], np.float32), "f16")
    assert stored[:2].tolist() == [-1.0, -65504.0] and np.isnan(stored[2])


@pytest.mark.parametrize(("values", "step"), STEPS.items())
def test_every_code_decodes_to_its_mass(values: Values, step: float) -> None:
    found = masses(np.arange(256, dtype=np.uint8), values)
    assert found[255] == 0
    assert np.allclose(found[:255], np.exp(-step * np.arange(255)), rtol=1e-6, atol=1e-44)


def test_all_padding_has_no_mass() -> None:
    codes = np.full((2, 3), 255, np.uint8)
    index, prob, tail = decode_records(np.full((2, 3), 65535, np.uint16), codes, codes[:, 0], values="q4")
    assert not prob.any() and not tail.any()


def _case(**changes: Any) -> Case:
    values: dict[str, Any] = {
        "index": np.array([[3, 1], [2, 0]]),
        "logp": np.array([[-0.5, -1.5], [-0.1, -3.0]], np.float32),
        "tail": np.array([-1.7, -np.inf], np.float32),
        "kept": np.array([2, 1]),
        "topk": 2,
        "num_classes": 4,
    }
    return Case(**{**values, **changes})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("values", FORMS)
def test_a_kept_value_that_is_not_finite_stops(bad: float, values: Values) -> None:
    with pytest.raises(NonFiniteError):
        _case(logp=np.array([[-0.5, bad], [-0.1, -3]], np.float32)).encode(values)
    _case(logp=np.array([[-0.5, -1], [-0.1, bad]], np.float32)).encode(values)  # beyond what is kept


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_tail_that_is_not_finite_stops(bad: float) -> None:
    with pytest.raises(NonFiniteError):
        _case(tail=np.array([bad, -1], np.float32)).encode("q8")


@pytest.mark.parametrize(
    "changes",
    [
        {"index": np.array([[3, 4], [2, 0]])},
        {"index": np.array([[3, -1], [2, 0]])},
        {"topk": 1},
        {"kept": np.array([3, 1])},
        {"kept": np.array([-1, 1])},
        {"kept": np.array([1])},
        {"tail": np.zeros(3, np.float32)},
    ],
    ids=str,
)
def test_bad_records_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        _case(**changes).encode("q8")


def test_no_records_are_no_error() -> None:
    values, numbers = np.zeros((0, 2), np.float32), np.zeros((0, 2), int)
    empty = _case(index=numbers, logp=values, tail=values[:, 0], kept=numbers[:, 0])
    assert [array.shape for array in empty.encode("q8")] == [(0, 2), (0, 2), (0,)]
