"""The kernels without the JIT, on both CPU-independent paths: the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from kernel_images import image

from logitstore.views import ops
from logitstore.views.affine import affine
from logitstore.views.centre import centre_view
from logitstore.views.resize import crop_resize


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
            ops.sharpness(view, out, factor)
            note("sharpness", out)
            for operation in (ops.brightness, ops.contrast, ops.color):
                changed = view.copy()
                operation(changed, factor)
                note(operation.__name__, changed)
        for operation in (ops.autocontrast, ops.equalize):
            changed = view.copy()
            operation(changed)
            note(operation.__name__, changed)
        for lut in (ops.invert_lut(), ops.posterize_lut(2), ops.solarize_lut(99), ops.solarize_add_lut(60)):
            changed = view.copy()
            ops.apply_lut(changed, lut)
            note("lut", changed)
    return sums


def test_kernels_are_the_same_without_the_jit() -> None:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-W", "error::RuntimeWarning", str(Path(__file__))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == checksums()


if __name__ == "__main__":
    print(json.dumps(checksums()))
