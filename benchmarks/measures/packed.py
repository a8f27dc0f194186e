"""Packed stores: bytes of a record in 8 epochs and in 90, divergence, and speed of coding.

Every file of the store counts. An epoch's are its commit, its records and its witnesses; the rest is shared. What
epochs beyond the eighth take is the mean of those after the base epochs: they do not depend on one another. A large
data set has longer chunks than 1,000 images give, so speed is measured on one chunk of 4,000 records: the last four
views of every image, coded with the first four.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Row
from benchmarks.stores import bench_manifest, store_bytes
from logitstore.convert import ConvertConfig, convert
from logitstore.cuts import Cut, Dense
from logitstore.store import open_store
from logitstore.store.blocks import Block
from logitstore.store.packed import Base, RecordShape, decode_chunk, encode_chunk

LONG = 90
"""Epochs of a long run, over which metadata and base epochs are shared."""
BASE = 4
REPEATS = 5


def weigh(standard: Path, packed: Path) -> Row:
    """Pack a complete store and weigh it.

    Args:
        standard: the store.
        packed: where the packed one will lie.
    """
    convert(ConvertConfig(store=str(standard), out=str(packed), base_epochs=BASE))
    store = open_store(packed)
    records = store.num_epochs * store.num_samples
    whole, metadata = store_bytes(packed)
    epochs = [_epoch_bytes(packed, epoch) for epoch in range(store.num_epochs)]
    later = sum(epochs[BASE:]) / len(epochs[BASE:])
    long = whole - sum(epochs) + sum(epochs[:BASE]) + (LONG - BASE) * later
    return {
        "bytes_per_record": whole / records,
        "metadata_bytes": metadata / records,
        "bytes_per_record_90_epochs": long / LONG / store.num_samples,
        "model_bytes_per_sample": store.info()["model_bytes"] / store.num_samples,
    }


def _epoch_bytes(store: Path, epoch: int) -> int:
    files = [*store.glob(f"*/c/{epoch}/**/*"), *store.glob(f"commits/{epoch:04}.*.json")]
    return sum(file.stat().st_size for file in files if file.is_file())


def speed(dense: Dense, cut: Cut, views: int) -> Row:
    """Records a second that are coded and decoded on one core: medians of a few rounds.

    Args:
        dense: the distributions, those of an image's views adjacent.
        cut: what is kept.
        views: of each image.
    """
    images = len(dense) // views
    stored = cut.records(dense.logits_NC)
    manifest = bench_manifest(num_samples=images, num_epochs=views, num_classes=dense.num_classes, cut=cut)
    base = Base(RecordShape.of(manifest), images)
    image_I = np.arange(images)

    def block(image_P: NDArray[np.int64], view_P: NDArray[np.int64]) -> Block:
        row_P = image_P * views + view_P
        return Block(
            seed=np.zeros(len(row_P), np.uint32),
            index=stored["index"][None, row_P],
            logp=stored["logp"][None, row_P],
            tail=stored["tail"][row_P],
        )

    for view in range(views // 2):
        base.add([(image_I, block(image_I, np.full(images, view)))])
    image_P = np.tile(image_I, views - views // 2)
    chunk = block(image_P, np.repeat(np.arange(views // 2, views), images))
    coded = encode_chunk(chunk, image_P, chunk.seed, base, checksum=0)
    encode = _rate(lambda: encode_chunk(chunk, image_P, chunk.seed, base, checksum=0), len(image_P))
    decode = _rate(lambda: decode_chunk(coded, image_P, chunk.seed, base, checksum=0), len(image_P))
    return {"encode_records_per_s": encode, "decode_records_per_s": decode}


def _rate(work: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return count / median(seconds)
