"""What records weigh: a sample is written into a real store, whose bytes are told apart by what they grow with.

A small store says little about a large one as a whole: its metadata are shared by few records. So there are three
parts: metadata written once, the commit of each shard, and the records. Chunks are as long as in the real store, or as
long as the sample where that is shorter, which takes a little more: the estimate is rather too large.

In a standard store all views are samples of one epoch. In a packed store they are epochs, since later epochs are coded
with what the first ones tell. Those beyond the sample are taken to weigh what its last ones do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.convert.config import BASE_EPOCHS, CodecName
from logitstore.pcg import view_seeds
from logitstore.store import (
    WITNESS_EVERY,
    Commit,
    Manifest,
    ShardBlock,
    Store,
    claim_shard,
    commit_shard,
    create_store,
)
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.layout import choose_packed_chunk

_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Bytes of a store, by what they grow with."""

    fixed: float
    """Once: metadata."""
    per_shard: float
    """For each shard of each epoch: its commit."""
    per_record: tuple[float, ...]
    """For each record, its seed and its share of checksums included: of epoch 0, 1, …, the last one for all that
    follow."""
    num_samples: int
    """N of the store that is planned."""
    shard_size: int
    """Positions in a shard of it."""

    def total(self, epochs: int) -> float:
        """Bytes of the store that is planned, with so many epochs."""
        shards = -(-self.num_samples // self.shard_size)
        first = self.per_record[:epochs]
        records = sum(first) + (epochs - len(first)) * self.per_record[-1]
        return self.fixed + epochs * shards * self.per_shard + self.num_samples * records

    def bytes_per_record(self, epochs: int) -> float:
        """The same for each of its records."""
        return self.total(epochs) / (epochs * self.num_samples)


def weigh(manifest: Manifest, records: Mapping[str, NDArray[Any]], views: int, codec: CodecName) -> Weight:
    """Weigh records in a codec.

    Args:
        manifest: of the standard store that is planned.
        records: ``index`` [S V, K], ``logp`` [S V, K] and ``tail`` [S V], as they are stored; the V views of an image
            adjacent.
        views: V.
        codec: ``standard`` or ``packed``.
    """
    if codec == "standard":
        epochs = [records]
        small = _smaller(manifest, len(records["tail"]), 1)
    else:
        epochs = [{name: array[view::views] for name, array in records.items()} for view in range(views)]
        small = _packed(_smaller(manifest, len(epochs[0]["tail"]), views))
    with tempfile.TemporaryDirectory(prefix="logitstore-plan-", dir=_scratch()) as folder:
        store = create_store(Path(folder) / "store", small)
        sizes = [write_epoch(store, epoch, part) for epoch, part in enumerate(epochs)]
        fixed = sum(size for _, size in store.objects.walk()) - sum(map(sum, sizes))
    per_record = [objects / store.num_samples for _, objects in sizes]
    if later := per_record[BASE_EPOCHS:]:
        per_record[BASE_EPOCHS:] = [mean(later)]  # these are coded alike
    return Weight(
        fixed=fixed,
        per_shard=sum(commits for commits, _ in sizes) / (store.num_shards * len(sizes)),
        per_record=tuple(per_record),
        num_samples=manifest.num_samples,
        shard_size=manifest.shard_size,
    )


def _smaller(manifest: Manifest, count: int, epochs: int) -> Manifest:
    """The same store of fewer samples and epochs."""
    shard_size = min(manifest.shard_size, max(WITNESS_EVERY, 1 << (count - 1).bit_length()))
    return replace(
        manifest,
        num_samples=count,
        num_epochs=epochs,
        shard_size=shard_size,
        chunk_size=min(manifest.chunk_size, shard_size),
        inference={**manifest.inference, "batch_size": min(manifest.inference["batch_size"], shard_size)},
    )


def _packed(manifest: Manifest) -> Manifest:
    """The store that ``convert`` makes of a complete one."""
    base = tuple(range(min(BASE_EPOCHS, manifest.num_epochs)))
    return replace(manifest, codec=PackedCodec(base=base, chunk=choose_packed_chunk(manifest)))


def _scratch() -> str | None:
    """A file system in memory, where there is one: a store syncs each object, and on a disk that takes longest."""
    return str(_IN_MEMORY) if _IN_MEMORY.is_dir() and os.access(_IN_MEMORY, os.W_OK) else None


def write_epoch(store: Store, epoch: int, records: Mapping[str, NDArray[Any]]) -> tuple[int, int]:
    """Write one epoch of records that no images belong to; witnesses are made up, but as hard to compress as real ones.

    Args:
        store: where to.
        epoch: number of the epoch.
        records: ``index``, ``logp`` and ``tail`` of all samples, in their own numbering.

    Returns:
        bytes of its commits, and bytes of the objects that they commit.
    """
    of_commits = of_objects = 0
    for shard in range(store.num_shards):
        samples = store.order(epoch).samples(np.arange(*store.shard_range(shard)))
        seed = view_seeds(store.manifest.run_seed, epoch, samples)
        witness = view_seeds(store.manifest.run_seed, epoch, seed[::WITNESS_EVERY])
        part = {name: array[samples] for name, array in records.items()}
        commit = write_shard(store, epoch, shard, ShardBlock(seed=seed, witness=witness, **part))
        of_commits += len(store.objects.get(commit.key))
        of_objects += sum(stored.size for stored in commit.objects.values())
    return of_commits, of_objects


def write_shard(store: Store, epoch: int, shard: int, block: ShardBlock) -> Commit:
    """Claim a shard of a store that nobody else writes, and commit it; the commit is as long as a real one.

    Args:
        store: where to.
        epoch: number of the epoch.
        shard: number of the shard.
        block: what it holds.
    """
    claim = claim_shard(store, epoch, shard)
    assert claim is not None, "nobody else writes this store"
    # A packed shard's commit says which shard it was made of.
    packed = isinstance(store.manifest.codec, PackedCodec)
    info = {"source": dict.fromkeys(block.arrays(), "0" * 8)} if packed else None
    with claim:
        return commit_shard(store, claim, block, info)
