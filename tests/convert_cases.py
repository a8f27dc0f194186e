"""What the tests of packed stores share: stores of several epochs, and their conversions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from logitstore.convert import ConvertConfig, ConvertResult, convert
from logitstore.store import Manifest, Store, claim_shard, commit_shard, open_store
from tests.store_cases import COARSE, DENSE, SMALL, make_block

SIX = replace(SMALL, num_epochs=6)
"""Three shards an epoch, the last one shorter; room for four base epochs and two more."""
MANIFESTS = {
    "q8": SIX,
    "f16 with logz, dense": replace(DENSE, num_epochs=5),
    "by code": replace(COARSE, num_epochs=5),
    "many classes": replace(SMALL, num_epochs=2, num_classes=70_000),
    "one sample": replace(SMALL, num_epochs=5, num_samples=1),
    "odd, in one shard": replace(SMALL, num_epochs=5, num_samples=257, shard_size=512),
    "fewer than base epochs": replace(SMALL, num_epochs=2),
}


def write_epochs(store: Store, *epochs: int, own_seeds: bool = False) -> None:
    """Commit epochs of a store; with seeds that are not derived from the run seed, where asked."""
    for epoch in epochs:
        for shard in range(store.num_shards):
            claim = claim_shard(store, epoch, shard)
            assert claim is not None
            with claim:
                block = make_block(store.manifest, epoch, shard)
                commit_shard(store, claim, replace(block, seed=block.seed ^ np.uint32(own_seeds)))


def converted(store: Path, out: Path, codec: str = "packed", **options: int) -> ConvertResult:
    """What ``logitstore convert`` does."""
    return convert(ConvertConfig(store=str(store), out=str(out), codec=codec, **options))  # type: ignore[arg-type]


def same_records(one: Path, other: Path, epochs: range) -> None:
    """Every shard of some epochs holds the same arrays, to the bit."""
    left, right = open_store(one), open_store(other)
    for epoch in epochs:
        for shard in range(left.num_shards):
            ours, theirs = left.block(epoch, shard).arrays(), right.block(epoch, shard).arrays()
            assert ours.keys() == theirs.keys()
            for name, array in ours.items():
                assert array.dtype == theirs[name].dtype and array.tobytes() == theirs[name].tobytes(), name


def packed_manifest(manifest: Manifest, **changes: object) -> Manifest:
    """The manifest of the packed form of a store, chunks of 64 positions."""
    from logitstore.store.codecs.packed import PackedCodec

    values: dict[str, object] = {"base": (0, 1), "chunk": 64, "source": manifest.codec.standard, **changes}
    return replace(manifest, codec=PackedCodec(**values))  # type: ignore[arg-type]
