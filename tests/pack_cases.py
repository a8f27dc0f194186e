"""Data sets to pack, and what packing them must leave."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from helpers import picture
from numpy.typing import NDArray
from PIL import Image

from logitstore.images import open_images
from logitstore.images.packed import PackedImages
from logitstore.pack import PackConfig, PackResult, pack


def jpeg(picture: NDArray[np.uint8] | Image.Image, **options: Any) -> bytes:
    """A JPEG file."""
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, "JPEG", **{"quality": 95, **options})
    return file.getvalue()


def write_pictures(folder: Path, count: int = 12, *, size: tuple[int, int] = (120, 160), start: int = 0) -> None:
    """JPEG files in three class folders: c0/0.jpg, c1/1.jpg, ..."""
    for i in range(start, start + count):
        path = folder / f"c{i % 3}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(picture(*size, i)))


def packed(data: object, out: Path, **options: Any) -> PackResult:
    """Pack with a short side of 64 and two threads, unless ``options`` say otherwise."""
    return pack(PackConfig(**{"data": str(data), "out": str(out), "short_side": 64, "workers": 2, **options}))


def opened(out: Path, split: str = "train") -> PackedImages:
    """What was packed."""
    images = open_images(str(out), split=split)
    assert isinstance(images, PackedImages)
    return images


def files(out: Path) -> dict[str, bytes]:
    """Every file of packed images but the lock, by name."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    found.pop(".lock")
    return found
