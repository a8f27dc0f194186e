"""Colour operations against Pillow's: equal in every bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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


def sharpness(flat: View, shape: tuple[int, ...], factor: float) -> None:
    ops.sharpness(flat.copy(), flat, *shape[1:], factor)


@pytest.mark.parametrize(
    ("ours", "pillow"),
    [
        (ops.brightness, ImageEnhance.Brightness),
        (ops.contrast, ImageEnhance.Contrast),
        (ops.color, ImageEnhance.Color),
        (None, ImageEnhance.Sharpness),
    ],
    ids=["brightness", "contrast", "color", "sharpness"],
)
def test_enhancers(
    ours: Callable[[View, float], None] | None, pillow: Callable[[Image.Image], ImageEnhance._Enhance]
) -> None:
    for view, factor in zip(views(), factors()):  # noqa: B905 - factors never end
        expected = planar(pillow(to_pillow(view)).enhance(factor))
        if ours is None:
            sharpness(view.reshape(-1), view.shape, factor)
        else:
            ours(view.reshape(-1), factor)
        np.testing.assert_array_equal(view, expected, err_msg=f"{view.shape} {factor}")


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_operations_on_statistics(name: str) -> None:
    for view in views():
        expected = planar(getattr(ImageOps, name)(to_pillow(view)))
        getattr(ops, name)(view.reshape(-1))
        np.testing.assert_array_equal(view, expected, err_msg=str(view.shape))


def test_autocontrast_of_every_range() -> None:
    ramp = np.arange(256, dtype=np.uint8)
    for low in range(0, 256, 5):
        for high in range(low, 256, 3):
            view = np.ascontiguousarray(np.broadcast_to(ramp[low : high + 1], (3, 1, high + 1 - low)))
            expected = planar(ImageOps.autocontrast(to_pillow(view)))
            ops.autocontrast(view.reshape(-1))
            np.testing.assert_array_equal(view, expected, err_msg=f"{low} {high}")


def test_equalize_of_few_pixels_saturates_as_pillow_does() -> None:
    # Steps of 1 with up to 510 pixels below a value: entries above 255 are cut.
    for count in range(250, 800, 37):
        draw = np.random.default_rng(count)
        view = planar(Image.fromarray(draw.integers(0, 256, (1, count, 3), np.uint8)))
        expected = planar(ImageOps.equalize(to_pillow(view)))
        ops.equalize(view.reshape(-1))
        np.testing.assert_array_equal(view, expected)


def check_every_value(ours: Callable[[View], None], pillow: Callable[[Image.Image], Image.Image]) -> None:
    """Both on a view that holds every value in every channel."""
    view = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))
    expected = planar(pillow(to_pillow(view)))
    ours(view.reshape(-1))
    np.testing.assert_array_equal(view, expected)


def test_operations_on_values() -> None:
    check_every_value(ops.invert, ImageOps.invert)
    for bits in range(1, 9):
        check_every_value(partial(ops.posterize, bits=bits), partial(ImageOps.posterize, bits=bits))
    for threshold in range(257):
        check_every_value(partial(ops.solarize, threshold=threshold), partial(ImageOps.solarize, threshold=threshold))
    for factor in np.linspace(-0.5, 2.5, 61).tolist():
        check_every_value(
            partial(ops.brightness, factor=factor), lambda p, f=factor: ImageEnhance.Brightness(p).enhance(f)
        )


@pytest.mark.parametrize("add", [0, 1, 55, 110, 128, 200])
@pytest.mark.parametrize("threshold", [0, 100, 128, 256])
def test_solarize_add(add: int, threshold: int) -> None:
    table = [min(255, i + add) if i < threshold else i for i in range(256)]
    check_every_value(partial(ops.solarize_add, add=add, threshold=threshold), lambda p: p.point(table * 3))


def test_posterize_to_no_bits_is_black() -> None:
    check_every_value(partial(ops.posterize, bits=0), lambda p: p.point([0] * 768))
