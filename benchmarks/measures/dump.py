"""Dump against bare teacher inference: packed images, the same batch, dtype and threads on both sides.

The ceiling is the model alone on tensors that lie ready on its device; a dump also decodes and renders views, makes
witnesses, selects, encodes and commits. Weights are random: this is about speed only.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch

from benchmarks.common import Row, Timing, Work, against_ceiling, interleaved, median_rate, median_ratio
from benchmarks.measures import fixed
from logitstore.device import autocast, resolve_device, resolve_dtype
from logitstore.dump import DumpConfig, dump
from logitstore.images import open_images


def digits_store(folder: Path, *, device: str, batch_size: int, images: int) -> Path:
    """A store of one epoch of so many digits, for training from."""
    path = folder / "digits-store"
    config = DumpConfig(
        teacher="benchmarks.measures.fixed:swin_t",
        store=str(path),
        subset=images,
        epochs=1,
        batch_size=batch_size,
        device=device,
    )
    dump(config)
    return path


def measure(
    pack: Path, folder: Path, *, teacher: str, size: int, device: str, batch_size: int, epochs: int, repeats: int
) -> tuple[Row, list[Row]]:
    """Time inference alone and whole dumps of a packed data set.

    Args:
        pack: the packed images.
        folder: where stores are left, ``dump-0``, ``dump-1``, ...
        teacher: name of a function in ``fixed``.
        size: side of the views in pixels.
        device: as ``logitstore dump`` takes it.
        batch_size: images per step of the teacher, on both sides.
        epochs: epochs in a dump.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table.
    """
    where = resolve_device(device)
    dtype = resolve_dtype(None, where)
    model = getattr(fixed, teacher)().to(where)
    memory_format = torch.channels_last if where.type == "cuda" else torch.contiguous_format  # as a dump does
    model = model.to(memory_format=memory_format)
    ready_BCHW = torch.zeros(batch_size, 3, size, size, device=where).to(memory_format=memory_format)
    images = len(open_images(str(pack)))
    stores = (folder / f"dump-{number}" for number in count())

    def bare() -> int:
        sizes = [min(batch_size, images - start) for start in range(0, images, batch_size)] * epochs
        with torch.inference_mode(), autocast(where, dtype):
            for length in sizes:  # those of the dump, the smaller last one of an epoch too
                logits_BC = model(ready_BCHW[:length])
        logits_BC.sum().item()  # waits for the device
        return sum(sizes)

    def whole() -> Timing:
        config = DumpConfig(
            teacher=f"{fixed.__name__}:{teacher}",
            data=str(pack),
            size=size,
            store=str(next(stores)),
            epochs=epochs,
            batch_size=batch_size,
            device=device,
        )
        result = dump(config)
        return Timing(count=result.records, wall=result.records / result.images_per_second, cpu=0.0)

    print(
        f"\nDump of {epochs} epochs of {images} packed images at {size} px through {teacher} with random weights, "
        f"batch {batch_size}, {where}, {torch.get_num_threads()} threads. The ceiling is inference alone."
    )
    candidates: dict[str, Work] = {"inference alone, tensors in memory": bare, "dump": whole}
    timings = interleaved(candidates, repeats=repeats)
    rates = {name: median_rate(timings[name]) for name in candidates}
    rows = against_ceiling(rates, "images_per_s", next(iter(rates)))
    summary = {
        "dump_ratio": median_ratio(timings["dump"], timings["inference alone, tensors in memory"]),
        "dump_images_per_s": rows[1]["images_per_s"],
        "dump_bare_images_per_s": rows[0]["images_per_s"],
        "dump_device": str(where),
    }
    return summary, rows
