"""What a cut costs: divergence against a plain twin, and the search for the largest floor."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from logitstore import cuts
from logitstore.cuts import FLOORS, GAINS, Cut, Dense, largest_floor, largest_gain, smallest_mass
from logitstore.store import decode_records
from logitstore.store.values import FORMS


def made_logits(views: int = 256, classes: int = 40) -> NDArray[np.float32]:
    return (3 * np.random.default_rng(0).standard_normal((views, classes))).astype(np.float32)


def plain_kl(
    logits_NC: NDArray[Any], index_NK: NDArray[Any], prob_NK: NDArray[Any], tail_N: NDArray[Any]
) -> NDArray[np.float64]:
    """The definition, class by class."""
    found = []
    for logits_C, index_K, prob_K, tail in zip(logits_NC.astype(np.float64), index_NK, prob_NK, tail_N, strict=True):
        dense_C = np.exp(logits_C - logits_C.max())
        dense_C /= dense_C.sum()
        kept_K = index_K < len(dense_C)
        decoded_C = np.full(len(dense_C), tail / max(1, len(dense_C) - kept_K.sum()), np.float64)
        decoded_C[index_K[kept_K]] = prob_K[kept_K]
        decoded_C /= prob_K[kept_K].sum(dtype=np.float64) + tail
        there_C = dense_C > 0
        found.append((dense_C[there_C] * np.log(dense_C[there_C] / decoded_C[there_C])).sum())
    return np.array(found)


@settings(max_examples=150)
@given(
    logits=arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.floats(-12, 12, width=32)),
    topk=st.integers(1, 40),
    floor=st.sampled_from([0.0, 1e-3, 0.2]),
    mass=st.sampled_from([1.0, 0.9, 0.3]),
    gain=st.sampled_from([0.0, 1e-3, 0.1]),
    values=st.sampled_from(FORMS),
)
def test_divergence_is_that_of_the_definition(
    logits: NDArray[np.float32], topk: int, floor: float, mass: float, gain: float, values: Any
) -> None:
    cut = Cut(topk=min(topk, logits.shape[1]), floor=floor, mass=mass, gain=gain, values=values)
    records = cut.records(logits)
    decoded = decode_records(records["index"], records["logp"], records["tail"], values=values)
    dense = Dense.of(logits)
    np.testing.assert_allclose(dense.kl(*decoded), plain_kl(logits, *decoded), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(dense.kl_of(cut), dense.kl(*decoded))


def test_divergence_of_hand_made_records() -> None:
    dense = Dense.of(np.log(np.array([[0.5, 0.25, 0.125, 0.125], [0.7, 0.1, 0.1, 0.1]])))
    index = np.array([[0, 1], [0, 65535]], np.uint16)
    exact = dense.kl(index, np.array([[0.5, 0.25], [0.7, 0.0]]), np.array([0.25, 0.3]))
    np.testing.assert_allclose(exact, 0, atol=1e-7)
    flat = dense[:1].kl(index[:1], np.array([[0.25, 0.25]]), np.array([0.5]))
    assert flat[0] == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), abs=1e-6)


def test_a_tail_that_no_reader_can_tell_from_nothing_costs_no_infinity() -> None:
    dense = Dense.of(np.array([[200.0, 0.0, 0.0]], np.float32))
    assert np.isfinite(dense.kl_of(Cut(topk=1, values="f16"))).all()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, cut = made_logits(50), Cut(topk=7, floor=1e-3)
    whole, records = Dense.of(logits), cut.records(logits)
    monkeypatch.setattr(cuts, "_BLOCK_VALUES", 3 * 40)
    parts = Dense.of(logits)
    np.testing.assert_array_equal(parts.kl_of(cut), whole.kl_of(cut))
    assert all(np.array_equal(array, records[name]) for name, array in cut.records(logits).items())


def test_probabilities_of_kept_classes() -> None:
    dense = Dense.of(np.log(np.array([[0.5, 0.25, 0.25]])))
    np.testing.assert_allclose(dense.prob(np.array([[0, 2, 65535]], np.uint16)), [[0.5, 0.25, 0.0]], atol=1e-7)


@pytest.mark.parametrize(
    "cut", [Cut(topk=40), Cut(topk=20, values="q4"), Cut(topk=40, mass=0.99, values="f16")], ids=str
)
def test_the_floor_found_is_the_largest_within_the_target(cut: Cut) -> None:
    dense = Dense.of(made_logits())
    floor = largest_floor(dense, cut, 0.05)
    assert floor is not None and floor in FLOORS
    beyond = FLOORS[FLOORS.index(floor) + 1]
    assert dense.kl_of(replace(cut, floor=floor)).mean() <= 0.05 < dense.kl_of(replace(cut, floor=beyond)).mean()


def test_the_mass_found_is_the_smallest_within_the_target() -> None:
    dense = Dense.of(made_logits())
    mass = smallest_mass(dense, Cut(topk=40), 0.05)
    assert mass is not None
    left_out = FLOORS.index(float(f"{1 - mass:.1e}"))
    beyond = Cut(topk=40, mass=1 - FLOORS[left_out + 1])
    assert dense.kl_of(Cut(topk=40, mass=mass)).mean() <= 0.05 < dense.kl_of(beyond).mean()


@pytest.mark.parametrize("cut", [Cut(topk=40), Cut(topk=20, values="q2"), Cut(topk=40, values="f16")], ids=str)
def test_the_gain_found_is_the_largest_within_the_target(cut: Cut) -> None:
    dense = Dense.of(made_logits())
    gain = largest_gain(dense, cut, 0.05)
    assert gain is not None
    beyond = GAINS[GAINS.index(gain) + 1]
    assert dense.kl_of(replace(cut, gain=gain)).mean() <= 0.05 < dense.kl_of(replace(cut, gain=beyond)).mean()


@pytest.mark.parametrize("target", [0.3, 0.1, 0.03, 0.01])
def test_a_cut_by_gain_keeps_fewer_classes_than_any_other(target: float) -> None:
    """Log-probabilities are all but exact here, so only the choice of classes counts."""
    # Views of every kind, from those with one answer to those without.
    logits = made_logits(400, 60) * np.linspace(0.2, 3, 400, dtype=np.float32)[:, None]
    dense, whole = Dense.of(logits), Cut(topk=60, values="f16")
    floor, mass = largest_floor(dense, whole, target), smallest_mass(dense, whole, target)
    gain = largest_gain(dense, whole, target)
    assert floor and mass and gain

    def kept(cut: Cut) -> float:
        return float((cut.records(logits)["index"] < 60).mean())

    by_gain = kept(replace(whole, gain=gain))
    assert by_gain < kept(replace(whole, floor=floor)) and by_gain < 0.95 * kept(replace(whole, mass=mass))


def test_a_target_out_of_reach_has_no_floor() -> None:
    dense = Dense.of(made_logits())
    assert smallest_mass(dense, Cut(topk=3), 1e-3) is None
    assert largest_floor(dense, Cut(topk=3), 1e-3) is None
    assert largest_gain(dense, Cut(topk=3), 1e-3) is None
    assert largest_gain(dense, Cut(topk=3), 1e6) == GAINS[-1] == 9.99
    assert largest_floor(dense, Cut(topk=3), 1e6) == FLOORS[-1] == 0.99


@pytest.mark.parametrize(("steps", "digits"), [(FLOORS, 1), (GAINS, 2)])
def test_floors_and_gains_have_few_digits_and_rise(steps: tuple[float, ...], digits: int) -> None:
    assert steps[0] == 1e-8 and steps[1] / steps[0] == pytest.approx(1 + 0.1**digits) and steps[-1] > 0.98
    assert all(float(f"{step:.{digits}e}") == step for step in steps)
    assert all(low < high for low, high in pairwise(steps))


@given(count=st.integers(1, 300), data=st.data())
def test_the_last_place_is_found_from_any_place(count: int, data: st.DataObject) -> None:
    last, near = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    asked: list[int] = []

    def good(place: int) -> bool:
        assert 0 <= place < count
        asked.append(place)
        return place <= last

    assert cuts._last_place(good, near, count) == last
    assert len(asked) <= 3 + 2 * math.log2(1 + abs(last - near))
