"""Dump against bare teacher inference: digits at 32 px, Swin-T with fixed random weights, the same batch and threads.

The ceiling is the model alone on tensors that lie ready on its device; a dump also renders views, checks witnesses,
selects, encodes and commits. Weights are random: this is about speed only.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch

from benchmarks.common import Row, Timing, Work, interleaved, median_rate, median_ratio
from benchmarks.measures.fixed import SIZE, swin_t
from logitstore.device import autocast, resolve_device, resolve_dtype
from logitstore.dump import DumpConfig, dump

TEACHER = "benchmarks.measures.fixed:swin_t"


def any_store(folder: Path, *, device: str, batch_size: int, images: int, **_: object) -> Path:
    """A store of one epoch or more of these images: one that ``measure`` left, else a new one."""
    path = folder / "store-0"
    if not path.exists():
        dump(_config(path, device=device, batch_size=batch_size, images=images, epochs=1))
    return path


def _config(path: Path, *, device: str, batch_size: int, images: int, epochs: int) -> DumpConfig:
    return DumpConfig(
        teacher=TEACHER, store=str(path), subset=images, epochs=epochs, batch_size=batch_size, device=device
    )


def measure(
    folder: Path, *, device: str, batch_size: int, images: int, epochs: int, repeats: int
) -> tuple[Row, list[Row]]:
    """Time inference alone and whole dumps of ``epochs`` epochs of ``images`` digits.

    Args:
        folder: where stores are left, ``store-0``, ``store-1``, ...
        device: as ``logitstore dump`` takes it.
        batch_size: images per step of the teacher, on both sides.
        images: at most 1,437.
        epochs: epochs in a dump.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table.
    """
    where = resolve_device(device)
    dtype = resolve_dtype(None, where)
    model = swin_t().to(where)
    ready_BCHW = torch.zeros(batch_size, 3, SIZE, SIZE, device=where)
    stores = (folder / f"store-{number}" for number in count())

    def bare() -> int:
        sizes = [min(batch_size, images - start) for start in range(0, images, batch_size)] * epochs
        with torch.inference_mode(), autocast(where, dtype):
            for size in sizes:  # those of the dump, the smaller last one of an epoch too
                logits_BC = model(ready_BCHW[:size])
        logits_BC.sum().item()  # waits for the device
        return sum(sizes)

    def whole() -> Timing:
        config = _config(next(stores), device=device, batch_size=batch_size, images=images, epochs=epochs)
        result = dump(config)
        return Timing(count=result.records, wall=result.records / result.images_per_second, cpu=0.0)

    print(
        f"\nDump of {epochs} epochs of {images} digits at {SIZE} px through Swin-T with random weights (speed only), "
        f"batch {batch_size}, {where}, {torch.get_num_threads()} threads. The ceiling is inference alone."
    )
    candidates: dict[str, Work] = {"inference alone, tensors in memory": bare, "dump": whole}
    timings = interleaved(candidates, repeats=repeats)
    rows = [{"what": name, "images_per_s": median_rate(timings[name])} for name in candidates]
    summary = {
        "dump_ratio": median_ratio(timings["dump"], timings["inference alone, tensors in memory"]),
        "dump_images_per_s": rows[1]["images_per_s"],
        "dump_bare_images_per_s": rows[0]["images_per_s"],
        "dump_device": str(where),
    }
    return summary, rows
