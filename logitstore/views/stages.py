"""Draws of the stages of one view, compiled. Which stages a view has, ``draw`` decides.

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

import numpy as np

from logitstore import pcg
from logitstore.jit import kernel
from logitstore.views.spec import OPERATIONS
from logitstore.views.tables import ONE, exp2, log2, normal_quantile

CROP, MIRROR, LAYERS, JITTER, ERASING, NOISE, MIX, BOX, CUSTOM = (np.uint64(stage) for stage in range(1, 10))

_ROTATE, _POSTERIZE, _SOLARIZE, _SOLARIZE_ADD, _COLOR, _SHARPNESS, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X = (
    OPERATIONS.index(name)
    for name in (
        "Rotate", "PosterizeIncreasing", "SolarizeIncreasing", "SolarizeAdd", "ColorIncreasing", "SharpnessIncreasing",
        "ShearX", "ShearY", "TranslateXRel",
    )
)  # fmt: skip

_ATTEMPTS = 10
_LOW32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ZERO = np.uint64(0)

_next = kernel(pcg.pcg32_next)
_init = kernel(pcg.pcg32_init)
_absorb = kernel(pcg.absorb)


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
