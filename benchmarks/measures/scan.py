"""Scan of a store: whole epochs of K=10 and of K=100 records through ``Store.read``, on one core.

The ceiling is a memory map over uncompressed 4+4K-byte records, from which every slice is copied out and nothing is
decoded. Scratch files are read from the page cache on both sides: this measures the format, not the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Row, against_ceiling, interleaved, median_rate
from benchmarks.stores import bench_manifest, write_shard
from logitstore.cuts import Cut
from logitstore.store import Store, choose_shard_size, create_store, encode_records, open_store

TOPK, MANY, CLASSES, BATCH = 10, 100, 1000, 1024
EPOCHS = 2
FEWER = {TOPK: 1, MANY: 4}
"""Records of K=100 are ten times as long, so there are fewer of them."""
_STEPS = {TOPK: 0.9, MANY: 0.25}
"""Nats between one rank and the next, in the mean."""


def made_records(count: int, seed: int, topk: int = TOPK) -> dict[str, NDArray[Any]]:
    """Encoded records with the shape of real ones: distinct classes, steep distributions, about 7 of 10 or 22 of 100
    kept."""
    rng = np.random.Generator(np.random.PCG64(seed))
    base = np.argsort(rng.random((4096, CLASSES)), axis=1)[:, :topk].astype(np.uint16)
    index = (base[rng.integers(4096, size=count)] + rng.integers(CLASSES, size=(count, 1), dtype=np.uint16)) % CLASSES
    logits = -np.cumsum(rng.exponential(_STEPS[topk], (count, topk)), axis=1)
    logp = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) * 1.1)).astype(np.float32)
    kept = np.maximum((logp >= np.log(1e-3)).sum(axis=1), 1)
    tail = np.log(rng.uniform(0.01, 0.2, count)).astype(np.float32)
    stored = encode_records(
        index_BK=index, logp_BK=logp, tail_B=tail, kept_B=kept, topk=topk, values="q8", num_classes=CLASSES
    )
    return dict(zip(("index", "logp", "tail"), stored, strict=True))


def write_made_store(path: Path, num_samples: int, topk: int = TOPK) -> None:
    """A store of ``EPOCHS`` epochs of made records, shards as ``dump`` chooses them."""
    manifest = bench_manifest(
        num_samples=num_samples,
        num_epochs=EPOCHS,
        num_classes=CLASSES,
        cut=Cut(topk=topk, floor=1e-3),
        shard_size=choose_shard_size(num_samples, topk, "q8", False, 64, num_classes=CLASSES),
    )
    store = create_store(path, manifest)
    for epoch in range(EPOCHS):
        order = store.order(epoch)
        for shard in range(store.num_shards):
            samples = order.samples(np.arange(*store.shard_range(shard)))
            write_shard(
                store, epoch, shard, samples, made_records(len(samples), epoch * store.num_shards + shard, topk)
            )


def write_memmap(path: Path, num_samples: int, topk: int = TOPK) -> None:
    """The same number of uncompressed records: seed, K classes, K half-precision probabilities."""
    record = np.dtype([("seed", "<u4"), ("index", "<i2", (topk,)), ("prob", "<f2", (topk,))])
    assert record.itemsize == 4 + 4 * topk
    np.ones(num_samples * EPOCHS, record).tofile(path)


def measure(*, num_samples: int, repeats: int) -> tuple[Row, list[Row]]:
    """Time the memory map, whole epochs in one call, and batches of 1,024, of K=10 and of K=100.

    Returns:
        the summary fields, those of K=100 beginning with ``scan100``, and the rows of the table.
    """
    summary, rows = _measure(TOPK, num_samples, repeats)
    many, more = _measure(MANY, max(BATCH, num_samples // FEWER[MANY]), repeats)
    return {**summary, **{name.replace("scan_", f"scan{MANY}_"): value for name, value in many.items()}}, rows + more


def _measure(topk: int, num_samples: int, repeats: int) -> tuple[Row, list[Row]]:
    with tempfile.TemporaryDirectory(prefix="logitstore-scan-") as folder:
        path, raw = Path(folder) / "store", Path(folder) / "records.bin"
        write_made_store(path, num_samples, topk)
        write_memmap(raw, num_samples, topk)
        bytes_per_record = open_store(path).info()["bytes_per_record"]
        print(
            f"\nScan of {EPOCHS} epochs of {num_samples:,} records, K={topk}, floor 1e-3, {bytes_per_record:.1f} bytes "
            f"each, {open_store(path).num_shards} shards an epoch, page cache, one core. The memory map is the ceiling."
        )
        candidates = {
            f"memory map of {4 + 4 * topk}-byte records, slices of {BATCH}": lambda: _scan_memmap(
                raw, num_samples, 4 + 4 * topk
            ),
            f"Store.read of K={topk}, a whole epoch a call": lambda: _scan(open_store(path), whole_epochs),
            f"Store.read of K={topk}, {BATCH} records a call": lambda: _scan(open_store(path), batches),
        }
        timings = interleaved(candidates, repeats=repeats)
    rates = [median_rate(timings[name], per_core=True) for name in candidates]
    names = list(candidates)
    rows = against_ceiling(dict(zip(names, rates, strict=True)), "records_per_s", names[0])
    summary = {
        "scan_records_per_s": rates[1],
        "scan_batches_records_per_s": rates[2],
        "scan_memmap_records_per_s": rates[0],
        "scan_bytes_per_record": bytes_per_record,
    }
    return summary, rows


def whole_epochs(store: Store) -> Iterator[tuple[int, int, int]]:
    """One read an epoch."""
    return ((epoch, 0, store.num_samples) for epoch in range(store.num_epochs))


def batches(store: Store) -> Iterator[tuple[int, int, int]]:
    """Reads as a loader makes them."""
    for epoch, _, stop in whole_epochs(store):
        for start in range(0, stop, BATCH):
            yield epoch, start, min(start + BATCH, stop)


def _scan(store: Store, reads: Callable[[Store], Iterator[tuple[int, int, int]]]) -> int:
    return sum(len(store.read(*read)) for read in reads(store))


def _scan_memmap(path: Path, num_samples: int, record_bytes: int) -> int:
    mapped = np.memmap(path, np.dtype((np.void, record_bytes)), mode="r")
    total = num_samples * EPOCHS
    return sum(len(np.array(mapped[start : start + BATCH])) for start in range(0, total, BATCH))
