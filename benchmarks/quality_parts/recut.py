"""Smaller stores made of a dense one, so that the teacher runs once for all of them; what they weigh and lose.

A store that is cut here holds what ``dump`` would have written with the same options, but for the rounding of the dense
store to float16, 2^-11 of a log-probability: the same views, seeds, witnesses and order. Shape suffixes: N views, C
classes.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.stores import store_bytes
from logitstore.cuts import FLOORS, Cut, Dense
from logitstore.errors import InputError
from logitstore.store import ShardBlock, Store, choose_chunk_size, claim_shard, commit_shard, create_store, open_store
from logitstore.store.dense import decode_logits, is_dense


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The probabilities of some views, most probable class first, and what a cut keeps of them."""

    sorted_NC: NDArray[np.float64]
    """Descending in each row."""

    @classmethod
    def of(cls, dense: Store) -> Kept:
        """Of the first epoch of a dense store."""
        rows = [dense_logits(dense, 0, shard) for shard in range(dense.num_shards)]
        prob_NC = np.exp(np.concatenate(rows).astype(np.float64))
        return cls(sorted_NC=-np.sort(-prob_NC / prob_NC.sum(1, keepdims=True), axis=1))

    def topk(self, mass: float) -> int:
        """The smallest K whose classes hold this much in the mean over the views."""
        held_C = self.sorted_NC.cumsum(axis=1).mean(axis=0)
        return min(int(np.searchsorted(held_C, mass)) + 1, len(held_C))

    def floor(self, mass: float) -> float:
        """The largest floor of two digits at which the kept classes hold this much in the mean; 0 if none does."""

        def held(floor: float) -> float:
            held_N = np.where(self.sorted_NC >= floor, self.sorted_NC, 0.0).sum(axis=1)
            return float(np.maximum(held_N, self.sorted_NC[:, 0]).mean())

        enough = bisect_left(FLOORS, True, key=lambda floor: held(floor) < mass)
        return FLOORS[enough - 1] if enough else 0.0


def dense_logits(dense: Store, epoch: int, shard: int) -> NDArray[np.float32]:
    """Log-probabilities of all classes in their order, float32 [N, C], of one shard of a dense store.

    Raises:
        InputError: the store is not dense, or left out images that do not decode.
    """
    if not is_dense(dense.manifest):
        raise InputError(f"{dense.path} does not hold all classes as float16: dump it with --topk C --floor 0 "
                         "--values f16.")  # fmt: skip
    block = dense.block(epoch, shard)
    logits_NC = decode_logits(block.index, block.logp, np.zeros(len(block), np.float32), dense.num_classes)
    if np.isnan(logits_NC).any():
        raise InputError(f"{dense.path} has views without a record: take the images that do not decode away first.")
    return logits_NC


def recut(dense: Store, path: Path, cut: Cut, epochs: int | None = None) -> Store:
    """Make a smaller store, or complete one that was begun.

    Args:
        dense: the store that all is taken from.
        path: of the new store.
        cut: what it keeps.
        epochs: how many of the first epochs it has; None is all.

    Raises:
        MismatchError: another store is there.
        InputError: see ``dense_logits``.
    """
    manifest = replace(
        dense.manifest,
        num_epochs=min(epochs or dense.num_epochs, dense.num_epochs),
        topk=cut.topk,
        floor=cut.floor,
        mass=cut.mass,
        gain=cut.gain,
        values=cut.values,
        logz=False,
        chunk_size=choose_chunk_size(dense.manifest.shard_size, cut.topk, num_classes=dense.num_classes),
    )
    store = create_store(path, manifest)
    for epoch in range(manifest.num_epochs):
        for shard in range(store.num_shards):
            claim = claim_shard(store, epoch, shard)
            if claim is None:  # committed by a call before
                continue
            with claim:
                seen = dense.block(epoch, shard)
                records = cut.records(dense_logits(dense, epoch, shard))
                commit_shard(store, claim, ShardBlock(seed=seen.seed, witness=seen.witness, **records))
    return open_store(path)


def weigh(store: Store, dense: Store) -> dict[str, Any]:
    """What a store takes on disk, what its records keep, and how far they are from the dense ones they were cut from.

    All records are read as a training reads them. KL(dense || decoded) is in nat, the mean over all records.

    Raises:
        InputError: the stores do not hold the same views.
    """
    if (store.num_samples, store.manifest.run_seed) != (dense.num_samples, dense.manifest.run_seed):
        raise InputError(f"{store.path} and {dense.path} do not hold the same views.")
    records, kl, mass, kept = 0, 0.0, 0.0, 0
    for epoch in range(store.num_epochs):
        for shard in range(dense.num_shards):
            read = store.read(epoch, *dense.shard_range(shard))
            if not np.array_equal(read.seed, dense.block(epoch, shard).seed):
                raise InputError(f"{store.path} and {dense.path} do not hold the same views in epoch {epoch}.")
            views = Dense.of(dense_logits(dense, epoch, shard))
            records += len(read)
            kl += float(views.kl(read.index, read.prob, read.tail).sum())
            mass += float(views.prob(read.index).sum())
            kept += int(read.kept.sum())
    total, metadata = store_bytes(store.path)
    m = store.manifest
    return {
        "store": str(store.path),
        "topk": m.topk,
        "floor": m.floor,
        "values": m.values,
        "epochs": store.num_epochs,
        "records": records,
        "bytes": total,
        "bytes_per_record": total / records,
        "metadata_bytes": metadata / records,
        "mean_kept": kept / records,
        "kept_mass": mass / records,
        "kl": kl / records,
    }
