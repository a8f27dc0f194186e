"""Correlations over conditions: their values, what chance gives, how sure they are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.quality_parts.numbers import correlation, pearson, ranks, sentence, spearman


def made(points: int, seeds: int, slope: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two things over conditions and seeds; the second follows the first by ``slope`` and has noise of 1."""
    rng = np.random.default_rng(seed)
    x = np.repeat(np.arange(points, dtype=float)[:, None], seeds, axis=1)
    return x, slope * x + rng.standard_normal((points, seeds))


def test_correlations_are_scipys_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (2, 20, 9)).astype(float)
    for measure, reference in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = [reference(a, b).statistic for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(measure(x, y), expected, atol=1e-12)
    np.testing.assert_array_equal(ranks(x), [stats.rankdata(row) for row in x])


def test_what_does_not_vary_has_no_correlation() -> None:
    assert np.isnan(pearson(np.ones((1, 5)), np.arange(5.0)[None]))
    x, y = made(5, 2, 1.0)
    assert correlation(x, np.full_like(y, 3.0)) is None
    assert correlation(x[:3], y[:3]) is None
    assert "no correlation to be had" in sentence("top-1", None)


def test_a_strong_relation_is_found_and_said() -> None:
    found = correlation(*made(8, 3, -2.0), draws=2000)
    assert found is not None and found["conditions"] == 8 and found["seeds"] == 3
    for name in ("pearson", "spearman"):
        low, high = found[name]["interval"]
        assert low <= found[name]["r"] <= high < 0 and found[name]["p"] < 0.01
        assert len(found[name]["each_seed"]) == 3 and max(found[name]["each_seed"]) < -0.8
    assert found["slope"] == pytest.approx(-2, abs=0.3)
    assert "the order of the one tells" in sentence("top-1", found)


def test_conditions_that_differ_by_chance_alone_are_called_so_at_the_rate_promised() -> None:
    found = [correlation(*made(6, 3, 0.0, seed), draws=400) for seed in range(200)]
    chance = np.array([value["spearman"]["p"] for value in found if value is not None])
    assert len(chance) == 200
    assert 0.01 <= (chance <= 0.05).mean() <= 0.1
    assert 0.35 <= (chance <= 0.5).mean() <= 0.65


def test_few_conditions_of_one_seed_prove_nothing_however_well_ordered() -> None:
    x = np.arange(4.0)[:, None]
    found = correlation(x, -x, draws=4000)
    assert found is not None and found["spearman"]["r"] == pytest.approx(-1)
    assert found["spearman"]["p"] == pytest.approx(2 / 24, abs=0.02)  # two of the 24 orders are as good
    assert "not settled" in sentence("top-1", found)


def test_a_relation_of_some_seeds_alone_is_not_settled() -> None:
    x = np.repeat(np.arange(8.0)[:, None], 3, axis=1)
    found = correlation(x, x * np.array([4.0, 3.0, -2.0]), draws=2000)
    assert found is not None and found["pearson"]["r"] == pytest.approx(1) and found["pearson"]["p"] < 0.01
    assert found["pearson"]["each_seed"] == pytest.approx([1, 1, -1]) and found["pearson"]["interval"][0] < 0
    assert "not settled" in sentence("top-1", found)


def test_a_seed_in_which_nothing_varies_has_no_correlation_of_its_own() -> None:
    x, y = made(6, 2, 1.0)
    y[:, 1] = 3.0
    found = correlation(x, y, draws=500)
    assert found is not None and found["pearson"]["each_seed"][1] is None and found["pearson"]["each_seed"][0] > 0
    assert "each seed +0." in sentence("top-1", found) and ", none;" in sentence("top-1", found)


def test_what_seeds_do_to_all_conditions_alike_changes_nothing() -> None:
    x, y = made(8, 3, -2.0)
    plain, shifted = (correlation(x, y + shift, draws=1000) for shift in (0.0, np.array([0.0, 100.0, -70.0])))
    assert plain is not None and shifted is not None
    for name in ("pearson", "spearman"):
        assert shifted[name]["p"] == plain[name]["p"] and shifted[name]["r"] == pytest.approx(plain[name]["r"])
        assert shifted[name]["interval"] == pytest.approx(plain[name]["interval"])


def test_the_same_numbers_give_the_same_answer() -> None:
    x, y = made(6, 2, 0.3)
    assert correlation(x, y, draws=500) == correlation(x, y, draws=500)
