"""Kernels called one at a time, on arrays of any size, for the tests; not a test module."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from logitstore.views.affine import affine_words, transform
from logitstore.views.resize import resize_window


def crop_resize(pixels: np.ndarray, x0: int, y0: int, width: int, height: int, flip: bool, out: np.ndarray) -> None:
    """Crop, resize to the output's size, mirror when asked."""
    resize_window(pixels, (x0, y0, width, height), out.shape[:0:-1], (0, 0), flip, out)


def affine(view: np.ndarray, out: np.ndarray, matrix: Sequence[float], fill: Sequence[int]) -> None:
    """An affine transform of [3, H, W]."""
    sizes, shape = (tuple(map(np.uint64, array.shape[1:])) for array in (view, out))
    arena = np.empty(affine_words(*view.shape[1:], *out.shape[1:]), np.uint64)
    numbers, colour = tuple(map(float, matrix)), np.array(fill, np.uint8)
    with np.errstate(over="ignore"):  # numpy's scalars, where the JIT is off
        transform(view.reshape(-1), *sizes, numbers, colour, out.reshape(-1), *shape, arena)
