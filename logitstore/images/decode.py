"""From the bytes of an image file to RGB pixels, by rules that do not depend on the machine.

- The first frame counts. Exif's orientation is applied; colour profiles are not.
- Greyscale is repeated three times, palettes are looked up, CMYK and other colour models go through Pillow's
  ``convert("RGB")``; transparency is dropped, so the colours below it show.
- 16-bit values keep their high byte. Pillow itself does that for 16-bit RGB.
- Floating-point images have no defined range and do not decode.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logitstore.images.base import Pixels
from logitstore.images.exif import orientation
from logitstore.images.jpeg import Encoded, decode_jpeg

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # JPEG includes MPO
SUFFIXES = frozenset([".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: Encoded) -> Pixels:
    """Pixels of an image file: uint8 [H, W, 3], C-contiguous, read-only.

    Raises:
        Exception: whatever Pillow raises; the caller knows the file's name and raises ``DecodeError`` from it.
    """
    pixels = decode_jpeg(data)
    return _decode_by_pillow(data) if pixels is None else pixels


def _decode_by_pillow(data: Encoded) -> Pixels:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        return upright_rgb(opened)


def upright_rgb(opened: Image.Image) -> Pixels:
    """Pixels of an image that Pillow has opened: uint8 [H, W, 3], read-only.

    Raises:
        Exception: whatever Pillow raises.
    """
    opened.load()
    # Pillow itself turns TIFFs; it leaves the block in ``info`` of the other formats.
    turn = None if opened.format == "TIFF" else _ORIENTATIONS.get(orientation(opened.info.get("exif")))
    return _rgb(opened if turn is None else opened.transpose(turn))


def _rgb(image: Image.Image) -> Pixels:
    if image.mode == "RGB":
        return np.asarray(image)  # no second copy, therefore read-only
    if image.mode.startswith("I"):  # 16-bit grey; older Pillow calls it "I" and gives 32-bit integers
        high_HW = (np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8)
        return repeat_grey(high_HW)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # straight to RGB, Pillow warns of transparency that it drops
    return np.asarray(image.convert("RGB"))


def repeat_grey(grey_HW: NDArray[np.uint8]) -> Pixels:
    """Grey as RGB: uint8 [H, W] -> [H, W, 3], read-only."""
    pixels = np.repeat(grey_HW[:, :, None], 3, axis=2)
    pixels.flags.writeable = False
    return pixels


def ends_well(head: bytes, tail: bytes, size: int) -> bool:
    """Whether header and trailer alone show a whole file; False means that only decoding can tell.

    Args:
        head: the first 16 bytes or more.
        tail: the last 64 bytes or more, or the whole file if it is shorter.
        size: of the file, in bytes.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return tail.rstrip(b"\0\r\n ").endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return tail.endswith(b"\0\0\0\0IEND\xaeB`\x82")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    return head.startswith((b"GIF87a", b"GIF89a")) and tail.endswith(b"\x3b")
