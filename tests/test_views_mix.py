"""Mixup and CutMix of neighbours: exact, symmetric, independent of the batch; weights and distributions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from logitstore.errors import ViewError
from logitstore.pcg import pair_seeds
from logitstore.views import Renderer, ViewSpec
from logitstore.views.mix import PairMix, cut_pixels, draw_pair, mix_pair, own_shares

MIXUP = ViewSpec(size=20, mixup=0.8)
CUTMIX = ViewSpec(size=20, cutmix=1.0)
BOTH = ViewSpec(size=20, mixup=0.8, cutmix=1.0, mix_prob=0.8, mix_switch=0.3)
ALPHA = 1e-4


def batch(count: int, size: int = 20) -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    rng = np.random.default_rng(count)
    views = rng.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return views, rng.integers(0, 1 << 32, count, dtype=np.uint32)


def test_mixup_is_exact_and_symmetric() -> None:
    views, seeds = batch(40)
    mixed = views.copy()
    own = Renderer(MIXUP).mix(mixed, seeds).own_B
    np.testing.assert_array_equal(own[::2], own[1::2])
    weight = (own * 65536).astype(np.int64)
    np.testing.assert_array_equal(weight / 65536, own)
    partners = views.reshape(20, 2, -1)[:, ::-1].reshape(views.shape).astype(np.int64)
    w = weight.reshape(-1, 1, 1, 1)
    np.testing.assert_array_equal(mixed, (w * views + (65536 - w) * partners + 32768) >> 16)


@pytest.mark.parametrize("own, even, odd", [(1.0, 10, 200), (0.0, 200, 10), (0.5, 105, 105), (0.25, 153, 58)])
def test_mixup_of_two_values(own: float, even: int, odd: int) -> None:
    pair = np.stack([np.full((3, 4, 4), 10, np.uint8), np.full((3, 4, 4), 200, np.uint8)])
    assert mix_pair(pair, PairMix(cut=False, own=own, centre=(0.5, 0.5))) == own
    assert (pair[0] == even).all() and (pair[1] == odd).all()


def test_cutmix_exchanges_one_rectangle_and_weighs_by_its_area() -> None:
    views, seeds = batch(60)
    views[::2], views[1::2] = 7, 250
    own = Renderer(CUTMIX).mix(views, seeds).own_B
    np.testing.assert_array_equal(views[::2], np.where(views[1::2] == 250, 7, 250))
    for view, weight in zip(views[::2], own[::2], strict=True):
        np.testing.assert_array_equal(view[0], view[2])
        kept = view[0] == 7
        assert weight == 1.0 - (~kept).sum() / kept.size
        rows, columns = np.nonzero(~kept)
        if rows.size:
            assert (~kept)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    np.testing.assert_array_equal(own[::2], own[1::2])
    assert len(set(own)) > 15


@pytest.mark.parametrize(
    "own, centre, box",
    [
        (0.75, (0.5, 0.5), (5, 15, 5, 15)),
        (0.75, (0.0, 0.96), (0, 5, 14, 20)),
        (0.0, (0.5, 0.5), (0, 20, 0, 20)),
        (1.0, (0.3, 0.3), (6, 6, 6, 6)),
    ],
)
def test_cut_pixels(own: float, centre: tuple[float, float], box: tuple[int, ...]) -> None:
    assert cut_pixels(PairMix(cut=True, own=own, centre=centre), 20, 20) == box


@pytest.mark.parametrize("spec", [MIXUP, CUTMIX, BOTH, ViewSpec(size=20)], ids=["mixup", "cutmix", "both", "neither"])
@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_own_shares_are_those_of_the_mixed_views(spec: ViewSpec, count: int) -> None:
    views, seeds = batch(count)
    np.testing.assert_array_equal(own_shares(spec, seeds), Renderer(spec).mix(views, seeds).own_B)


@pytest.mark.parametrize("spec", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])
def test_mixing_does_not_depend_on_the_batch(spec: ViewSpec) -> None:
    views, seeds = batch(22)
    whole, pieces = views.copy(), views.copy()
    own = Renderer(spec).mix(whole, seeds).own_B
    for begin, end in ((0, 2), (2, 8), (8, 22)):
        part = Renderer(spec).mix(pieces[begin:end], seeds[begin:end])
        np.testing.assert_array_equal(part.own_B, own[begin:end])
    np.testing.assert_array_equal(whole, pieces)


def test_an_odd_last_view_stays() -> None:
    for count in (0, 1, 5):
        views, seeds = batch(count)
        mixed = views.copy()
        own = Renderer(MIXUP).mix(mixed, seeds).own_B
        assert own.shape == (count,)
        if count:
            assert own[-1] == 1.0
            np.testing.assert_array_equal(mixed[-1], views[-1])


def test_no_mixing_changes_nothing() -> None:
    for spec in (ViewSpec(size=20), ViewSpec(size=20, mixup=0.8, mix_prob=0.0)):
        views, seeds = batch(8)
        mixed = views.copy()
        assert (Renderer(spec).mix(mixed, seeds).own_B == 1.0).all()
        np.testing.assert_array_equal(mixed, views)


def test_mixing_needs_fitting_arrays() -> None:
    views, seeds = batch(4)
    with pytest.raises(ViewError, match="one seed for each view, got 3 for 4"):
        Renderer(MIXUP).mix(views, seeds[:3])
    for wrong in (views[0], views.astype(np.float32), views[:, :, ::2]):
        with pytest.raises(ViewError, match="C-contiguous uint8 views"):
            Renderer(MIXUP).mix(wrong, seeds[: len(wrong)])


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.7, 4.0])
def test_weights_are_beta(alpha: float) -> None:
    spec = ViewSpec(size=8, mixup=alpha)
    seeds = pair_seeds(np.arange(20_000), 7).tolist()
    own = np.array([mix.own for mix in (draw_pair(spec, seed) for seed in seeds) if mix is not None])
    assert own.size == 20_000
    assert own.min() >= 0.0 and own.max() <= 1.0
    # The lower half only: much of a small alpha's mass lies closer to 1 than the 1e-16 that float64 can tell from it.
    lower = own[own <= 0.5]
    assert stats.binomtest(lower.size, own.size).pvalue > ALPHA
    assert stats.kstest(lower, lambda x: 2 * stats.beta.cdf(x, alpha, alpha)).pvalue > ALPHA


def test_probability_switch_and_centres() -> None:
    seeds = pair_seeds(np.arange(20_000), np.arange(20_000) + 1).tolist()
    drawn = [draw_pair(BOTH, seed) for seed in seeds]
    mixed = [mix for mix in drawn if mix is not None]
    assert stats.binomtest(len(mixed), 20_000, 0.8).pvalue > ALPHA
    assert stats.binomtest(sum(mix.cut for mix in mixed), len(mixed), 0.3).pvalue > ALPHA
    for axis in (0, 1):
        assert stats.kstest([mix.centre[axis] for mix in mixed], "uniform").pvalue > ALPHA
    assert all(mix.cut for mix in (draw_pair(CUTMIX, seed) for seed in seeds[:100]) if mix)


def test_pairs_are_ordered() -> None:
    assert draw_pair(BOTH, int(pair_seeds(3, 4))) != draw_pair(BOTH, int(pair_seeds(4, 3)))
