"""The kernels without the JIT, on both CPU-independent paths: the same bytes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from helpers import printed_without_jit
from kernel_calls import affine, crop_resize
from kernel_images import image

from logitstore.views import ops
from logitstore.views.centre import centre_view


def checksums() -> dict[str, int]:
    """CRCs of every kernel's output on tiny images."""
    sums: dict[str, int] = {}

    def note(name: str, view: np.ndarray) -> None:
        sums[f"{name} {len(sums)}"] = zlib.crc32(view.tobytes())

    for kind, height, width, rows, columns in [
        ("noise", 9, 11, 8, 7), ("jpeg", 24, 10, 6, 9), ("binary", 12, 20, 5, 4), ("noise", 1, 1, 3, 3),
    ]:  # fmt: skip
        pixels = image(kind, height, width, 0)
        view = np.empty((3, rows, columns), np.uint8)
        crop_resize(pixels, 0, 0, width, height, True, view)
        note("crop_resize", view)
        note("centre_view", centre_view(pixels, 5))
        out = np.empty_like(view)
        for matrix in [
            (1, 0.2, 0, 0, 1, 0), (1, 0, 0, -0.3, 1, 0), (0.9, 0.2, 0.3, -0.2, 0.9, 1.0), (1, 0, 1e9, 0, 1, 0),
        ]:  # fmt: skip
            affine(view, out, matrix, (124, 116, 104))
            note("affine", out)
        for factor in (0.0, 0.4, 1.7):
            ops.sharpness(view.reshape(-1), out.reshape(-1), *view.shape[1:], factor)
            note("sharpness", out)
        operations: dict[str, Callable[[np.ndarray], None]] = {
            "autocontrast": ops.autocontrast,
            "equalize": ops.equalize,
            "invert": ops.invert,
            "posterize": lambda flat: ops.posterize(flat, 2),
            "solarize": lambda flat: ops.solarize(flat, 99),
            "solarize_add": lambda flat: ops.solarize_add(flat, 60, 128),
        }
        for factor in (0.0, 0.4, 1.7):
            for blend in (ops.brightness, ops.contrast, ops.color):
                operations[f"{blend.__name__} {factor}"] = partial(blend, factor=factor)
        for name, operation in operations.items():
            changed = view.copy()
            operation(changed.reshape(-1))
            note(name, changed)
    return sums


def test_kernels_are_the_same_without_the_jit() -> None:
    assert printed_without_jit(__file__) == checksums()


if __name__ == "__main__":
    print(json.dumps(checksums()))
