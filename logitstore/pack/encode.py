"""From an image to the JPEG that is packed.

An image whose short side is longer than asked for is scaled down, by antialiased bicubic, the long side in proportion;
none is ever scaled up. A JPEG file that need not be scaled is packed byte for byte, so it loses nothing. Everything
else is encoded with restart markers (see ``images.window``), so that a reader can decode a part of it alone.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from logitstore.images.base import Pixels
from logitstore.images.window import encode_for_windows
from logitstore.views.resize import resize_window

JPEG_HEAD = b"\xff\xd8\xff"
_MOST_PIXELS = 65500  # libjpeg's limit to a side


def packed_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width of a packed image, in pixels; the same as it came where it is small enough."""
    short = min(height, width)
    if short <= short_side:
        return height, width
    return int(short_side * height / short), int(short_side * width / short)


def encode(pixels_HWC: Pixels, *, short_side: int, quality: int) -> tuple[bytes, int, int]:
    """An image as a JPEG: its bytes, height and width.

    Args:
        pixels_HWC: uint8 [H, W, 3].
        short_side: see ``packed_size``.
        quality: 1 to 100.

    Raises:
        ValueError: the image is longer than a JPEG can be.
    """
    height, width = packed_size(pixels_HWC.shape[0], pixels_HWC.shape[1], short_side)
    if max(height, width) > _MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than a JPEG can hold")
    scaled = pixels_HWC if (height, width) == pixels_HWC.shape[:2] else _scaled(pixels_HWC, height, width)
    return encode_for_windows(Image.fromarray(scaled), quality=quality), height, width


def _scaled(pixels_HWC: Pixels, height: int, width: int) -> Pixels:
    """The image in another size: the pixels of Pillow's bicubic filter, in a third of its time."""
    scaled_3HW = np.empty((3, height, width), np.uint8)
    whole = (0, 0, pixels_HWC.shape[1], pixels_HWC.shape[0])
    resize_window(pixels_HWC, whole, (width, height), (0, 0), False, scaled_3HW)
    return np.ascontiguousarray(scaled_3HW.transpose(1, 2, 0))
