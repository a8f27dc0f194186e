"""The evaluation view: short side resized, centre cut out. No randomness."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ViewError
from logitstore.views.resize import resize_window

U8 = NDArray[np.uint8]


def centre_view(pixels_HWC: U8, size: int, crop_pct: float = 0.875) -> U8:
    """The view that accuracy is measured on.

    The short side is resized by antialiased bicubic to ``floor(size / crop_pct)`` pixels, the long side in proportion,
    and the centre is cut out: equal to torchvision's ``Resize`` and ``CenterCrop`` on a Pillow image.

    Args:
        pixels_HWC: uint8 [H, W, 3].
        size: height and width of the view, in pixels.
        crop_pct: share of the resized short side that is kept, above 0, at most 1.

    Returns:
        uint8 [3, size, size].

    Raises:
        ViewError: ``crop_pct`` or ``size`` is out of range.
    """
    if not 0.0 < crop_pct <= 1.0 or size < 1:
        raise ViewError(f"An evaluation view needs 0 < crop_pct <= 1 and size >= 1, got {crop_pct} and {size}.")
    height, width = pixels_HWC.shape[:2]
    short = math.floor(size / crop_pct)
    if width <= height:
        columns, rows = short, int(short * height / width)
    else:
        columns, rows = int(short * width / height), short
    corner = (round((columns - size) / 2.0), round((rows - size) / 2.0))
    view = np.empty((3, size, size), np.uint8)
    resize_window(pixels_HWC, (0, 0, width, height), (columns, rows), corner, False, view)
    return view
