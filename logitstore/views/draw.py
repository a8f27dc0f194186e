"""From a seed to the parameters of one view. No pixels here, and no size of the output: see ``render``.

What each stage draws, and in which order, stands in ``stages``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel, wrapping
from logitstore.views.plan import CODES, COUNT, FLIP, HEIGHT, LEFT, OPERANDS, TOP, WIDTH
from logitstore.views.spec import OPERATIONS, ViewSpec
from logitstore.views.stages import draw_crop, draw_erasing, draw_flip, draw_jitter, draw_layers, operand
from logitstore.views.tables import load_tables, log2

_JITTER_ORDERS = tuple(permutations(range(3)))
_JITTERED = tuple(OPERATIONS.index(f"{name}Increasing") for name in ("Brightness", "Contrast", "Color"))
"""What brightness, contrast and saturation are as operations."""


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
        with wrapping():
            draw_view(np.uint64(seed), height, width, self._field, self._codes, self._tables_4, plan, operands)
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
