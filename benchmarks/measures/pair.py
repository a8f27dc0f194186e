"""Two stores of the same views against one: scans of batches, the mean of records alone, and training steps.

The ceiling of a scan of two stores is the scan of one, at half its rate: both are read. Scratch files come from the
page cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.common import Row, Work, against_ceiling, interleaved, median_rate, median_ratio
from benchmarks.measures.dump import digits_store
from benchmarks.measures.scan import BATCH, MANY, TOPK, batches, made_records, write_made_store
from benchmarks.measures.train import STUDENT, trainer
from benchmarks.stores import write_shard
from logitstore.device import resolve_device
from logitstore.dump import DumpConfig, dump
from logitstore.store import Ensemble, Store, create_store, mean_records, open_store
from logitstore.train import TrainConfig


def measure(
    folder: Path, *, num_samples: int, device: str, batch_size: int, images: int, steps: int, repeats: int
) -> tuple[Row, list[Row]]:
    """Time two stores against one.

    Args:
        folder: for a store of digits.
        num_samples: samples of the stores that are scanned; a quarter of them at K=100.
        device: as ``logitstore train`` takes it.
        batch_size: images per training step.
        images: digits in the stores that are trained on.
        steps: training steps in a repeat.
        repeats: rounds that count.

    Returns:
        the summary fields and the rows of the table.
    """
    summary: Row = {}
    rows: list[Row] = []
    for topk, samples in ((TOPK, num_samples), (MANY, max(BATCH, num_samples // 4))):
        fields, more = _scans(topk, samples, repeats)
        summary |= fields
        rows += more
    fields, more = _training(folder, device=device, batch_size=batch_size, images=images, steps=steps, repeats=repeats)
    return {**summary, **fields}, rows + more


def _scans(topk: int, num_samples: int, repeats: int) -> tuple[Row, list[Row]]:
    with tempfile.TemporaryDirectory(prefix="logitstore-pair-") as scratch:
        paths = Path(scratch) / "one", Path(scratch) / "two"
        write_made_store(paths[0], num_samples, topk)
        _write_second(open_store(paths[0]), paths[1])
        print(f"\nScans of one store and of two, {num_samples:,} samples, K={topk}, {BATCH} records a call, one core.")
        one, two = (list(_read(open_store(path), limit=64)) for path in paths)

        def mean() -> int:
            found = (mean_records(pair, (0.5, 0.5), num_classes=1000) for pair in zip(one, two, strict=True))
            return sum(map(len, found))

        names = f"one store of K={topk}", f"two stores of K={topk}", f"mean of records alone, K={topk}"
        candidates: dict[str, Work] = {
            names[0]: lambda: sum(len(found) for found in _read(open_store(paths[0]))),
            names[1]: lambda: sum(len(found) for found in _read(Ensemble([open_store(path) for path in paths]))),
            names[2]: mean,
        }
        timings = interleaved(candidates, repeats=repeats)
    rates = {name: median_rate(timings[name], per_core=True) for name in names}
    rows = against_ceiling(rates, "per_s", dict.fromkeys(names[:2], names[0]))
    prefix = "pair" if topk == TOPK else f"pair{topk}"
    summary = {f"{prefix}_scan_records_per_s": rates[names[1]], f"{prefix}_mean_records_per_s": rates[names[2]]}
    summary[f"{prefix}_scan_ratio"] = median_ratio(timings[names[1]], timings[names[0]], per_core=True)
    return summary, rows


def _write_second(first: Store, path: Path) -> None:
    """A store of the same views with other records."""
    second = create_store(path, replace(first.manifest, teacher={"name": "other stored logits"}))
    for epoch in range(first.num_epochs):
        for shard in range(first.num_shards):
            low, high = first.shard_range(shard)
            samples = first.order(epoch).samples(range(low, high))
            number = 1000 + epoch * first.num_shards + shard
            write_shard(second, epoch, shard, samples, made_records(high - low, number, first.topk))


def _read(store: Store | Ensemble, limit: int | None = None) -> Iterator[object]:
    for number, read in enumerate(batches(store.members[0])):
        if number == limit:
            return
        yield store.read(*read)


def _training(
    folder: Path, *, device: str, batch_size: int, images: int, steps: int, repeats: int
) -> tuple[Row, list[Row]]:
    one, two = digits_store(folder, device=device, batch_size=batch_size, images=images), folder / "second-store"
    teacher = "benchmarks.measures.fixed:swin_t"
    common = {"batch_size": batch_size, "device": device}
    dump(DumpConfig(teacher=teacher, store=str(two), views_from=str(one), topk=5, **common))
    print(f"\nTraining {STUDENT} at 32 px, {steps} steps of {batch_size} a repeat, {resolve_device(device)}.")
    names = "training on one store", "training on two"
    candidates = {
        name: trainer(TrainConfig(student=STUDENT, store=store, epochs=100, subset=images, **common), steps)
        for name, store in zip(names, (str(one), (str(one), str(two))), strict=True)
    }
    timings = interleaved(candidates, repeats=repeats)
    rows = against_ceiling({name: median_rate(timings[name]) for name in names}, "per_s", names[0])
    return {"pair_train_ratio": median_ratio(timings[names[1]], timings[names[0]])}, rows
