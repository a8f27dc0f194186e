"""View replay from JPEGs and from packed images, one thread: ours against timm's transforms with the same settings.

Every side ends in a normalised float32 tensor, so that decoding and normalisation are paid everywhere; timm starts from
the bytes of the original JPEGs in memory. The ceilings are decoding alone, of whole images: who decodes less than the
whole may pass them.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment, create_transform

from benchmarks.common import Row, against_ceiling, interleaved, median_rate, median_ratio
from logitstore.images import open_images
from logitstore.images.decode import decode
from logitstore.images.source import EncodedSource
from logitstore.pack import PackConfig, pack
from logitstore.pcg import view_seeds
from logitstore.views import Renderer, Source, view_spec

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JPEG_SUFFIXES = {".jpg", ".jpeg"}


def load_jpegs(path: Path | None, *, limit: int) -> tuple[list[bytes], str]:
    """JPEG files as bytes, and where they came from.

    Args:
        path: a folder (searched deeply) or a tar; None makes images of 500 x 375 on the spot.
        limit: at most so many, spread evenly over what is there.
    """
    if path is None:
        return [_made_jpeg(number) for number in range(min(limit, 100))], "JPEGs of 500 x 375 made on the spot"
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in JPEG_SUFFIXES)
        blobs = [file.read_bytes() for file in _spread(files, limit)]
    else:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and Path(m.name).suffix.lower() in JPEG_SUFFIXES]
            blobs = [_member(archive, member) for member in _spread(members, limit)]
    if not blobs:
        raise SystemExit(f"{path} holds no .jpg or .jpeg file; name a folder or a tar that does.")
    return blobs, f"{len(blobs)} JPEGs of {path.name}"


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None, "only regular files are listed"
    return stream.read()


def _spread(items: list[Any], limit: int) -> list[Any]:
    return items if len(items) <= limit else [items[i * len(items) // limit] for i in range(limit)]


def _made_jpeg(number: int) -> bytes:
    """Smooth colour waves with noise on top, so that a decoder has as much to do as on a photograph (about 100 kB)."""
    rng = np.random.Generator(np.random.PCG64(number))
    y, x = np.mgrid[0:375, 0:500] / 100.0
    waves = [np.sin(rng.uniform(0.5, 4) * x + rng.uniform(0.5, 4) * y + rng.uniform(0, 6)) for _ in range(3)]
    pixels = np.stack(waves, axis=-1) * 90 + 128 + rng.normal(0, 18, (375, 500, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def mend_timm_posterize() -> str | None:
    """Let timm's posterize accept 0 bits where Pillow refuses them, as older Pillow did: 0 bits are a black image.

    Returns:
        A sentence for the reader when it had to be mended, else None.
    """
    probe = Image.new("RGB", (2, 2), (255, 255, 255))
    try:
        auto_augment.posterize(probe, 0)
    except ValueError:
        original = auto_augment.posterize
    else:
        return None

    def posterize(image: Image.Image, bits_to_keep: int, **options: object) -> Any:
        if bits_to_keep < 1:
            return Image.new(image.mode, image.size)
        return original(image, bits_to_keep, **options)

    operations = auto_augment.NAME_TO_OP
    operations.update({name: posterize for name, operation in operations.items() if operation is original})
    return (
        f"timm's posterize raises at 0 bits under Pillow {version('pillow')}: mended here to give black, "
        "which is what ours gives."
    )


def timm_transform() -> Any:
    """timm's training transform with the settings of our ``tinyvit`` view, to a normalised float32 tensor."""
    return create_transform(
        input_size=SIZE,
        is_training=True,
        scale=(0.08, 1.0),
        hflip=0.5,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
        mean=MEAN,
        std=STD,
    )


def pack_jpegs(blobs: list[bytes], folder: Path, *, classes: int = 1) -> Path:
    """JPEGs as an image folder, packed with the command's defaults; with several classes they are labelled in turn."""
    plain, packed = folder / "jpegs", folder / "packed"
    for number, blob in enumerate(blobs):
        path = plain / f"{number % classes:04}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
    pack(PackConfig(data=str(plain), out=str(packed)))
    return packed


def measure(blobs: list[bytes], folder: Path, *, source: str, repeats: int) -> tuple[Row, list[Row]]:
    """Time decoding alone, our replay from the JPEGs and from packed images, and timm's transform.

    Torch works with one thread; afterwards with as many as before.

    Args:
        blobs: the JPEGs.
        folder: where to pack them.
        source: what to call them.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table.
    """
    packed, before = pack_jpegs(blobs, folder), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(blobs, packed, source, repeats)
    finally:
        torch.set_num_threads(before)


def _measure(blobs: list[bytes], packed: Path, source: str, repeats: int) -> tuple[Row, list[Row]]:
    print(f"\nViews at {SIZE} px from {source}, one thread; decode included on every side.")
    mended = mend_timm_posterize()
    if mended:
        print(mended)
    renderer = Renderer(view_spec("tinyvit", size=SIZE))
    transform = timm_transform()
    images = open_images(str(packed))
    mean, std = (torch.tensor(values).mul(255).view(3, 1, 1) for values in (MEAN, STD))
    out_3HW = np.empty((3, SIZE, SIZE), np.uint8)
    epochs = iter(range(1 << 20))

    def original(i: int) -> Source:
        return EncodedSource(blobs[i], lambda: decode(blobs[i]))

    def replay(sources: Callable[[int], Source], finish: Callable[[torch.Tensor], object]) -> Callable[[], int]:
        def work() -> int:
            for i, seed in enumerate(view_seeds(0, next(epochs), np.arange(len(blobs)))):
                renderer.render_source(sources(i), int(seed), out_3HW)
                finish(torch.from_numpy(out_3HW))
            return len(blobs)

        return work

    def normalised(view_3HW: torch.Tensor) -> torch.Tensor:
        return view_3HW.float().sub_(mean).div_(std)

    def each(step: Callable[[int], object]) -> Callable[[], int]:
        def work() -> int:
            for i in range(len(blobs)):
                step(i)
            return len(blobs)

        return work

    # timm draws from these global generators; nothing of ours does.
    random.seed(0)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    candidates = {
        "decoding whole JPEGs (a ceiling)": each(lambda i: decode(blobs[i])),
        "decoding whole packed images (a ceiling)": each(images.pixels),
        "ours, uint8 view": replay(original, lambda view: None),
        "ours, normalised tensor": replay(original, normalised),
        "ours from packed, uint8 view": replay(images.source, lambda view: None),
        "ours from packed, normalised tensor": replay(images.source, normalised),
        "timm create_transform": each(lambda i: transform(Image.open(io.BytesIO(blobs[i])).convert("RGB"))),
    }
    timings = interleaved(candidates, repeats=repeats)
    rates = {name: median_rate(timings[name]) for name in candidates}
    library = timings["timm create_transform"]
    summary = {
        "view_images_per_s": rates["ours, uint8 view"],
        "view_ratio": median_ratio(timings["ours, normalised tensor"], library),
        "packed_view_images_per_s": rates["ours from packed, uint8 view"],
        "packed_view_ratio": median_ratio(timings["ours from packed, normalised tensor"], library),
        "view_timm_images_per_s": rates["timm create_transform"],
        "view_decode_images_per_s": rates["decoding whole JPEGs (a ceiling)"],
        "packed_decode_images_per_s": rates["decoding whole packed images (a ceiling)"],
        "view_images": source,
        "view_timm_mended": mended is not None,
    }
    whole, packed_whole = list(candidates)[:2]
    ceilings = {name: packed_whole if "packed" in name else whole for name in candidates}
    return summary, against_ceiling(rates, "images_per_s", ceilings)
