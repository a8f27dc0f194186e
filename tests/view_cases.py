"""The views whose checksums are golden: small committed images under every operation, recipe and kind of mixing.

``python -m tests.view_cases [EVERY]`` prints the checksums of every EVERY-th case as JSON; ``test_views_golden`` runs
it in a process of its own with the JIT off. The golden file itself comes from ``tests.make_golden_views``.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from logitstore.views import OPERATIONS, Renderer, ViewSpec, view_spec, witness

GOLDEN = Path(__file__).with_name("golden")
IMAGES = GOLDEN / "views"
CRCS = GOLDEN / "views.json"

IMAGE_NAMES = ("photo.jpg", "plain.jpg", "tiny.png", "wide.png", "tall.png", "grey.png")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One golden: a view, or two that were mixed with each other."""

    name: str
    spec: ViewSpec
    images: tuple[str, ...]
    seeds: tuple[int, ...]

    def crc(self) -> str:
        """CRC-32C of the views, eight hexadecimal digits."""
        renderer = Renderer(self.spec)
        pairs = zip(self.images, self.seeds, strict=True)
        views = np.stack([renderer.render(decoded(image), seed) for image, seed in pairs])
        renderer.mix(views, np.array(self.seeds, np.uint32))
        return f"{witness(views):08x}"


@cache
def decoded(name: str) -> NDArray[np.uint8]:
    """A committed image, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO((IMAGES / name).read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def single(operation: str, size: int) -> ViewSpec:
    """A spec under which every view has this operation and no other."""
    return ViewSpec(size=size, rand_augment_layers=1, rand_augment_prob=1.0, rand_augment_ops=(operation,))


def recipes(size: int) -> dict[str, ViewSpec]:
    """Specs that together use every field."""
    return {
        "crop_flip": view_spec("crop_flip", size=size),
        "tinyvit": view_spec("tinyvit", size=size),
        "strong": ViewSpec(size=size, rand_augment_layers=6, rand_augment_magnitude=5.0, rand_augment_std=3.0),
        "jitter": ViewSpec(size=size, color_jitter=(0.4, 0.3, 0.5), ratio=(0.5, 2.0), scale=(0.5, 1.0)),
        "erasing": ViewSpec(size=size, erasing_prob=1.0, noise_mean=(100.0, 120.0, 90.0), fill=(0, 128, 255)),
    }


def cases() -> Iterator[Case]:
    """All cases: 300 of at most 64 pixels, then eight of 224."""
    for operation in OPERATIONS:
        for number, image in enumerate(IMAGE_NAMES):
            yield _case(operation, single(operation, 32 + 3 * number), (image,), (number,))
            if number < 4:
                yield _case(operation, single(operation, 48), (image,), (1000 + number,))
    for name, spec in recipes(40).items():
        for number in range(24):
            yield _case(name, spec, (IMAGE_NAMES[number % 6],), (2**32 - 1 - number * 7919,))
    mixes = {"mixup": {"mixup": 0.8}, "cutmix": {"cutmix": 1.0}, "both": {"mixup": 0.2, "cutmix": 0.4, "mix_prob": 0.9}}
    for name, fields in mixes.items():
        for number in range(10):
            spec = replace(view_spec("tinyvit", size=64 if number == 0 else 33), **fields)
            images = (IMAGE_NAMES[number % 6], IMAGE_NAMES[(number + 1) % 6])
            yield _case(name, spec, images, (number, number + 500))
    for number in range(8):
        spec = replace(view_spec("tinyvit", size=224), mixup=0.8, cutmix=1.0)
        yield _case("224", spec, (IMAGE_NAMES[number % 6], IMAGE_NAMES[number % 5]), (number + 90, number + 70))


def _case(name: str, spec: ViewSpec, images: tuple[str, ...], seeds: tuple[int, ...]) -> Case:
    label = f"{name} {spec.size} " + " + ".join(f"{i} {seed}" for i, seed in zip(images, seeds, strict=True))
    return Case(name=label, spec=spec, images=images, seeds=seeds)


def crcs(every: int = 1) -> dict[str, str]:
    """Checksums by name of case, of every ``every``-th case of at most 64 pixels (of all cases for 1)."""
    chosen = [case for case in cases() if every == 1 or case.spec.size <= 64][::every]
    return {case.name: case.crc() for case in chosen}


if __name__ == "__main__":
    print(json.dumps(crcs(int(sys.argv[1]) if len(sys.argv) > 1 else 1)))
