"""From a seed to the parameters of one view. No pixels here, and no size of the output: see ``render``.

Every stage draws from a PCG32 of its own, started from a hash of (stage, seed), so that switching one stage on or off
never moves another one's draws. Within a stage the order is fixed:

    crop      top, left, then per attempt (at most 10): area, aspect
    flip      one draw
    layers    per RandAugment layer: operation, applied or not, magnitude, sign
    jitter    order, brightness, contrast, saturation
    erasing   whether, top, left, then per attempt (at most 10): area, aspect
    noise     one draw for two values (``erase``)
    mix       whether, which, then Jöhnk's pairs until one is accepted; seeded by the pair (``mix``)
    box       vertical and horizontal centre of CutMix's rectangle
    custom    whatever a user's own transform asks for (``rng``)

Draws are 32 random bits: b / 2**32 where a number in [0, 1) is wanted, (b * n) >> 32 where one of n choices is.

Sources: crop as torchvision's RandomResizedCrop; operations and magnitudes as timm's ``rand-m9-mstd0.5-inc1``
(Cubuk et al. 2019); erasing, Zhong et al. 2017; Beta weights, Jöhnk 1964.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numba import config
from numpy.typing import NDArray

from logitstore import pcg
from logitstore.jit import kernel
from logitstore.views.plan import CODES, COUNT, FLIP, HEIGHT, LEFT, OPERANDS, TOP, WIDTH
from logitstore.views.spec import OPERATIONS, ViewSpec
from logitstore.views.tables import ONE, exp2, load_tables, log2, normal_quantile

CROP, MIRROR, LAYERS, JITTER, ERASING, NOISE, MIX, BOX, CUSTOM = (np.uint64(stage) for stage in range(1, 10))

_ROTATE, _POSTERIZE, _SOLARIZE, _SOLARIZE_ADD, _COLOR, _SHARPNESS, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X = (
    OPERATIONS.index(name)
    for name in (
        "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing", "SharpnessIncreasing",
        "ShearX", "ShearY", "TranslateXRel",
    )
)  # fmt: skip
_JITTER_ORDERS = tuple(permutations(range(3)))
_JITTERED = tuple(OPERATIONS.index(f"{name}Increasing") for name in ("Brightness", "Contrast", "Color"))
"""What brightness, contrast and saturation are as operations."""

_ATTEMPTS = 10
_LOW32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ZERO = np.uint64(0)

_next = kernel(pcg.pcg32_next)
_init = kernel(pcg.pcg32_init)
_absorb = kernel(pcg.absorb)


@dataclass(frozen=True, kw_only=True)
class ErasedBox:
    """One erased rectangle, relative to the view."""

    height: float
    """Height as a fraction of the view's, in (0, 1)."""
    width: float
    """Width as a fraction of the view's, in (0, 1)."""
    top: float
    """Where the rectangle stands between the highest (0) and the lowest (1) place it can have."""
    left: float
    """Where it stands between the leftmost (0) and the rightmost (1) place."""


@dataclass(frozen=True, kw_only=True)
class ViewParams:
    """All that a seed decides about one view, independent of the view's size."""

    crop: tuple[int, int, int, int]
    """Left, top, width, height of the crop, in pixels of the image."""
    flip: bool
    """Whether the crop is mirrored left to right."""
    operations: tuple[tuple[str, float], ...]
    """Operations in order of application with their argument: degrees, shear, fraction of the view's side to move by,
    bits kept, threshold, amount added or enhancement factor; 0 where there is none."""
    erased: ErasedBox | None
    """The rectangle overwritten with noise, if any."""


@kernel
def start(seed, stage):  # type: ignore[no-untyped-def]
    """The generator's start for one stage of one seed (below 2**64), both ``uint64``."""
    state = _absorb(_absorb(_absorb(_ZERO, stage), seed & _LOW32), seed >> _32)
    return _init(_absorb(state, _ZERO), stage)


@kernel
def next_bits(state, inc):  # type: ignore[no-untyped-def]
    """(next state, 32 random bits as int64)."""
    state, bits = _next(state, inc)
    return state, np.int64(bits)


@kernel
def next_unit(state, inc):  # type: ignore[no-untyped-def]
    """(next state, a float64 in [0, 1))."""
    state, bits = _next(state, inc)
    return state, np.int64(bits) / ONE


@kernel
def draw_crop(seed, height, width, area_low, area_high, log2_low, log2_high, exp2_table):  # type: ignore[no-untyped-def]
    """Left, top, width, height of a random crop; the largest central one when no attempt fits."""
    state, inc = start(seed, CROP)
    state, top = next_bits(state, inc)
    state, left = next_bits(state, inc)
    crop_height, crop_width = 0, 0
    for _ in range(_ATTEMPTS):
        state, unit = next_unit(state, inc)
        area = (area_low + (area_high - area_low) * unit) * (height * width)
        state, unit = next_unit(state, inc)
        aspect = exp2(log2_low + (log2_high - log2_low) * unit, exp2_table)
        crop_width = math.floor(math.sqrt(area * aspect) + 0.5)
        crop_height = math.floor(math.sqrt(area / aspect) + 0.5)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = (left * (width - crop_width + 1)) >> 32
            top = (top * (height - crop_height + 1)) >> 32
            return left, top, crop_width, crop_height
    least, greatest = exp2(log2_low, exp2_table), exp2(log2_high, exp2_table)
    crop_height, crop_width = height, width
    if width < height * least:
        crop_height = max(1, math.floor(width / least + 0.5))
    elif width > height * greatest:
        crop_width = max(1, math.floor(height * greatest + 0.5))
    return (width - crop_width) >> 1, (height - crop_height) >> 1, crop_width, crop_height


@kernel
def draw_flip(seed, probability):  # type: ignore[no-untyped-def]
    """Whether to flip."""
    state, inc = start(seed, MIRROR)
    state, unit = next_unit(state, inc)
    return unit < probability


@kernel
def draw_layers(seed, layers, choices, probability, magnitude, std, normal):  # type: ignore[no-untyped-def]
    """Per RandAugment layer the number of its operation (-1: not applied) and its signed level in [-1, 1]."""
    picks, levels = np.empty(layers, np.int64), np.empty(layers, np.float64)
    state, inc = start(seed, LAYERS)
    for layer in range(layers):
        state, bits = next_bits(state, inc)
        picks[layer] = (bits * choices) >> 32
        state, unit = next_unit(state, inc)
        if unit >= probability:
            picks[layer] = -1
        state, bits = next_bits(state, inc)
        level = min(10.0, max(0.0, magnitude + std * normal_quantile(bits, normal))) / 10.0
        state, bits = next_bits(state, inc)
        levels[layer] = -level if bits >> 31 else level
    return picks, levels


@kernel
def draw_jitter(seed, brightness, contrast, saturation):  # type: ignore[no-untyped-def]
    """Which of the six orders, and the three factors."""
    state, inc = start(seed, JITTER)
    state, bits = next_bits(state, inc)
    state, first = next_unit(state, inc)
    state, second = next_unit(state, inc)
    state, third = next_unit(state, inc)
    return (
        (bits * 6) >> 32,
        1.0 + brightness * (2.0 * first - 1.0),
        1.0 + contrast * (2.0 * second - 1.0),
        1.0 + saturation * (2.0 * third - 1.0),
    )


@kernel
def draw_erasing(seed, probability, area_low, area_high, log2_low, log2_high, exp2_table):  # type: ignore[no-untyped-def]
    """Relative height, width, top and left of the erased rectangle; height 0 when nothing is erased."""
    state, inc = start(seed, ERASING)
    state, whether = next_unit(state, inc)
    state, top = next_unit(state, inc)
    state, left = next_unit(state, inc)
    if whether < probability:
        for _ in range(_ATTEMPTS):
            state, unit = next_unit(state, inc)
            area = area_low + (area_high - area_low) * unit
            state, unit = next_unit(state, inc)
            aspect = exp2(log2_low + (log2_high - log2_low) * unit, exp2_table)
            height, width = math.sqrt(area * aspect), math.sqrt(area / aspect)
            if height < 1.0 and width < 1.0:
                return height, width, top, left
    return 0.0, 0.0, top, left


@kernel
def draw_beta(state, inc, alpha, log2_table, exp2_table):  # type: ignore[no-untyped-def]
    """(next state, a Beta(alpha, alpha) number in [0, 1]) by Jöhnk's rejection."""
    while True:
        state, bits = next_bits(state, inc)
        first = exp2(log2((bits + 1) / ONE, log2_table) / alpha, exp2_table)
        state, bits = next_bits(state, inc)
        second = exp2(log2((bits + 1) / ONE, log2_table) / alpha, exp2_table)
        if first + second <= 1.0:
            return state, first / (first + second)


@kernel
def operand(code, level):  # type: ignore[no-untyped-def]
    """Argument of the operation with this place in ``OPERATIONS``, from its signed level in [-1, 1]."""
    if code == _ROTATE:
        return level * 30.0
    if code == _POSTERIZE:
        return 4.0 - math.floor(abs(level) * 4.0)
    if code == _SOLARIZE:
        return 256.0 - math.floor(abs(level) * 256.0)
    if code == _SOLARIZE_ADD:
        return float(math.floor(abs(level) * 110.0))
    if _COLOR <= code <= _SHARPNESS:
        return max(0.1, 1.0 + level * 0.9)
    if _SHEAR_X <= code <= _SHEAR_Y:
        return level * 0.3
    if code >= _TRANSLATE_X:
        return level * 0.45
    return 0.0


@kernel
def draw_view(seed, height, width, field, codes, tables_4, plan, operands):  # type: ignore[no-untyped-def]
    """The parameters of one view into ``plan`` and ``operands``; see ``plan``.

    Args:
        seed: the view's seed, uint64.
        height: the image's height, in pixels.
        width: the image's width, in pixels.
        field: the spec's numbers, float64, in the order of ``Drawer``.
        codes: places in ``OPERATIONS`` of the operations to draw from, int64.
        tables_4: normal, log2, exp2 and sine, int64 [4, 4097].
        plan: int64, written.
        operands: float64, written.
    """
    normal, exp2_table = tables_4[0], tables_4[2]
    left, top, crop_width, crop_height = draw_crop(
        seed, height, width, field[0], field[1], field[2], field[3], exp2_table
    )
    plan[LEFT], plan[TOP], plan[WIDTH], plan[HEIGHT] = left, top, crop_width, crop_height
    plan[FLIP] = draw_flip(seed, field[4])
    count = 0
    if field[5] > 0.0:
        picks, levels = draw_layers(seed, int(field[5]), len(codes), field[6], field[7], field[8], normal)
        for layer in range(len(picks)):
            if picks[layer] >= 0:
                plan[CODES + count] = codes[picks[layer]]
                operands[OPERANDS + count] = operand(codes[picks[layer]], levels[layer])
                count += 1
    if field[9] != 0.0 or field[10] != 0.0 or field[11] != 0.0:
        order, first, second, third = draw_jitter(seed, field[9], field[10], field[11])
        factors = (first, second, third)
        for place in range(3):
            which = _JITTER_ORDERS[order][place]
            if field[9 + which] != 0.0:
                plan[CODES + count] = _JITTERED[which]
                operands[OPERANDS + count] = factors[which]
                count += 1
    plan[COUNT] = count
    operands[0] = 0.0
    if field[12] > 0.0:
        operands[0], operands[1], operands[2], operands[3] = draw_erasing(
            seed, field[12], field[13], field[14], field[15], field[16], exp2_table
        )


class Drawer:
    """Draws the parameters of views under one spec. Immutable, so that threads may share it.

    Args:
        spec: what may happen; its ``transform`` and its mixing are not drawn here.
    """

    def __init__(self, spec: ViewSpec) -> None:
        tables = load_tables()
        ratios = ([log2(value, tables.log2) for value in pair] for pair in (spec.ratio, spec.erasing_ratio))
        crop_log2, erasing_log2 = ratios
        layers = (spec.rand_augment_prob, spec.rand_augment_magnitude, spec.rand_augment_std)
        self._field = np.array([
            *spec.scale, *crop_log2, spec.hflip, spec.rand_augment_layers, *layers, *spec.color_jitter,
            spec.erasing_prob, *spec.erasing_area, *erasing_log2,
        ])  # fmt: skip
        self._codes = np.array([OPERATIONS.index(name) for name in spec.rand_augment_ops], np.int64)
        self._tables_4 = np.stack([tables.normal, tables.log2, tables.exp2, tables.sine])
        self._most = spec.rand_augment_layers + 3

    def plan(self, seed: int, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The parameters of one view as kernels take them: see ``plan``."""
        plan, operands = np.empty(CODES + self._most, np.int64), np.empty(OPERANDS + self._most)
        arguments = (np.uint64(seed), height, width, self._field, self._codes, self._tables_4, plan, operands)
        if config.DISABLE_JIT:
            with np.errstate(over="ignore"):  # numpy's scalars wrap around as PCG wants, but would warn
                draw_view(*arguments)
        else:
            draw_view(*arguments)
        return plan, operands

    def draw(self, seed: int, height: int, width: int) -> ViewParams:
        """The parameters of one view.

        Args:
            seed: the view's seed, in [0, 2**32).
            height: the image's height, in pixels.
            width: the image's width, in pixels.
        """
        plan, operands = (array.tolist() for array in self.plan(seed, height, width))
        names = [OPERATIONS[code] for code in plan[CODES : CODES + plan[COUNT]]]
        box_height, box_width, top, left = operands[:OPERANDS]
        return ViewParams(
            crop=(plan[LEFT], plan[TOP], plan[WIDTH], plan[HEIGHT]),
            flip=bool(plan[FLIP]),
            operations=tuple(zip(names, operands[OPERANDS:], strict=False)),
            erased=ErasedBox(height=box_height, width=box_width, top=top, left=left) if box_height else None,
        )
