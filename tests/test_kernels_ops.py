"""Colour operations against Pillow's: equal in every bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from kernel_images import KINDS, image, planar, to_pillow
from PIL import Image, ImageEnhance, ImageOps

from logitstore.views import ops

View = np.ndarray


def views() -> Iterator[View]:
    """Every kind of image at odd and tiny sizes, and one of each at 224."""
    draw = np.random.default_rng(0)
    for trial in range(120):
        height, width = (int(n) for n in draw.integers(1, 65, 2))
        yield planar(Image.fromarray(image(KINDS[trial % len(KINDS)], height, width, trial)))
    for kind in KINDS:
        yield planar(Image.fromarray(image(kind, 224, 224, 7)))


def factors() -> Iterator[float]:
    """Blend factors in and beyond [0, 1], with the exact ends."""
    draw = np.random.default_rng(1)
    while True:
        yield from (0.0, 1.0, 0.1, 1.9, *(float(f) for f in draw.uniform(-0.5, 2.5, 7)))


def sharpened(view: View, factor: float) -> None:
    source = view.copy()
    ops.sharpness(source, view, factor)


@pytest.mark.parametrize(
    ("ours", "pillow"),
    [
        (ops.brightness, ImageEnhance.Brightness),
        (ops.contrast, ImageEnhance.Contrast),
        (ops.color, ImageEnhance.Color),
        (sharpened, ImageEnhance.Sharpness),
    ],
    ids=["brightness", "contrast", "color", "sharpness"],
)
def test_enhancers(ours: Callable[[View, float], None], pillow: Callable[[Image.Image], ImageEnhance._Enhance]) -> None:
    for view, factor in zip(views(), factors()):  # noqa: B905 - factors never end
        expected = planar(pillow(to_pillow(view)).enhance(factor))
        ours(view, factor)
        np.testing.assert_array_equal(view, expected, err_msg=f"{view.shape} {factor}")


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_operations_on_statistics(name: str) -> None:
    for view in views():
        expected = planar(getattr(ImageOps, name)(to_pillow(view)))
        getattr(ops, name)(view)
        np.testing.assert_array_equal(view, expected, err_msg=str(view.shape))


def test_equalize_of_few_pixels_saturates_as_pillow_does() -> None:
    # Steps of 1 with up to 510 pixels below a value: entries above 255 are cut.
    for count in range(250, 800, 37):
        draw = np.random.default_rng(count)
        view = planar(Image.fromarray(draw.integers(0, 256, (1, count, 3), np.uint8)))
        expected = planar(ImageOps.equalize(to_pillow(view)))
        ops.equalize(view)
        np.testing.assert_array_equal(view, expected)


def table_of(picture_operation: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """The table of a Pillow operation, read off an image that holds every value."""
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    return planar(picture_operation(Image.fromarray(every)))[:, 0]


def test_tables_of_parameters() -> None:
    np.testing.assert_array_equal(ops.invert_lut(), table_of(ImageOps.invert))
    for bits in range(1, 9):
        np.testing.assert_array_equal(ops.posterize_lut(bits), table_of(lambda p, b=bits: ImageOps.posterize(p, b)))
    for threshold in range(257):
        expected = table_of(lambda p, t=threshold: ImageOps.solarize(p, t))
        np.testing.assert_array_equal(ops.solarize_lut(threshold), expected)
    for factor in np.linspace(-0.5, 2.5, 61):
        expected = table_of(lambda p, f=factor: ImageEnhance.Brightness(p).enhance(f))
        np.testing.assert_array_equal(ops.brightness_lut(factor), expected)


@pytest.mark.parametrize("add", [0, 1, 55, 110, 128, 200])
@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_solarize_add(add: int, threshold: int) -> None:
    table = [min(255, i + add) if i < threshold else i for i in range(256)]
    np.testing.assert_array_equal(ops.solarize_add_lut(add, threshold), table_of(lambda p: p.point(table * 3)))


def test_posterize_to_no_bits_is_black() -> None:
    assert not ops.posterize_lut(0).any()


def test_tables_apply_and_compose() -> None:
    first, second = ops.solarize_lut(90), ops.brightness_lut(1.4)
    second[1] = ops.invert_lut()[1]  # a table that differs between channels
    for view in views():
        one_by_one, at_once = view.copy(), view
        ops.apply_lut(one_by_one, first)
        np.testing.assert_array_equal(one_by_one, np.stack([first[c][view[c]] for c in range(3)]))
        ops.apply_lut(one_by_one, second)
        ops.apply_lut(at_once, ops.compose_lut(first, second))
        np.testing.assert_array_equal(one_by_one, at_once)


def test_histograms() -> None:
    for view in views():
        counts = ops.histogram(view)
        np.testing.assert_array_equal(counts, np.reshape(to_pillow(view).histogram(), (3, 256)))
        lut = ops.posterize_lut(3)
        pushed = ops.push_histogram(counts, lut)
        ops.apply_lut(view, lut)
        np.testing.assert_array_equal(pushed, ops.histogram(view))


def test_identity() -> None:
    np.testing.assert_array_equal(ops.identity_lut(), np.tile(np.arange(256, dtype=np.uint8), (3, 1)))
