"""Stores made of records in memory, for measurements without images: witnesses are made up, as long as real ones.

And what a store on disk weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import versions
from logitstore.cuts import Cut, Dense
from logitstore.pcg import view_seeds
from logitstore.plan import weigh
from logitstore.store import (
    WITNESS_EVERY,
    Manifest,
    ShardBlock,
    Store,
    choose_chunk_size,
    create_store,
)
from logitstore.views import view_spec


def bench_manifest(
    *,
    num_samples: int,
    num_epochs: int,
    num_classes: int,
    cut: Cut,
    shard_size: int | None = None,
) -> Manifest:
    """A manifest as long as a real one, class names left out; one shard an epoch, as far as shards go, unless told."""
    shard_size = shard_size or min(65536, max(64, 1 << (num_samples - 1).bit_length()))
    return Manifest(
        num_samples=num_samples,
        num_epochs=num_epochs,
        num_classes=num_classes,
        topk=cut.topk,
        floor=cut.floor,
        mass=cut.mass,
        gain=cut.gain,
        values=cut.values,
        run_seed=0,
        shard_size=shard_size,
        chunk_size=choose_chunk_size(shard_size, cut.topk, num_classes=num_classes),
        inference={"batch_size": 64, "dtype": "float32", "device_type": "cpu", "threads": 1},
        teacher={
            "name": "stored logits",
            "sha256": "0" * 64,
            "preprocessing": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        dataset={"count": num_samples, "fingerprint": "0" * 64, "class_names": None},
        view=view_spec("tinyvit", size=224).to_dict(),
        versions=versions(),
    )


def write_views(path: Path, logits_NC: NDArray[np.float32], cut: Cut, epochs: int) -> None:
    """A whole store of some views: view e of a sample, row sample x epochs + e, is its record in epoch e."""
    logits_NEC = logits_NC.reshape(-1, epochs, logits_NC.shape[1])
    num_samples, _, num_classes = logits_NEC.shape
    manifest = bench_manifest(num_samples=num_samples, num_epochs=epochs, num_classes=num_classes, cut=cut)
    store = create_store(path, manifest)
    for epoch in range(epochs):
        order = store.order(epoch)
        for shard in range(store.num_shards):
            samples = order.samples(np.arange(*store.shard_range(shard)))
            write_shard(store, epoch, shard, samples, cut.records(logits_NEC[samples, epoch]))


def read_views(store: Store, dense: Dense) -> tuple[float, float]:
    """Mean KL(dense || decoded) of a store that ``write_views`` made, and the mean number of classes kept."""
    rows_NE = np.arange(len(dense)).reshape(store.num_samples, -1)
    kl, kept = [], []
    for epoch in range(rows_NE.shape[1]):
        records = store.read(epoch, 0, store.num_samples)
        views = dense[rows_NE[records.sample, epoch]]
        kl.append(views.kl(records.index, records.prob, records.tail).mean())
        kept.append(records.kept.mean())
    return float(np.mean(kl)), float(np.mean(kept))


def write_shard(
    store: Store, epoch: int, shard: int, samples: NDArray[np.int64], records: Mapping[str, NDArray[Any]]
) -> None:
    """Claim one shard and commit it, as ``dump`` does.

    Args:
        store: the store.
        epoch: number of the epoch.
        shard: number of the shard.
        samples: sample numbers at the shard's positions.
        records: ``index``, ``logp``, ``tail`` from ``encode_records``.
    """
    seed = view_seeds(store.manifest.run_seed, epoch, samples)
    witness = view_seeds(store.manifest.run_seed, epoch, seed[::WITNESS_EVERY])
    weigh.write_shard(store, epoch, shard, ShardBlock(seed=seed, witness=witness, **records))


def store_bytes(path: Path) -> tuple[int, int]:
    """All bytes of a store on disk, and those of its metadata and commits among them."""
    size = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    return sum(size.values()), sum(count for file, count in size.items() if file.suffix == ".json")
