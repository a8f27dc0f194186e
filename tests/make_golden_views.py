"""Write the golden checksums of views: ``python -m tests.make_golden_views [--images]``.

A changed golden means that stores made before no longer replay: it calls for another ``ViewSpec.version``. With
``--images`` the committed images themselves are made anew, from formulas; encoders differ between versions of Pillow,
so that changes the goldens too.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.view_cases import CRCS, IMAGES, crcs


def _waves(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture with edges, all three channels different."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    red = 120 + 90 * np.sin(x / 7) * np.cos(y / 11)
    green = 255 * x / width
    blue = 255 * ((x - width / 2) ** 2 + (y - height / 3) ** 2 < (height / 3) ** 2) * 0.8 + 30 * np.sin(x * y / 50)
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


def _rough(height: int, width: int) -> NDArray[np.uint8]:
    """Every pixel unlike its neighbours, with black and white among them."""
    count = np.arange(height * width * 3, dtype=np.uint64)
    return (count * np.uint64(2654435761) >> np.uint64(13)).astype(np.uint8).reshape(height, width, 3)


def make_images() -> None:
    """Encode the images of ``view_cases.IMAGE_NAMES``."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_waves(75, 100)).save(IMAGES / "photo.jpg", quality=90, subsampling=2)
    Image.fromarray(_rough(41, 41)).save(IMAGES / "plain.jpg", quality=60, subsampling=0)
    Image.fromarray(_rough(5, 3)).save(IMAGES / "tiny.png")
    Image.fromarray(_waves(12, 150)).save(IMAGES / "wide.png")
    Image.fromarray(_waves(130, 17)).save(IMAGES / "tall.png")
    Image.fromarray(_waves(48, 64)[..., 0] // 2 + 20).save(IMAGES / "grey.png")


if __name__ == "__main__":
    if "--images" in sys.argv[1:]:
        make_images()
    CRCS.write_text(json.dumps(crcs(), indent=0) + "\n")
    print(f"{CRCS}: {len(json.loads(CRCS.read_text()))} checksums")
