"""Mixup and CutMix of neighbours in visit order.

Views 2i and 2i + 1 are mixed with each other under one draw, which both seeds decide together, so each is the other's
partner. With Mixup both become weighted means, the own view at weight ``own``. With CutMix they exchange one rectangle,
and ``own`` is the share of pixels that stayed: one minus the rectangle's real area after clipping at the border. An odd
last view stays as it is. Nothing depends on the batch: the two seeds and the two views decide.

Sources: Zhang et al. 2018 (Mixup); Yun et al. 2019 (CutMix).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ViewError
from logitstore.jit import kernel, wrapping
from logitstore.pcg import pair_seeds
from logitstore.views.spec import ViewSpec
from logitstore.views.stages import BOX, MIX, draw_beta, next_unit, start
from logitstore.views.tables import load_tables

U8 = NDArray[np.uint8]

_UNMIXED, _MIXUP, _CUTMIX = 0, 1, 2
_ONE = 65536.0  # a weight of Mixup in the fixed point of its pixels


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What mixing did to a batch; the partner of view i is view i ^ 1."""

    own_B: NDArray[np.float64]
    """Weight of each view's own sample in its target, 1.0 where it was not mixed."""


@dataclass(frozen=True, kw_only=True)
class PairMix:
    """The mixing of one pair, independent of the views' size."""

    cut: bool
    """CutMix rather than Mixup."""
    own: float
    """The Beta weight of the own view, in [0, 1]."""
    centre: tuple[float, float]
    """CutMix: vertical and horizontal centre of the rectangle, relative to the view."""


@kernel
def _draw_pair(seed, probability, switch, mixup, cutmix, log2_table, exp2_table):  # type: ignore[no-untyped-def]
    """Kind of mixing, own weight, vertical and horizontal centre."""
    state, inc = start(seed, MIX)
    state, whether = next_unit(state, inc)
    state, which = next_unit(state, inc)
    if whether >= probability:
        return _UNMIXED, 1.0, 0.0, 0.0
    cut = cutmix > 0.0 and (mixup == 0.0 or which < switch)
    state, own = draw_beta(state, inc, cutmix if cut else mixup, log2_table, exp2_table)
    state, inc = start(seed, BOX)
    state, vertical = next_unit(state, inc)
    state, horizontal = next_unit(state, inc)
    return _CUTMIX if cut else _MIXUP, own, vertical, horizontal


def draw_pair(spec: ViewSpec, pair_seed: int) -> PairMix | None:
    """How a pair is mixed, or None.

    Args:
        spec: its mixing fields decide.
        pair_seed: the pair's seed (``logitstore.pcg.pair_seeds``), in [0, 2**64).
    """
    if not spec.mixes:
        return None
    tables = load_tables()
    with wrapping():
        kind, own, vertical, horizontal = _draw_pair(
            np.uint64(pair_seed), spec.mix_prob, spec.mix_switch, spec.mixup, spec.cutmix, tables.log2, tables.exp2
        )
    if kind == _UNMIXED:
        return None
    return PairMix(cut=kind == _CUTMIX, own=float(own), centre=(float(vertical), float(horizontal)))


def cut_pixels(mix: PairMix, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of CutMix's rectangle in views of this size, clipped at the border."""
    side = math.sqrt(1.0 - mix.own)
    spans = []
    for centre, length in zip(mix.centre, (height, width), strict=True):
        middle, cut = math.floor(centre * length), math.floor(side * length)
        spans += [max(0, middle - cut // 2), min(length, middle + (cut + 1) // 2)]
    top, bottom, left, right = spans
    return top, bottom, left, right


@kernel
def _blend_pair(even, odd, weight):  # type: ignore[no-untyped-def]
    own, other, half = np.int32(weight), np.int32(65536 - weight), np.int32(32768)
    for i in range(even.size):
        a, b = np.int32(even[i]), np.int32(odd[i])
        even[i] = (own * a + other * b + half) >> np.int32(16)
        odd[i] = (own * b + other * a + half) >> np.int32(16)


@kernel
def _swap(even_3HW, odd_3HW, top, bottom, left, right):  # type: ignore[no-untyped-def]
    for c in range(3):
        for y in range(top, bottom):
            for x in range(left, right):
                even_3HW[c, y, x], odd_3HW[c, y, x] = odd_3HW[c, y, x], even_3HW[c, y, x]


def own_share(mix: PairMix, height: int, width: int) -> float:
    """Weight of the own sample in either's target, for views of this size."""
    if not mix.cut:
        return math.floor(mix.own * _ONE + 0.5) / _ONE
    top, bottom, left, right = cut_pixels(mix, height, width)
    return 1.0 - max(0, bottom - top) * max(0, right - left) / (height * width)


def mix_pair(views_2CHW: U8, mix: PairMix) -> float:
    """Mix two views with each other, in place; returns the weight of the own sample in either's target."""
    even, odd = views_2CHW
    height, width = even.shape[1:]
    own = own_share(mix, height, width)
    if mix.cut:
        _swap(even, odd, *cut_pixels(mix, height, width))
    else:
        _blend_pair(even.reshape(-1), odd.reshape(-1), int(own * _ONE))
    return own


def own_shares(spec: ViewSpec, seeds_B: NDArray[np.uint32]) -> NDArray[np.float64]:
    """What ``mix_batch`` would give as weights of the own samples in views of the spec's size, with no view at hand.

    Args:
        spec: its mixing fields decide.
        seeds_B: the views' seeds, beginning at an even position.
    """
    own_B = np.ones(len(seeds_B))
    if spec.mixes:
        pairs = len(seeds_B) // 2
        for i, seed in enumerate(pair_seeds(seeds_B[0 : 2 * pairs : 2], seeds_B[1 : 2 * pairs : 2]).tolist()):
            mix = draw_pair(spec, seed)
            if mix is not None:
                own_B[2 * i : 2 * i + 2] = own_share(mix, spec.size, spec.size)
    return own_B


def mix_batch(spec: ViewSpec, views_BCHW: U8, seeds_B: NDArray[np.uint32]) -> Mix:
    """Mix the pairs (0, 1), (2, 3), ... of a batch, in place.

    Args:
        spec: its mixing fields decide; without mixing nothing changes.
        views_BCHW: uint8 [B, 3, S, S], C-contiguous, starting at an even position.
        seeds_B: the views' seeds.

    Raises:
        ViewError: the arrays do not fit together.
    """
    count = len(views_BCHW)
    if views_BCHW.dtype != np.uint8 or views_BCHW.ndim != 4 or not views_BCHW.flags.c_contiguous:
        raise ViewError("Mixing needs C-contiguous uint8 views [B, 3, S, S].")
    if len(seeds_B) != count:
        raise ViewError(f"Mixing needs one seed for each view, got {len(seeds_B)} for {count} views.")
    own_B = np.ones(count)
    if spec.mixes:
        pairs = count // 2
        for i, seed in enumerate(pair_seeds(seeds_B[0 : 2 * pairs : 2], seeds_B[1 : 2 * pairs : 2]).tolist()):
            mix = draw_pair(spec, seed)
            if mix is not None:
                own_B[2 * i : 2 * i + 2] = mix_pair(views_BCHW[2 * i : 2 * i + 2], mix)
    return Mix(own_B=own_B)
