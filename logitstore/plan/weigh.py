"""What records weigh: a sample is written into a real store, whose bytes are told apart by what they grow with.

A small store says little about a large one as a whole: its metadata are shared by few records. So there are three
parts: metadata written once, the commit of each shard, and the records. Chunks are as long as in the real store, or as
long as the sample where that is shorter, which compresses a little worse: the estimate is rather too large.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.pcg import view_seeds
from logitstore.store import WITNESS_EVERY, Manifest, ShardBlock, Store, claim_shard, commit_shard, create_store

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Bytes of a store, by what they grow with."""

    fixed: float
    """Once: metadata."""
    per_shard: float
    """For each shard of each epoch: its commit."""
    per_record: float
    """For each record, its seed and its share of checksums included."""
    num_samples: int
    """N of the store that is planned."""
    shard_size: int
    """Positions in a shard of it."""

    def total(self, epochs: int) -> float:
        """Bytes of the store that is planned, with so many epochs."""
        shards = -(-self.num_samples // self.shard_size)
        return self.fixed + epochs * (shards * self.per_shard + self.num_samples * self.per_record)

    def bytes_per_record(self, epochs: int) -> float:
        """The same for each of its records."""
        return self.total(epochs) / (epochs * self.num_samples)


def weigh(manifest: Manifest, records: Mapping[str, NDArray[Any]]) -> Weight:
    """Weigh records in the ``standard`` codec, as samples of one epoch.

    Args:
        manifest: of the store that is planned.
        records: ``index`` [N, K], ``logp`` [N, K] and ``tail`` [N] of any number of views, as they are stored.
    """
    count = len(records["tail"])
    enough = max(WITNESS_EVERY, 1 << (count - 1).bit_length())
    shard_size = min(manifest.shard_size, enough)
    small = replace(
        manifest,
        num_samples=count,
        num_epochs=1,
        shard_size=shard_size,
        chunk_size=min(manifest.chunk_size, shard_size),
        inference={**manifest.inference, "batch_size": min(manifest.inference["batch_size"], shard_size)},
    )
    with tempfile.TemporaryDirectory(prefix="logitstore-plan-", dir=_scratch()) as folder:
        store = create_store(Path(folder) / "store", small)
        write_epoch(store, 0, records)
        size = sum(size for _, size in store.objects.walk())
        commits = [store.commit(*shard) for shard in store.committed()]
        of_commits = sum(len(store.objects.get(commit.key)) for commit in commits)
    of_records = sum(stored.size for commit in commits for stored in commit.objects.values())
    return Weight(
        fixed=size - of_commits - of_records,
        per_shard=of_commits / len(commits),
        per_record=of_records / count,
        num_samples=manifest.num_samples,
        shard_size=manifest.shard_size,
    )


def _scratch() -> str | None:
    """A file system in memory, where there is one: a store syncs each object, and on a disk that takes longest."""
    return str(_IN_MEMORY) if _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK) else None


def write_epoch(store: Store, epoch: int, records: Mapping[str, NDArray[Any]]) -> None:
    """Write one epoch of records that no images belong to; witnesses are made up, but as hard to compress as real ones.

    Args:
        store: where to.
        epoch: number of the epoch.
        records: ``index``, ``logp`` and ``tail`` of all samples, in their own numbering.
    """
    order, run_seed = store.order(epoch), store.manifest.run_seed
    for shard in range(store.num_shards):
        samples = order.samples(np.arange(*store.shard_range(shard)))
        seed = view_seeds(run_seed, epoch, samples)
        block = ShardBlock(
            seed=seed,
            witness=view_seeds(run_seed, epoch, seed[::WITNESS_EVERY]),
            **{name: array[samples] for name, array in records.items()},
        )
        claim = claim_shard(store, epoch, shard)
        assert claim is not None, "nobody else writes this store"
        with claim:
            commit_shard(store, claim, block)
