"""A store of the loader's own views with made-up records, for tests that need no teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logitstore.loader import Batch, ViewLoader
from logitstore.store import Manifest, ShardBlock, Store, claim_shard, commit_shard, create_store, encode_records
from logitstore.views import ViewSpec, view_spec, witness
from tests.helpers import MemoryImages

SIZE = 24
CLASSES, TOPK, SHARD, RUN_SEED = 7, 3, 64, 11
PLAIN = view_spec("crop_flip", size=SIZE)
FULL = replace(view_spec("tinyvit", size=SIZE), mixup=0.8, cutmix=1.0)


def fake_records(batch: Batch) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Classes and log-probabilities that stand for one view, so that records in wrong places show."""
    codes = np.array([witness(view) for view in batch.views_BCHW])
    index_BK = (codes[:, None] + 2 * np.arange(TOPK)) % CLASSES
    logp_BK = np.log(np.array([[0.5, 0.25, 0.125]], np.float32)).repeat(len(batch), axis=0)
    return index_BK, logp_BK, np.full(len(batch), np.log(0.125), np.float32)


def dump(
    path: Path,
    images: MemoryImages,
    spec: ViewSpec,
    *,
    epochs: int = 1,
    skip_bad: bool = False,
    shards: int | None = None,
) -> Store:
    """A store of these views with made-up records; ``shards`` commits only the first few of each epoch."""
    manifest = Manifest(
        num_samples=len(images),
        num_epochs=epochs,
        num_classes=CLASSES,
        topk=TOPK,
        floor=0.0,
        values="f16",
        run_seed=RUN_SEED,
        shard_size=SHARD,
        chunk_size=SHARD,
        inference={"batch_size": 32},
        dataset=images.describe(),
        view=spec.to_dict(),
        versions={"python": "3.1", "numpy": "0.9", "nonsense": "1"},
    )
    store = create_store(path, manifest)
    loader = ViewLoader(images, spec, run_seed=RUN_SEED, batch_size=32, workers=2, skip_bad=skip_bad)
    for epoch in range(epochs):
        for shard in range(store.num_shards if shards is None else shards):
            parts = list(loader.batches(epoch, *store.shard_range(shard)))
            index, logp, tail = (np.concatenate(part) for part in zip(*map(fake_records, parts), strict=True))
            weight = np.concatenate([batch.weight_B for batch in parts])
            index, logp, tail = encode_records(
                index_BK=index,
                logp_BK=logp,
                tail_B=tail,
                kept_B=np.where(weight > 0, TOPK, 0),
                topk=TOPK,
                values="f16",
                num_classes=CLASSES,
            )
            block = ShardBlock(
                seed=np.concatenate([batch.seed_B for batch in parts]),
                index=index,
                logp=logp,
                tail=tail,
                witness=np.concatenate([batch.witness_J for batch in parts]),
            )
            claim = claim_shard(store, epoch, shard)
            assert claim is not None
            with claim:
                commit_shard(store, claim, block)
    return store


def by_position(batches: Iterator[Batch]) -> dict[int, tuple[object, ...]]:
    """Everything the batches say of each position."""
    found: dict[int, tuple[object, ...]] = {}
    for batch in batches:
        index, tail = (None, None) if batch.records is None else (batch.records.index, batch.records.tail)
        for row, position in enumerate(batch.position_B.tolist()):
            assert position not in found
            columns = (batch.sample_B, batch.seed_B, batch.own_B, batch.label_B, batch.partner_label_B, batch.weight_B)
            kept = () if index is None or tail is None else (tuple(index[row]), float(tail[row]))
            found[position] = (*(column[row].item() for column in columns), batch.views_BCHW[row].tobytes(), *kept)
    return found
