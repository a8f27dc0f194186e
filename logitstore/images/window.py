"""A part of a JPEG, without decoding the rest of it; the same pixels as those of the whole.

- Where restart markers end each row of minimum coded units, and perhaps parts of a row too, a window needs nothing but
  the data between the markers around it: a smaller JPEG is put together of these (T.81, E.1.4: after a marker nothing
  depends on what stands before it). Packed images are such, see ``encode_for_windows``.
- Of other JPEGs coded in one scan, the rows below the window are left out: the header is given a smaller height.

What is left out is not looked at either, so that damage there goes unnoticed.
"""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image
from simplejpeg import decode_jpeg as decode_by_libjpeg

from logitstore.images.jpeg import Encoded, Frame, Pixels, decode_ordinary
from logitstore.jit import kernel

_EOI = b"\xff\xd9"
_MOST_UNITS = 4  # between restart markers: 64 pixels of width, and 2% of the bytes
# libjpeg's first warning where coded data are left when the height is reached, up to EOI or a restart marker.
_DATA_LEFT = re.compile(r".*\b[0-9]+ extraneous bytes before marker 0xd[0-79]")


def encode_for_windows(image: Image.Image, *, quality: int) -> bytes:
    """A JPEG with restart markers that let windows of it be decoded alone.

    Args:
        image: mode RGB; coded with 4:2:0 chroma, in units of 16 x 16 pixels.
        quality: libjpeg's, 1 to 100.
    """
    units = -(-image.width // 16)
    interval = max(count for count in range(1, _MOST_UNITS + 1) if units % count == 0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:2:0", restart_marker_blocks=interval)
    return file.getvalue()


def decode_window(
    data: Encoded, frame: Frame, left: int, top: int, width: int, height: int
) -> tuple[Pixels, int, int] | None:
    """A part of a JPEG that holds a box, and where the box is in it.

    Args:
        data: the file.
        frame: its headers.
        left, top, width, height: the box, inside the image, in pixels.

    Returns:
        Pixels, uint8 [h, w, 3], read-only, and the box's left and top in them; None where all of the image must be
        decoded, or Pillow must decide.
    """
    # A file that does not end well may be cut off, and then all of it is damaged.
    if not frame.unit_height or bytes(data[-2:]) != _EOI:
        return None
    # Where colours are halved, a pixel's are also made of its neighbour's.
    bottom, right = min(top + height + 1, frame.height), min(left + width + 1, frame.width)
    above, before = max(0, top - 1), max(0, left - 1)
    if frame.interval and frame.units % frame.interval == 0:
        part = _put_together(data, frame, above, bottom, before, right)
        if part is not None:
            short, above, before = part
            pixels = decode_ordinary(short)
            return None if pixels is None else (pixels, left - before, top - above)
    if -(-bottom // frame.unit_height) < frame.unit_rows:
        pixels = _decode_above(data, frame, bottom)
        return None if pixels is None else (pixels, left, top)
    return None


def _put_together(
    data: Encoded, frame: Frame, top: int, bottom: int, left: int, right: int
) -> tuple[memoryview, int, int] | None:
    """A JPEG of what stands between the restart markers around a box, and the top and left of what it shows."""
    step = frame.unit_width * frame.interval
    rows = range(top // frame.unit_height, -(-bottom // frame.unit_height))
    runs = range(left // step, -(-right // step))
    short = np.empty(len(data), np.uint8)
    end = _copy_runs(
        np.frombuffer(data, np.uint8),
        frame.data_at,
        frame.unit_rows,
        frame.units // frame.interval,
        rows.start,
        rows.stop,
        runs.start,
        runs.stop,
        short,
    )
    if end < 0:
        return None
    top, left = rows.start * frame.unit_height, runs.start * step
    height, width = bottom - top, min(runs.stop * step, frame.width) - left
    short[frame.size_at : frame.size_at + 4] = height >> 8, height & 255, width >> 8, width & 255
    return short[:end].data, top, left


@kernel
def _copy_runs(data, data_at, rows, runs, first_row, stop_row, first_run, stop_run, out):  # type: ignore[no-untyped-def]
    """Copies the headers and the wanted runs of coded data; gives the length, or -1 where a marker is odd.

    The image has ``rows`` rows of ``runs`` runs. Each run ends with a restart marker, which count modulo 8, and the
    image's last one with EOI (T.81, B.2.1).
    """
    out[:data_at] = data[:data_at]
    at = length = data_at
    copied = 0
    for number in range((stop_row - 1) * runs + stop_run):
        begin = at
        while at + 1 < len(data) and (data[at] != 0xFF or data[at + 1] == 0):
            at += 1
        if at + 1 >= len(data) or data[at + 1] != (0xD9 if number == rows * runs - 1 else 0xD0 + number % 8):
            return -1
        at += 2
        if number // runs >= first_row and first_run <= number % runs < stop_run:
            out[length : length + at - begin] = data[begin:at]
            length += at - begin
            out[length - 1] = 0xD0 + copied % 8
            copied += 1
    out[length - 1] = 0xD9
    return length


def _decode_above(data: Encoded, frame: Frame, height: int) -> Pixels | None:
    """The first rows; None unless the data that are left over are all that libjpeg warns of."""
    short = bytearray(data)
    short[frame.size_at : frame.size_at + 2] = height.to_bytes(2, "big")
    pixels: Pixels = np.empty((height, frame.width, 3), np.uint8)
    try:
        decode_by_libjpeg(short, "RGB", buffer=pixels)
    except ValueError as warning:  # raised when all is decoded
        if not _DATA_LEFT.match(str(warning)):
            return None
    pixels.flags.writeable = False
    return pixels
