"""JPEGs of every kind that ordinary files are, made of one picture."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import encode_jpeg

from logitstore.images.window import encode_for_windows
from tests.helpers import picture

HEIGHT, WIDTH = 75, 110


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def upright() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 1
    return exif


@cache
def sequential() -> dict[str, bytes]:
    """Those coded in one scan, from top to bottom."""
    rgb = picture(HEIGHT, WIDTH)
    image = Image.fromarray(rgb)
    return {
        "4:2:0": saved(image),
        "4:2:2": saved(image, subsampling="4:2:2"),
        "4:4:4": saved(image, subsampling="4:4:4"),
        "4:4:0": encode_jpeg(rgb, colorsubsampling="440"),
        "4:1:1": encode_jpeg(rgb, colorsubsampling="411"),
        "grey": saved(image.convert("L")),
        "RGB": saved(image, subsampling=0, keep_rgb=True),
        "optimized": saved(image, quality=98, optimize=True),
        "coarse": saved(image, quality=3),
        "exif": saved(image, exif=upright(), comment="a comment", icc_profile=b"profile" * 20_000),
        "odd intervals": saved(image, restart_marker_blocks=5),
    }


@cache
def in_runs() -> dict[str, bytes]:
    """Those with restart markers in the same places of each row."""
    image = Image.fromarray(picture(HEIGHT, WIDTH))
    return {
        "units": saved(image, restart_marker_blocks=1),
        "rows": saved(image, restart_marker_rows=1),
        "rows of grey": saved(image.convert("L"), restart_marker_rows=1),
        "halves of 4:4:4": saved(image, subsampling=0, restart_marker_blocks=7),
        "4:2:2": saved(image, subsampling="4:2:2", restart_marker_rows=1),
        "windows": encode_for_windows(image, quality=90),
    }


@cache
def progressive() -> dict[str, bytes]:
    """Those coded in several scans."""
    image = Image.fromarray(picture(HEIGHT, WIDTH))
    return {
        "progressive": saved(image, progressive=True),
        "progressive with runs": saved(image, progressive=True, restart_marker_rows=1),
    }


def ordinary() -> dict[str, bytes]:
    return {**sequential(), **{f"runs of {name}": data for name, data in in_runs().items()}, **progressive()}
