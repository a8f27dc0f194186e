"""The whole chain against a twin in Pillow that is handed the drawn parameters: equal, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from logitstore import pcg
from logitstore.views import OPERATIONS, Renderer, ViewSpec, view_spec
from logitstore.views.draw import ViewParams
from logitstore.views.erase import box_pixels, noise_tables
from logitstore.views.paint import operation_matrix
from logitstore.views.stages import NOISE, start
from logitstore.views.tables import load_tables
from tests.view_cases import IMAGE_NAMES, decoded, recipes, single

MASK = (1 << 64) - 1
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def affine_matrix(name: str, argument: float, size: int) -> tuple[float, ...]:
    """Where each output pixel comes from, as Pillow's ``Image.transform`` takes it."""
    return operation_matrix(OPERATIONS.index(name), float(argument), float(size), load_tables().sine)


def operated(image: Image.Image, name: str, argument: float, fill: tuple[int, ...]) -> Image.Image:
    """One operation in Pillow."""
    if name in GEOMETRIC:
        matrix = affine_matrix(name, argument, image.width)
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)
    enhancers = {
        "ColorIncreasing": ImageEnhance.Color,
        "ContrastIncreasing": ImageEnhance.Contrast,
        "BrightnessIncreasing": ImageEnhance.Brightness,
        "SharpnessIncreasing": ImageEnhance.Sharpness,
    }
    if name in enhancers:
        return enhancers[name](image).enhance(argument)
    if name == "PosterizeIncreasing":  # no bits: black, which Pillow 13 refuses to make
        return ImageOps.posterize(image, int(argument)) if argument else image.point([0] * 768)
    if name == "SolarizeIncreasing":
        return ImageOps.solarize(image, int(argument))
    if name == "SolarizeAdd":
        return image.point([min(255, v + int(argument)) if v < 128 else v for v in range(256)] * 3)
    plain = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}
    return plain[name](image)


def noise_bits(seed: int, count: int) -> list[int]:
    """The noise stream in Python's integers."""
    state, inc = (int(word) for word in start(np.uint64(seed), NOISE))
    bits = []
    for _ in range(count):
        shifted = (((state >> 18) ^ state) >> 27) & 0xFFFFFFFF
        rotation = state >> 59
        bits.append((shifted >> rotation | shifted << (-rotation & 31)) & 0xFFFFFFFF)
        state = (state * int(pcg.MULTIPLIER) + inc) & MASK
    return bits


def pillow_view(pixels: NDArray[np.uint8], params: ViewParams, spec: ViewSpec, seed: int) -> NDArray[np.uint8]:
    """The view [3, S, S] by Pillow."""
    x, y, width, height = params.crop
    image = Image.fromarray(pixels).crop((x, y, x + width, y + height))
    image = image.resize((spec.size, spec.size), Image.Resampling.BICUBIC)
    if params.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for name, argument in params.operations:
        image = operated(image, name, argument, spec.fill)
    view = np.asarray(image).transpose(2, 0, 1).copy()
    if params.erased is not None:
        box = params.erased
        top, left, height, width = box_pixels(box.height, box.width, box.top, box.left, spec.size)
        bits = noise_bits(seed, (3 * height * width + 1) // 2)
        levels = np.array([(b >> 20, b >> 4 & 0xFFF) for b in bits]).ravel()[: 3 * height * width]
        tables = noise_tables(spec.noise_mean, spec.noise_std)
        for channel, chosen in enumerate(levels.reshape(3, height, width)):
            view[channel, top : top + height, left : left + width] = tables[channel][chosen]
    return view


@pytest.mark.parametrize("name", recipes(40))
@pytest.mark.parametrize("size", [31, 64])
def test_chain_equals_pillow(name: str, size: int) -> None:
    spec = recipes(size)[name]
    renderer = Renderer(spec)
    for seed in range(60):
        pixels = decoded(IMAGE_NAMES[seed % 6])
        params = renderer.params(*pixels.shape[:2], seed)
        np.testing.assert_array_equal(
            renderer.render(pixels, seed), pillow_view(pixels, params, spec, seed), f"seed {seed}: {params}"
        )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_equals_pillow(operation: str) -> None:
    spec = single(operation, 56)
    renderer = Renderer(spec)
    for seed in range(20):
        pixels = decoded(IMAGE_NAMES[seed % 6])
        params = renderer.params(*pixels.shape[:2], seed)
        assert [name for name, _ in params.operations] == [operation]
        np.testing.assert_array_equal(renderer.render(pixels, seed), pillow_view(pixels, params, spec, seed))


def test_full_size_equals_pillow() -> None:
    spec = view_spec("tinyvit", size=224)
    renderer = Renderer(spec)
    for seed in range(12):
        pixels = np.tile(decoded("photo.jpg"), (4, 5, 1))
        params = renderer.params(*pixels.shape[:2], seed)
        np.testing.assert_array_equal(renderer.render(pixels, seed), pillow_view(pixels, params, spec, seed))


@pytest.mark.parametrize("degrees", [-30.0, -12.5, 0.0, 0.1, 17.0, 30.0])
@pytest.mark.parametrize("size", [33, 224])
def test_rotation_is_pillows_but_for_the_sine_table(degrees: float, size: int) -> None:
    """Pillow's sine is libm's; the table's differs by less than 1e-7, so that truncation may go the other way."""
    image = Image.fromarray(decoded("photo.jpg")).resize((size, size))
    rotated = np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(1, 2, 3)), int)
    matrix = affine_matrix("Rotate", degrees, size)
    ours = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=(1, 2, 3))
    differing = np.abs(np.asarray(ours, int) - rotated)
    assert differing.max() <= 1
    assert (differing > 0).mean() < 1e-3
