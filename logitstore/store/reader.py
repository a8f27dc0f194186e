"""``Store``: a store opened for reading. Nothing here writes.

A shard is read whole: its objects are loaded, compared once with the checksums in the commit, decoded in memory and
kept in a small cache. Consecutive reads are therefore as fast as decoding; random ones are not what a store is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DamagedError, IncompleteError, InputError
from logitstore.pcg import VisitOrder
from logitstore.store.cache import DecodedShard, ShardCache
from logitstore.store.commits import Commit, commit_key, parse_commit_name, read_object
from logitstore.store.dense import decode_logits, require_logits
from logitstore.store.layout import COMMITS, array_layouts
from logitstore.store.manifest import WITNESS_EVERY, Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.records import Records, ShardBlock, decode_records, kept_counts
from logitstore.store.shards import ShardCoder

_CACHE_BYTES = 256 << 20


class Store:
    """A store at rest or in the making; made by ``open_store`` and ``create_store``.

    Safe to use from several threads.

    Args:
        objects: where its bytes lie.
        manifest: what it holds.
        documents: ``zarr.json`` of each array by name.
        cache_bytes: how much memory decoded shards may take; the last one read is kept in any case.
    """

    def __init__(
        self,
        objects: LocalObjects,
        manifest: Manifest,
        documents: dict[str, bytes],
        *,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.objects = objects
        self.manifest = manifest
        self.documents = documents
        self.coder = ShardCoder(manifest, documents)
        self._layouts = array_layouts(manifest)
        self.cache = ShardCache(self._load, cache_bytes)

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Store {self.path}: {m.num_epochs} epochs of {m.num_samples} samples, top {m.topk} of {m.num_classes}>"

    @property
    def path(self) -> Path:
        """Where the store lies."""
        return self.objects.root

    @property
    def store_id(self) -> str:
        """SHA-256 of what the store was made of."""
        return self.manifest.store_id

    @property
    def num_samples(self) -> int:
        """N."""
        return self.manifest.num_samples

    @property
    def num_epochs(self) -> int:
        """E, the epochs there is room for; ``complete_epochs`` tells which are there."""
        return self.manifest.num_epochs

    @property
    def num_classes(self) -> int:
        """C."""
        return self.manifest.num_classes

    @property
    def topk(self) -> int:
        """K."""
        return self.manifest.topk

    @property
    def num_shards(self) -> int:
        """Shards in one epoch."""
        return self.manifest.num_shards

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First position of a shard, and the one after its last."""
        return self.manifest.shard_range(shard)

    def order(self, epoch: int) -> VisitOrder:
        """The order in which an epoch visits the samples."""
        return VisitOrder(num_samples=self.num_samples, run_seed=self.manifest.run_seed, epoch=epoch)

    def committed(self) -> set[tuple[int, int]]:
        """Every (epoch, shard) that exists now."""
        found = (parse_commit_name(name) for name in self.objects.list(COMMITS))
        return {
            pair for pair in found if pair is not None and pair[0] < self.num_epochs and pair[1] < self.num_shards
        }

    def is_committed(self, epoch: int, shard: int) -> bool:
        """Whether a shard exists."""
        return self.objects.exists(commit_key(epoch, shard))

    def complete_epochs(self) -> list[int]:
        """Epochs all of whose shards exist, ascending."""
        committed = self.committed()
        shards = range(self.num_shards)
        return [e for e in range(self.num_epochs) if all((e, s) in committed for s in shards)]

    @property
    def complete(self) -> bool:
        """Whether every shard of every epoch exists."""
        return len(self.committed()) == self.num_epochs * self.num_shards

    def commit(self, epoch: int, shard: int) -> Commit:
        """A shard's commit.

        Raises:
            IncompleteError: there is none.
            DamagedError: it was altered, or belongs elsewhere.
        """
        key = commit_key(epoch, shard)
        try:
            data = self.objects.get(key)
        except FileNotFoundError as exc:
            raise IncompleteError(
                f"{self.path} lacks epoch {epoch}, shard {shard}: it was not committed. `logitstore dump` completes it."
            ) from exc
        return Commit.from_bytes(data, store_id=self.store_id, epoch=epoch, shard=shard, where=f"{self.path}/{key}")

    def read(self, epoch: int, start: int, stop: int, *, topk: int | None = None) -> Records:
        """Records at positions ``start`` to ``stop`` of an epoch, as masses.

        Args:
            epoch: number of the epoch.
            start: first position.
            stop: one after the last position, at most N.
            topk: keep only the first k ranks; the others' mass goes to the tail.

        Raises:
            InputError: outside the store.
            IncompleteError: a shard is not there.
            DamagedError: a stored object is not what was committed.
        """
        if topk is not None and topk < 1:
            raise InputError(f"topk must be at least 1, got {topk}.")
        parts = [
            {name: array[low:high] for name, array in self.cache.get(epoch, shard).by_position().items()}
            for shard, low, high in self._spans(epoch, start, stop)
        ]
        joined = parts[0] if len(parts) == 1 else {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
        index, prob, tail = decode_records(joined["index"], joined["logp"], joined["tail"], topk=topk)
        kept = kept_counts(index)
        return Records(
            sample=joined["sample"].copy(),
            seed=joined["seed"].copy(),
            index=index,
            prob=prob,
            tail=tail,
            kept=kept,
            weight=(kept > 0).astype(np.float32),
            logz=joined["logz"].copy() if "logz" in joined else None,
        )

    def logits(self, epoch: int, start: int, stop: int) -> NDArray[np.float32]:
        """The teacher's logits at positions ``start`` to ``stop`` of an epoch, float32 [B, C], NaN for skipped samples.

        Raises:
            InputError: the store is not dense or lacks ``logz``, or the positions lie outside it.
            IncompleteError: a shard is not there.
            DamagedError: a stored object is not what was committed.
        """
        self.require_logits()
        parts = []
        for shard, low, high in self._spans(epoch, start, stop):
            arrays = self.block(epoch, shard).arrays()
            index, logp, logz = (arrays[name][low:high] for name in ("index", "logp", "logz"))
            parts.append(decode_logits(index, logp, logz, self.num_classes))
        return np.concatenate(parts)

    def require_logits(self) -> None:
        """Refuse a store without logits: InputError, with the command that makes one that has them."""
        require_logits(self.manifest, self.path)

    def witnesses(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """The positions in [start, stop) that have a witness, and their CRC-32Cs."""
        positions = np.arange(-(-start // WITNESS_EVERY) * WITNESS_EVERY, stop, WITNESS_EVERY)
        found = np.empty(len(positions), np.uint32)
        for shard, low, high in self._spans(epoch, start, stop):
            first = shard * self.manifest.shard_size
            here = (positions >= first + low) & (positions < first + high)
            found[here] = self.block(epoch, shard).witness[(positions[here] - first) // WITNESS_EVERY]
        return positions, found

    def block(self, epoch: int, shard: int) -> ShardBlock:
        """One shard's arrays as they are stored, checked against its commit; do not write to them."""
        return self.cache.get(epoch, shard).block

    def info(self) -> dict[str, Any]:
        """What the store is and how much of it is there, as JSON values."""
        m = self.manifest
        committed = self.committed()
        records = sum(stop - start for start, stop in (self.shard_range(shard) for _, shard in committed))
        size = sum(size for _, size in self.objects.walk())
        return {
            "path": str(self.path),
            "store_id": self.store_id,
            "num_samples": m.num_samples,
            "num_epochs": m.num_epochs,
            "num_classes": m.num_classes,
            "topk": m.topk,
            "floor": m.floor,
            "values": m.values,
            "logz": m.logz,
            "run_seed": m.run_seed,
            "shard_size": m.shard_size,
            "records": records,
            "bytes": size,
            "bytes_per_record": size / records if records else None,
            "complete": len(committed) == self.num_epochs * self.num_shards,
            "complete_epochs": self.complete_epochs(),
            "shards": {"committed": len(committed), "total": self.num_epochs * self.num_shards},
            "teacher": m.teacher,
            "dataset": m.dataset,
            "view": m.view,
            "inference": m.inference,
            "versions": m.versions,
        }

    def _spans(self, epoch: int, start: int, stop: int) -> Iterable[tuple[int, int, int]]:
        """Shards that positions [start, stop) touch, each with the range inside it."""
        if not 0 <= epoch < self.num_epochs:
            raise InputError(f"There is no epoch {epoch}; {self.path} has room for epochs 0..{self.num_epochs - 1}.")
        if not 0 <= start < stop <= self.num_samples:
            raise InputError(f"Positions {start} to {stop} do not lie in 0..{self.num_samples}.")
        size = self.manifest.shard_size
        for shard in range(start // size, -(-stop // size)):
            first = shard * size
            yield shard, max(start - first, 0), min(stop - first, size)

    def _load(self, epoch: int, shard: int) -> DecodedShard:
        commit = self.commit(epoch, shard)
        arrays = {}
        for name, layout in self._layouts.items():
            key = layout.key(epoch, shard)
            data = read_object(self.objects, key, commit.objects[name])
            try:
                arrays[name] = self.coder.decode(name, epoch, shard, data)
            except (ValueError, RuntimeError) as exc:
                raise DamagedError(f"{self.path}/{key} is what was committed, but does not decode: {exc}") from exc
        sample = self.order(epoch).samples(np.arange(*self.shard_range(shard)))
        return DecodedShard(block=ShardBlock(**arrays), sample=sample)
