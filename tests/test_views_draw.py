"""Draws: their distributions against theory and against timm and torchvision, and what they must not depend on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from logitstore.views import OPERATIONS, Renderer, ViewSpec, view_spec
from logitstore.views.erase import box_pixels, fill_noise, noise_tables
from logitstore.views.stages import CROP, CUSTOM, MIRROR, NOISE, next_unit, operand, start
from logitstore.views.tables import exp2, load_tables, log2, normal_quantile, sin_degrees
from tests.view_cases import decoded

ALPHA = 1e-4
"""Seeds are fixed, so a test that passes once passes always; p below this would mean a wrong distribution."""


def uniforms(stage: np.uint64, count: int) -> NDArray[np.float64]:
    """The first number in [0, 1) of one stage under seeds 0, 1, 2, ..."""
    states = (start(np.uint64(seed), stage) for seed in range(count))
    with np.errstate(over="ignore"):
        return np.array([next_unit(np.uint64(state), np.uint64(inc))[1] for state, inc in states])


def test_functions_are_close_to_libm() -> None:
    tables = load_tables()
    for x in np.geomspace(1e-9, 1e9, 500).tolist():
        assert abs(log2(x, tables.log2) - math.log2(x)) < 1e-7
    for x in np.linspace(-30, 30, 501).tolist():
        assert abs(exp2(x, tables.exp2) / 2.0**x - 1) < 1e-7
    for x in np.linspace(-90, 90, 501).tolist():
        assert abs(sin_degrees(x, tables.sine) - math.sin(math.radians(x))) < 1e-7
    assert log2(1.0, tables.log2) == 0.0 and exp2(0.0, tables.exp2) == 1.0
    assert sin_degrees(90.0, tables.sine) == 1.0 and sin_degrees(0.0, tables.sine) == 0.0


def test_normal_quantiles() -> None:
    normal = load_tables().normal
    bits = np.random.default_rng(1).integers(0, 1 << 32, 200_000)
    sample = np.array([normal_quantile(b, normal) for b in bits.tolist()])
    assert stats.kstest(sample, "norm").pvalue > ALPHA
    assert 4.0 < abs(sample).max() < 4.5
    assert abs(np.std(sample) - 1) < 0.005


def test_stages_are_uniform_and_independent() -> None:
    columns = [uniforms(stage, 40_000) for stage in (CROP, MIRROR, NOISE, CUSTOM)]
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > ALPHA
        assert stats.chisquare(np.histogram2d(column[:-1], column[1:], 16)[0].ravel()).pvalue > ALPHA
    for i, first in enumerate(columns):
        for second in columns[i + 1 :]:
            assert stats.chisquare(np.histogram2d(first, second, 16)[0].ravel()).pvalue > ALPHA


def test_crops_fill_area_aspect_and_place_evenly() -> None:
    renderer = Renderer(ViewSpec(size=32, scale=(0.1, 0.5), ratio=(0.5, 1.5)))
    side = 100_000  # so large that every attempt fits and rounding to pixels is invisible
    crops = np.array([renderer.params(side, side, seed).crop for seed in range(20_000)], float)
    left, top, width, height = crops.T
    assert stats.kstest(width * height / side**2, "uniform", (0.1, 0.4)).pvalue > ALPHA
    assert stats.kstest(np.log(width / height), "uniform", (math.log(0.5), math.log(3))).pvalue > ALPHA
    assert stats.kstest(left / (side - width), "uniform").pvalue > ALPHA
    assert stats.kstest(top / (side - height), "uniform").pvalue > ALPHA


@pytest.mark.parametrize("height, width", [(375, 500), (500, 160), (33, 32)])
def test_crops_are_torchvisions(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    renderer = Renderer(view_spec("crop_flip", size=32))
    ours = np.array([renderer.params(height, width, seed).crop for seed in range(6000)])
    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(6000)]
    theirs = np.array([(left, top, w, h) for top, left, h, w in drawn])
    for own, other in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(own, other).pvalue > ALPHA


@pytest.mark.parametrize(
    "height, width, crop",
    [(1, 1, (0, 0, 1, 1)), (1000, 2, (0, 498, 2, 3)), (3, 999, (497, 0, 4, 3)), (9, 9, (0, 0, 9, 9))],
)
def test_crop_falls_back_to_the_centre(height: int, width: int, crop: tuple[int, ...]) -> None:
    renderer = Renderer(ViewSpec(size=8, scale=(1.0, 1.0)))
    crops = [renderer.params(height, width, seed).crop for seed in range(50)]
    assert crop in crops
    for left, top, crop_width, crop_height in crops:
        assert 0 <= left <= width - crop_width and 0 <= top <= height - crop_height
        assert crop_width > 0 and crop_height > 0


def test_flip_has_its_probability() -> None:
    renderer = Renderer(ViewSpec(size=8, hflip=0.3))
    flips = sum(renderer.params(9, 9, seed).flip for seed in range(10_000))
    assert stats.binomtest(flips, 10_000, 0.3).pvalue > ALPHA
    assert not any(Renderer(ViewSpec(size=8, hflip=0.0)).params(9, 9, seed).flip for seed in range(100))
    assert all(Renderer(ViewSpec(size=8, hflip=1.0)).params(9, 9, seed).flip for seed in range(100))


def test_layers_choose_evenly_and_apply_half() -> None:
    renderer = Renderer(view_spec("tinyvit", size=8))
    drawn = [renderer.params(9, 9, seed).operations for seed in range(20_000)]
    counts = np.bincount([len(operations) for operations in drawn], minlength=3)
    assert stats.chisquare(counts, [5_000, 10_000, 5_000]).pvalue > ALPHA
    names = [name for operations in drawn for name, _ in operations]
    assert stats.chisquare([names.count(name) for name in OPERATIONS]).pvalue > ALPHA


def test_magnitudes_are_normal_clipped_and_signed() -> None:
    renderer = Renderer(ViewSpec(size=8, rand_augment_layers=1, rand_augment_prob=1.0, rand_augment_ops=("Rotate",)))
    degrees = np.array([renderer.params(9, 9, seed).operations[0][1] for seed in range(20_000)])
    magnitude = np.abs(degrees) / 3.0
    assert magnitude.max() <= 10.0
    assert stats.binomtest(int((magnitude == 10.0).sum()), 20_000, stats.norm.sf(2.0)).pvalue > ALPHA
    inside = magnitude[magnitude < 10.0]
    assert stats.kstest(inside, stats.truncnorm(-18.0, 2.0, 9.0, 0.5).cdf).pvalue > ALPHA
    assert stats.binomtest(int((degrees > 0).sum()), 20_000).pvalue > ALPHA


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0.0, 2.5, 7.37, 9.0, 10.0])
def test_arguments_are_timms(name: str, magnitude: float, monkeypatch: pytest.MonkeyPatch) -> None:
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    to_argument = auto_augment.LEVEL_TO_ARG[name]
    for sign in (1, -1):
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, sign=sign: sign * value)
        theirs = to_argument(magnitude, {})[0] if to_argument else 0.0
        assert operand(OPERATIONS.index(name), sign * magnitude / 10.0) == pytest.approx(theirs, abs=1e-12)


def test_jitter_has_all_orders_and_ranges() -> None:
    renderer = Renderer(ViewSpec(size=8, color_jitter=(0.4, 0.3, 0.5)))
    drawn = [renderer.params(9, 9, seed).operations for seed in range(6_000)]
    orders = [tuple(name for name, _ in operations) for operations in drawn]
    assert len(set(orders)) == 6
    assert stats.chisquare([orders.count(order) for order in set(orders)]).pvalue > ALPHA
    for name, width in (("BrightnessIncreasing", 0.4), ("ContrastIncreasing", 0.3), ("ColorIncreasing", 0.5)):
        factors = [dict(operations)[name] for operations in drawn]
        assert stats.kstest(factors, "uniform", (1 - width, 2 * width)).pvalue > ALPHA
    only = Renderer(ViewSpec(size=8, color_jitter=(0.0, 0.3, 0.0))).params(9, 9, 0).operations
    assert [name for name, _ in only] == ["ContrastIncreasing"]


def test_erased_boxes() -> None:
    renderer = Renderer(ViewSpec(size=8, erasing_prob=0.7, erasing_area=(0.02, 0.2), erasing_ratio=(0.5, 2.0)))
    boxes = [renderer.params(9, 9, seed).erased for seed in range(20_000)]
    erased = [box for box in boxes if box is not None]
    assert stats.binomtest(len(erased), 20_000, 0.7).pvalue > ALPHA
    assert stats.kstest([box.height * box.width for box in erased], "uniform", (0.02, 0.18)).pvalue > ALPHA
    aspects = [math.log2(box.height / box.width) for box in erased]
    assert stats.kstest(aspects, "uniform", (-1.0, 2.0)).pvalue > ALPHA
    for side in ("top", "left"):
        assert stats.kstest([getattr(box, side) for box in erased], "uniform").pvalue > ALPHA


@pytest.mark.parametrize("size", [1, 2, 7, 33, 224])
def test_erased_pixels_lie_inside(size: int) -> None:
    edges = (0.0, 0.5, 1 - 2**-32)
    for height in (1e-3, 0.3, 0.999):
        for place in edges:
            top, left, rows, columns = box_pixels(height, 1 - height, place, edges[0], size)
            assert 0 <= top <= top + rows <= size and 0 <= left <= left + columns <= size
            assert abs(rows - height * size) <= 1.0 and rows >= 1 and columns >= 1


def test_noise_is_normal_in_pixel_values() -> None:
    mean, std = (123.675, 60.0, 103.53), (58.395, 10.0, 57.375)
    view = np.zeros((3, 300, 300), np.uint8)
    fill_noise(view.reshape(-1), 300, (0, 0, 300, 300), np.uint64(5), noise_tables(mean, std))
    for channel in range(3):
        values = np.sort(view[channel].ravel())
        levels = np.arange(256)
        found = np.searchsorted(values, levels, "right") / values.size
        wanted = stats.norm.cdf(levels + 0.5, mean[channel], std[channel])
        wanted[255] = 1.0
        assert np.abs(found - wanted).max() < 1.95 / math.sqrt(values.size)
    assert abs(np.corrcoef(view[0, :, :-1].ravel(), view[0, :, 1:].ravel())[0, 1]) < 0.015


def test_stages_do_not_move_one_another() -> None:
    full = replace(view_spec("tinyvit", size=32), color_jitter=(0.4, 0.4, 0.4))
    bare = view_spec("crop_flip", size=32)
    without_layers = replace(full, rand_augment_layers=0)
    renderers = [Renderer(spec) for spec in (full, bare, without_layers)]
    for seed in range(300):
        complete, plain, without = (renderer.params(60, 80, seed) for renderer in renderers)
        assert (complete.crop, complete.flip) == (plain.crop, plain.flip)
        assert complete.erased == without.erased
        assert complete.operations[-3:] == without.operations


def test_parameters_do_not_depend_on_the_size() -> None:
    spec = view_spec("tinyvit", size=224)
    small, own, large = (Renderer(spec, size=size) for size in (64, None, 320))
    for seed in range(300):
        assert small.params(60, 80, seed) == own.params(60, 80, seed) == large.params(60, 80, seed)


def test_another_size_shows_the_same_view() -> None:
    """Smooth image, no noise: the larger view, averaged down, is close to the smaller one."""
    pixels = decoded("photo.jpg")
    names = tuple(name for name in OPERATIONS if name not in ("Equalize", "SharpnessIncreasing", "SolarizeIncreasing"))
    spec = ViewSpec(size=48, scale=(0.5, 1.0), rand_augment_layers=1, rand_augment_prob=1.0, rand_augment_ops=names)
    renderer, larger = Renderer(spec), Renderer(spec, size=96)
    for seed in range(40):
        small = renderer.render(pixels, seed).astype(float)
        averaged = larger.render(pixels, seed).astype(float).reshape(3, 48, 2, 48, 2).mean((2, 4))
        assert np.abs(small - averaged).mean() < 6.0, renderer.params(75, 100, seed)
