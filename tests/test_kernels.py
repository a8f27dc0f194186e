"""Crop-resize, affine and evaluation view against Pillow: equal in every bit."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import affine, crop_resize
from kernel_images import KINDS, image, planar, to_pillow
from PIL import Image

from logitstore.errors import ViewError
from logitstore.views.centre import centre_view
from logitstore.views.resize import resize_window
from logitstore.views.turn import TILE_WORDS, turn

FILL = (124, 116, 104)
PILLOW_13 = int(PIL.__version__.split(".")[0]) >= 13


def pillow_resize(picture: Image.Image, columns: int, rows: int) -> Image.Image:
    """Pillow 13's ``resize``, as two passes of one axis each, which every release makes alike."""
    width, height = picture.size
    vertical_first = height - rows > max(2 * (width - columns), 0)
    between = (width, rows) if vertical_first else (columns, height)
    return picture.resize(between, Image.Resampling.BICUBIC).resize((columns, rows), Image.Resampling.BICUBIC)


def pillow_crop_resize(
    pixels: np.ndarray, x: int, y: int, width: int, height: int, columns: int, rows: int, flip: bool
) -> np.ndarray:
    crop = Image.fromarray(pixels).crop((x, y, x + width, y + height))
    resized = pillow_resize(crop, columns, rows)
    if PILLOW_13:
        assert resized.tobytes() == crop.resize((columns, rows), Image.Resampling.BICUBIC).tobytes()
    return planar(resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else resized)


def check_crop_resize(
    pixels: np.ndarray, x: int, y: int, width: int, height: int, columns: int, rows: int, flip: bool
) -> None:
    out = np.full((3, rows, columns), 77, np.uint8)
    crop_resize(pixels, x, y, width, height, flip, out)
    np.testing.assert_array_equal(out, pillow_crop_resize(pixels, x, y, width, height, columns, rows, flip))


@st.composite
def crops(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, int]:
    height, width = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    pixels = image(draw(st.sampled_from(KINDS)), height, width, draw(st.integers(0, 999)))
    w, h = draw(st.integers(1, width)), draw(st.integers(1, height))
    return pixels, draw(st.integers(0, width - w)), draw(st.integers(0, height - h)), w, h


@settings(max_examples=400, deadline=None, derandomize=True)
@given(crops(), st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_crop_resize_equals_pillow(
    crop: tuple[np.ndarray, int, int, int, int], columns: int, rows: int, flip: bool
) -> None:
    check_crop_resize(*crop, columns, rows, flip)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(375, 500, 224), (500, 333, 224), (700, 150, 224), (150, 900, 224), (900, 1300, 224), (9, 7, 256), (30, 30, 192)],
)
def test_crop_resize_of_photograph_sizes(height: int, width: int, size: int) -> None:
    pixels = image("jpeg", height, width, 1)
    draw = np.random.default_rng(height)
    for trial in range(3):
        w, h = int(draw.integers(1, width + 1)), int(draw.integers(1, height + 1))
        x, y = int(draw.integers(0, width - w + 1)), int(draw.integers(0, height - h + 1))
        check_crop_resize(pixels, x, y, w, h, size, size, bool(trial % 2))
    check_crop_resize(pixels, 0, 0, width, height, size, size, False)


def test_crop_resize_one_pixel_sources_and_outputs() -> None:
    pixels = image("noise", 9, 7, 0)
    for w, h, columns, rows in [(1, 1, 5, 4), (1, 9, 3, 3), (7, 1, 3, 3), (7, 9, 1, 1), (1, 1, 1, 1), (7, 9, 7, 9)]:
        check_crop_resize(pixels, 0, 0, w, h, columns, rows, True)


def test_crop_resize_accepts_read_only_pixels_and_slices_of_batches() -> None:
    pixels = image("noise", 30, 40, 3)
    pixels.flags.writeable = False
    batch = np.zeros((2, 3, 16, 16), np.uint8)
    crop_resize(pixels, np.int64(3), np.int32(2), 25, 20, True, batch[1])
    np.testing.assert_array_equal(batch[1], pillow_crop_resize(pixels, 3, 2, 25, 20, 16, 16, True))
    assert not batch[0].any()


def test_crop_resize_reuses_larger_buffers() -> None:
    for height, width, size in [(300, 260, 64), (9, 8, 5), (60, 200, 17), (3, 3, 40)]:
        check_crop_resize(image("noise", height, width, size), 0, 0, width, height, size, size, False)


def test_threads_do_not_share_buffers() -> None:
    pixels = image("noise", 90, 120, 2)
    sizes = [11, 64, 33, 48] * 10

    def resized(size: int) -> np.ndarray:
        out = np.empty((3, size, size), np.uint8)
        crop_resize(pixels, 5, 5, 100, 80, False, out)
        turned = np.empty_like(out)
        affine(out, turned, rotation(20.0, size, size), FILL)
        return turned

    alone = [resized(size) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(alone, pool.map(resized, sizes), strict=True):
            np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 60), st.integers(1, 60), st.data())
def test_window_of_a_resize(height: int, width: int, columns: int, rows: int, data: st.DataObject) -> None:
    pixels = image("noise", height, width, 5)
    x, y = data.draw(st.integers(0, columns - 1)), data.draw(st.integers(0, rows - 1))
    w, h = data.draw(st.integers(1, columns - x)), data.draw(st.integers(1, rows - y))
    out = np.zeros((3, h, w), np.uint8)
    resize_window(pixels, (0, 0, width, height), (columns, rows), (x, y), False, out)
    whole = planar(pillow_resize(Image.fromarray(pixels), columns, rows))
    np.testing.assert_array_equal(out, whole[:, y : y + h, x : x + w])


@pytest.mark.parametrize(("rows", "columns"), [(1, 8), (7, 9), (8, 64), (63, 13), (64, 200), (65, 71), (130, 30)])
def test_turn_is_a_transposition(rows: int, columns: int) -> None:
    pitch, begin = columns + 5, 3
    source = np.random.default_rng(rows).integers(0, 256, (rows * pitch + begin - 5,), np.uint8)
    words = -(-rows // 64) * 8
    turned, tile = np.zeros(1 + columns * words, np.uint64), np.empty(TILE_WORDS, np.uint64)
    turn(source, *(np.uint64(n) for n in (begin, pitch, rows, columns)), tile, turned, np.uint64(1), np.uint64(words))
    expected = np.lib.stride_tricks.as_strided(source[begin:], (rows, columns), (pitch, 1)).T
    np.testing.assert_array_equal(turned[1:].view(np.uint8).reshape(columns, 8 * words)[:, :rows], expected)
    assert turned[0] == 0


def check_affine(view: np.ndarray, matrix: tuple[float, ...], shape: tuple[int, int] | None = None) -> None:
    rows, columns = shape or view.shape[1:]
    out = np.full((3, rows, columns), 77, np.uint8)
    affine(view, out, matrix, FILL)
    affine_transform, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    expected = to_pillow(view).transform((columns, rows), affine_transform, matrix, bicubic, fillcolor=FILL)
    np.testing.assert_array_equal(out, planar(expected))


def rotation(degrees: float, width: int, height: int) -> tuple[float, ...]:
    """The matrix of Pillow's ``rotate``: about the middle, rounded to 15 digits."""
    angle = -math.radians(degrees)
    a, b = round(math.cos(angle), 15), round(math.sin(angle), 15)
    d, e = round(-math.sin(angle), 15), round(math.cos(angle), 15)
    x, y = width / 2, height / 2
    return a, b, a * -x + b * -y + x, d, e, d * -x + e * -y + y


MATRICES: dict[str, Callable[[np.random.Generator, int], tuple[float, ...]]] = {
    "shear_x": lambda draw, size: (1, draw.uniform(-0.3, 0.3), 0, 0, 1, 0),
    "shear_y": lambda draw, size: (1, 0, 0, draw.uniform(-0.3, 0.3), 1, 0),
    "translate_x": lambda draw, size: (1, 0, draw.uniform(-0.6, 0.6) * size, 0, 1, 0),
    "translate_y": lambda draw, size: (1, 0, 0, 0, 1, draw.uniform(-0.6, 0.6) * size),
    "whole_pixels": lambda draw, size: (1, 0, int(draw.integers(-3, 4)), 0, 1, int(draw.integers(-3, 4))),
    "half_pixels": lambda draw, size: (1, 0, 0.5, 0, 1, -1.5),
    "rotate": lambda draw, size: rotation(draw.uniform(-30, 30), size, size),
    "quarter_turn": lambda draw, size: rotation(90.0, size, size),
    "mirror": lambda draw, size: (-1, 0, size, 0, 1, 0),
    "general": lambda draw, size: tuple(draw.normal(size=6) * [1, 1, size / 2, 1, 1, size / 2]),
    "far_outside": lambda draw, size: (1, 0, 1e12, 0, 1, -1e300),
    "collapsed": lambda draw, size: (0, 0, size / 3, 0, 0, size / 2),
}


@pytest.mark.parametrize("name", MATRICES)
def test_affine_equals_pillow(name: str) -> None:
    draw = np.random.default_rng(len(name))
    for trial in range(60):
        height, width = (int(n) for n in draw.integers(1, 65, 2))
        view = planar(Image.fromarray(image(KINDS[trial % len(KINDS)], height, width, trial)))
        check_affine(view, MATRICES[name](draw, width))
    check_affine(planar(Image.fromarray(image("jpeg", 224, 224, 3))), MATRICES[name](draw, 224))


def test_affine_equals_pillows_rotate() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 2, 3, 17, 64):
        view = planar(Image.fromarray(image("noise", size, size, size)))
        for degrees in draw.uniform(-30, 30, 10):
            out = np.empty_like(view)
            affine(view, out, rotation(degrees, size, size), FILL)
            rotated = to_pillow(view).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=FILL)
            np.testing.assert_array_equal(out, planar(rotated))


def test_affine_to_another_size() -> None:
    view = planar(Image.fromarray(image("noise", 20, 30, 0)))
    check_affine(view, (0.7, 0.1, 2.0, -0.1, 0.6, 1.0), (41, 13))


@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0, 0.5])
def test_centre_view_equals_resize_and_centre_crop(crop_pct: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transforms = pytest.importorskip("torchvision.transforms")
    draw = np.random.default_rng(1)
    sizes = [(1, 1), (5, 64), (33, 32), *(tuple(int(n) for n in draw.integers(1, 90, 2)) for _ in range(40))]
    for height, width in sizes:
        size = int(draw.integers(1, 48))
        pixels = image("noise", height, width, height)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            short = math.floor(size / crop_pct)
            resize = transforms.Resize(short, interpolation=transforms.InterpolationMode.BICUBIC)
            expected = transforms.CenterCrop(size)(resize(Image.fromarray(pixels)))
        if PILLOW_13:
            np.testing.assert_array_equal(centre_view(pixels, size, crop_pct), planar(expected))


def test_centre_view_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ViewError, match="crop_pct"):
        centre_view(image("noise", 8, 8, 0), 4, 1.5)
    with pytest.raises(ViewError, match="size"):
        centre_view(image("noise", 8, 8, 0), 0)
