"""Selection of the top classes: against a plain numpy twin, with ties, floors and bad values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from logitstore.errors import InputError, NonFiniteError
from logitstore.topk import Fetch, TopK, _first_by_candidates, _first_by_keys, select_topk


def saved_by(logits_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much KL(p || n classes exact, the rest even) falls with each n, straight from the definition [C]."""
    p = np.sort(np.exp(logits_C - logits_C.max()))[::-1]
    p /= p.sum()
    kls = []
    for kept in range(len(p) + 1):
        rest = p[kept:]
        q = np.append(p[:kept], np.full(len(rest), rest.mean() if len(rest) else 0.0))
        kls.append((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())
    return -np.diff(kls)


def reference(
    logits_BC: NDArray[np.float64], topk: int, floor: float, mass: float = 1.0, gain: float = 0.0
) -> dict[str, NDArray[np.generic]]:
    """The same selection in float64, by a full sort of (logit descending, class ascending)."""
    num_views, num_classes = logits_BC.shape
    classes = np.arange(num_classes)
    index = np.stack([np.lexsort((classes, -row))[:topk] for row in logits_BC])
    top = logits_BC.max(1, keepdims=True)
    logz = np.log(np.exp(logits_BC - top).sum(1)) + top[:, 0]
    logp = np.take_along_axis(logits_BC, index, 1) - logz[:, None]
    keep = logp >= (math.log(floor) if floor else -math.inf)
    if mass < 1:
        keep &= np.cumsum(np.exp(logp), axis=1) - np.exp(logp) < mass
    keep[:, 0] = True
    if gain > 0:
        for row, logits_C in enumerate(logits_BC):
            pays = saved_by(logits_C)[1:topk] >= gain
            keep[row, 1:] &= np.logical_and.accumulate(pays)
    tail = np.full(num_views, -math.inf)
    for row in range(num_views):
        rest = np.delete(logits_BC[row], index[row][keep[row]])
        if len(rest):
            tail[row] = np.log(np.exp(rest - rest.max()).sum()) + rest.max() - logz[row]
    return {"index": index, "logp": np.where(keep, logp, -math.inf), "kept": keep.sum(1), "tail": tail, "logz": logz}


def check(logits_BC: NDArray[np.float32], topk: int, floor: float, mass: float = 1.0, gain: float = 0.0) -> TopK:
    found = select_topk(torch.from_numpy(logits_BC), topk, floor, mass, gain)
    wanted = reference(logits_BC.astype(np.float64), topk, floor, mass, gain)
    np.testing.assert_array_equal(found.index_BK.numpy(), wanted["index"])
    np.testing.assert_array_equal(found.kept_B.numpy(), wanted["kept"])
    for name, values in (("logp", found.logp_BK), ("tail", found.tail_B), ("logz", found.logz_B)):
        assert values.dtype == torch.float32
        np.testing.assert_allclose(values.numpy(), wanted[name], rtol=2e-6, atol=2e-5, err_msg=name)
    return found


few_values = st.sampled_from([-3.5, -1.0, -0.0, 0.0, 0.25, 1.0, 7.0])
any_values = st.floats(-30, 30, width=32)


@settings(max_examples=120)
@given(data=st.data(), ties=st.booleans())
def test_equals_a_full_sort(data: st.DataObject, ties: bool) -> None:
    num_views, num_classes = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 60))
    elements = few_values if ties else any_values
    logits = data.draw(arrays(np.float32, (num_views, num_classes), elements=elements))
    check(logits, data.draw(st.integers(1, num_classes)), 0.0)


@settings(max_examples=60)
@given(logits=arrays(np.float32, (3, 40), elements=any_values), topk=st.integers(1, 40), kept=st.integers(1, 40))
def test_the_floor_cuts_where_the_probabilities_do(logits: NDArray[np.float32], topk: int, kept: int) -> None:
    # A floor between two probabilities of the first view, where they are apart, so that rounding decides nothing.
    logp = np.sort(reference(logits.astype(np.float64), 40, 0.0)["logp"].ravel())[::-1]
    upper, lower = logp[kept - 1], logp[min(kept, len(logp) - 1)]
    if upper - lower > 1e-3 and upper < -1e-3:
        check(logits, topk, math.exp((upper + lower) / 2))


@settings(max_examples=80)
@given(
    logits=arrays(np.float32, (3, 40), elements=any_values),
    topk=st.integers(1, 40),
    kept=st.integers(1, 40),
    floor=st.sampled_from([0.0, 1.7e-4]),
)
def test_the_mass_cuts_where_it_is_reached(logits: NDArray[np.float32], topk: int, kept: int, floor: float) -> None:
    # A mass between two cumulated probabilities of the first view, and away from those of all, as rounding goes.
    sums = np.cumsum(np.exp(reference(logits.astype(np.float64), 40, 0.0)["logp"]), axis=1)
    mass = (sums[0, kept - 1] + (sums[0, kept - 2] if kept > 1 else 0.0)) / 2
    if 0 < mass < 1 and np.abs(sums - mass).min() > 1e-5:
        found = check(logits, topk, floor, mass)
        if floor == 0:
            assert found.kept_B[0] == min(kept, topk)


def test_a_mass_that_the_first_class_reaches_keeps_it_alone() -> None:
    found = check(np.array([[5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32), 4, 0.0, 0.6)
    assert found.kept_B.tolist() == [1, 3]


def test_a_mass_beyond_the_first_classes_keeps_as_many_as_there_is_room_for() -> None:
    found = check(np.zeros((1, 100), np.float32), 7, 0.0, 0.9)
    assert found.kept_B.tolist() == [7]


def test_a_mass_of_one_keeps_classes_that_the_sum_does_not_feel() -> None:
    found = check(np.array([[80.0, 0.0, -20.0]], np.float32), 3, 0.0, 1.0)
    assert found.kept_B.tolist() == [3]


@settings(max_examples=150)
@given(
    logits=arrays(np.float32, (3, 40), elements=st.floats(-12, 12, width=32)),
    topk=st.integers(2, 40),
    kept=st.integers(1, 39),
    floor=st.sampled_from([0.0, 1.7e-4]),
    mass=st.sampled_from([1.0, 0.93]),
)
def test_classes_are_kept_while_they_pay(
    logits: NDArray[np.float32], topk: int, kept: int, floor: float, mass: float
) -> None:
    # A gain that lies a little beside one of the first view's, and away from those of all, as rounding goes.
    saved = np.stack([saved_by(row) for row in logits.astype(np.float64)])
    gain = float(saved[0, kept] * 1.01)
    if gain > 1e-7 and (np.abs(saved[:, 1:] - gain) > 1e-3 * gain + 1e-7).all():
        check(logits, topk, floor, mass, gain)


def test_the_gain_is_that_of_the_class_that_comes_next() -> None:
    """Of 1/2, 1/4, 1/8, 1/8 the second class saves 1/4 ln(1/4) - 1/2 ln(1/6) + 1/4 ln(1/8), the third nothing."""
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    second = 0.25 * math.log(0.25) - 0.5 * math.log(0.5 / 3) + 0.25 * math.log(0.125)
    assert second > 0
    assert [int(select_topk(logits, 4, gain=second * part).kept_B) for part in (1e-5, 0.999, 1.001)] == [2, 2, 1]


def test_a_class_that_pays_does_not_help_behind_one_that_does_not() -> None:
    """The second class of this view has but its even share, the third and last but one has more than that."""
    view = np.array([[9.0, 8.0, 8.0, 8.0, *[-9.0] * 36]], np.float32)
    saved = saved_by(view[0].astype(np.float64))
    assert saved[2] > saved[1] > 0
    assert int(check(view, 40, 0.0, gain=(saved[1] + saved[2]) / 2).kept_B) == 1
    assert int(check(view, 40, 0.0, gain=saved[1] / 2).kept_B) == 4


@pytest.mark.parametrize("num_classes", [1, 2, 3, 50])
def test_an_even_view_keeps_one_class_and_a_last_class_never_pays(num_classes: int) -> None:
    flat = select_topk(torch.zeros(2, num_classes), num_classes, gain=1e-9)
    assert flat.kept_B.tolist() == [1, 1]
    steep = select_topk(-torch.arange(num_classes).repeat(2, 1) / 2, num_classes, gain=1e-30)
    assert steep.kept_B.tolist() == [max(1, num_classes - 1)] * 2


def test_a_gain_sees_masses_far_below_the_rounding_of_one() -> None:
    """Behind the first class lies 1e-9, most of it in one class: its gain is found to a millionth."""
    logits = np.array([[0.0, -21.0, *[-30.0] * 38]], np.float32)
    saved = float(saved_by(logits[0].astype(np.longdouble))[1])
    kept = [int(select_topk(torch.from_numpy(logits), 40, gain=saved * part).kept_B) for part in (0.9999, 1.0001)]
    assert 1e-10 < saved < 1e-8 and kept == [2, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_stop_also_where_gains_are_compared(bad: float) -> None:
    logits = torch.zeros(4, 9)
    logits[2, 5] = bad
    with pytest.raises(NonFiniteError, match="1 of 4 views"):
        Fetch(select_topk(logits, 3, gain=0.1, check=False)).numpy()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_stop_also_where_mass_is_added_up(bad: float) -> None:
    logits = torch.zeros(4, 9)
    logits[2, 5] = bad
    with pytest.raises(NonFiniteError, match="1 of 4 views"):
        Fetch(select_topk(logits, 3, 0.0, 0.5, check=False)).numpy()


@pytest.mark.parametrize("topk", [1, 7, 100, 1000])
def test_ties_of_bfloat16_at_the_cut(topk: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(16, 1000, generator=generator) * 2).bfloat16()
    found = select_topk(logits, topk)
    wanted = reference(logits.double().numpy(), topk, 0.0)
    assert len(np.unique(logits.float().numpy()[0])) < 700  # there are ties
    np.testing.assert_array_equal(found.index_BK.numpy(), wanted["index"])


@settings(max_examples=60)
@given(data=st.data(), values=st.sampled_from([few_values, any_values]))
def test_the_two_ways_to_the_first_classes_agree(data: st.DataObject, values: st.SearchStrategy[float]) -> None:
    """A GPU goes the one, a CPU the other; both run on either."""
    logits = data.draw(arrays(np.float32, (3, data.draw(st.integers(1, 90))), elements=values))
    logits_BC, topk = torch.from_numpy(logits) + 0.0, data.draw(st.integers(1, logits.shape[1]))
    assert torch.equal(_first_by_keys(logits_BC, topk), _first_by_candidates(logits_BC, topk))


@pytest.mark.parametrize("num_classes", [2, 37, 4096])
def test_all_classes_equal(num_classes: int) -> None:
    found = select_topk(torch.zeros(3, num_classes), min(5, num_classes))
    assert found.index_BK.tolist() == [list(range(min(5, num_classes)))] * 3
    torch.testing.assert_close(found.logz_B, torch.full((3,), math.log(num_classes)))


def test_zeros_of_both_signs_are_one_value() -> None:
    found = select_topk(torch.tensor([[-0.0, 0.0, -0.0, 0.0, -1.0]]), 3)
    assert found.index_BK.tolist() == [[0, 1, 2]]


def test_everything_kept_leaves_no_tail() -> None:
    found = check(np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], np.float32), 3, 0.0)
    assert found.tail_B.tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(found.logp_BK.exp().sum(1), torch.ones(2))


def test_the_first_class_stays_whatever_the_floor() -> None:
    found = check(np.zeros((2, 100), np.float32), 10, 0.5)
    assert found.kept_B.tolist() == [1, 1]
    assert found.logp_BK[:, 1:].eq(-math.inf).all()
    torch.testing.assert_close(found.tail_B.exp(), torch.tensor([0.99, 0.99]))


def test_a_small_tail_keeps_its_precision() -> None:
    found = select_topk(torch.tensor([[40.0, 0.0, 0.0]]), 1)
    assert found.tail_B.item() == pytest.approx(math.log(2) - 40, abs=1e-5)  # 1 - p would be 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_stop(bad: float) -> None:
    logits = torch.zeros(4, 9)
    logits[2, 5] = bad
    with pytest.raises(NonFiniteError, match="1 of 4 views"):
        select_topk(logits, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_can_be_found_on_arrival(bad: float) -> None:
    logits = torch.zeros(4, 9)
    logits[1:, 8] = bad
    fetch = Fetch(select_topk(logits, 3, check=False))
    with pytest.raises(NonFiniteError, match="3 of 4 views"):
        fetch.numpy()


def test_huge_finite_values_do_not_stop() -> None:
    found = select_topk(torch.tensor([[3e38, 3e38, -3e38]]), 2)
    assert found.index_BK.tolist() == [[0, 1]]


@pytest.mark.parametrize("topk", [0, 4])
def test_topk_beyond_the_classes_is_refused(topk: int) -> None:
    with pytest.raises(InputError, match=r"\[1, 3\]"):
        select_topk(torch.zeros(1, 3), topk)


def test_as_numpy() -> None:
    values = select_topk(torch.zeros(2, 3), 2).numpy()
    assert values["index_BK"].dtype == np.int64
    assert {name: array.shape for name, array in values.items()} == {
        "index_BK": (2, 2),
        "logp_BK": (2, 2),
        "kept_B": (2,),
        "tail_B": (2,),
        "logz_B": (2,),
    }
