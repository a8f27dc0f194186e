"""Images for the tests of pixel kernels, made on the spot; not a test module."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

KINDS = ("noise", "gradient", "constant", "jpeg", "grey", "binary")


def image(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """A uint8 [H, W, 3] image of the given kind."""
    draw = np.random.default_rng([seed, height, width])
    if kind == "noise":
        return draw.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "constant":
        return np.broadcast_to(draw.integers(0, 256, 3, np.uint8), (height, width, 3)).copy()
    if kind == "grey":
        return np.repeat(draw.integers(0, 256, (height, width, 1), np.uint8), 3, axis=2)
    if kind == "binary":
        return draw.integers(0, 2, (height, width, 3), np.uint8) * np.uint8(255)
    rows, columns = np.mgrid[:height, :width]
    slopes = draw.uniform(-8, 8, (3, 2))
    smooth = rows[..., None] * slopes[:, 0] + columns[..., None] * slopes[:, 1] + draw.uniform(0, 255, 3)
    pixels = np.abs(smooth % 510 - 255).astype(np.uint8)
    if kind == "gradient":
        return pixels
    noisy = np.clip(pixels + draw.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=int(draw.integers(30, 96)))
    return np.array(Image.open(file))


def planar(picture: Image.Image) -> np.ndarray:
    """A Pillow image as a contiguous uint8 [3, H, W] array."""
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def to_pillow(view_3HW: np.ndarray) -> Image.Image:
    """The Pillow image of a planar view."""
    return Image.fromarray(np.ascontiguousarray(view_3HW.transpose(1, 2, 0)))
