"""``Store``: a store opened for reading. Nothing here writes.

Before a shard's first use its objects are compared with the checksums in the commit. They are then decoded block by
block, and the last few blocks stay in a small cache. Consecutive reads are therefore as fast as decoding, and take
memory that does not depend on the store; random ones are not what a store is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import IncompleteError, InputError
from logitstore.pcg import VisitOrder
from logitstore.store.blocks import Block, BlockReader
from logitstore.store.commits import Commit, commit_key, parse_commit_name
from logitstore.store.dense import decode_logits, require_logits
from logitstore.store.forms import form_of
from logitstore.store.layout import COMMITS
from logitstore.store.manifest import WITNESS_EVERY, Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.records import DecodedRecords, Records, ShardBlock
from logitstore.store.summary import summary

if TYPE_CHECKING:
    from logitstore.store.shards import ShardCoder

_CACHE_BYTES = 16 << 20
_ORDERS = 4


class Store:
    """A store at rest or in the making; made by ``open_store`` and ``create_store``.

    Safe to use from several threads.

    Args:
        objects: where its bytes lie.
        manifest: what it holds.
        documents: ``zarr.json`` of each array by name.
        cache_bytes: how much memory decoded blocks may take; the last one read is kept in any case.
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
        # Its keys cost as much as reading some hundred records.
        self._order = lru_cache(_ORDERS)(
            lambda epoch: VisitOrder(num_samples=manifest.num_samples, run_seed=manifest.run_seed, epoch=epoch)
        )
        self.form = form_of(objects, manifest, documents, commit=self.commit, order=self.order)
        self._blocks = BlockReader(
            self.form, shard_size=manifest.shard_size, commit=self.commit, cache_bytes=cache_bytes
        )

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Store {self.path}: {m.num_epochs} epochs of {m.num_samples} samples, top {m.topk} of {m.num_classes}>"

    @property
    def members(self) -> tuple[Store, ...]:
        """This store alone; an ``Ensemble`` has several."""
        return (self,)

    @property
    def path(self) -> Path:
        """Where the store lies."""
        return self.objects.root

    @property
    def store_id(self) -> str:
        """SHA-256 of what the store was made of."""
        return self.manifest.store_id

    @property
    def records_id(self) -> str:
        """Store id of the standard store of the same records."""
        return self.manifest.records_id

    def identity(self) -> dict[str, Any]:
        """What tells its records from others, as JSON values."""
        return {"store": self.records_id}

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
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes that records number: the teacher's, else the data set's where it has as many."""
        names = self.manifest.teacher.get("class_names") or self.manifest.dataset.get("class_names")
        return tuple(names) if names and len(names) == self.num_classes else None

    @property
    def topk(self) -> int:
        """K."""
        return self.manifest.topk

    @property
    def num_shards(self) -> int:
        """Shards in one epoch."""
        return self.manifest.num_shards

    @property
    def cached_bytes(self) -> int:
        """Memory that decoded blocks take now."""
        return self._blocks.nbytes

    @cached_property
    def coder(self) -> ShardCoder:
        """What encodes shards for this store."""
        from logitstore.store.shards import ShardCoder  # zarr loads where a store is written

        return ShardCoder(self.manifest, self.documents)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First position of a shard, and the one after its last."""
        return self.manifest.shard_range(shard)

    def order(self, epoch: int) -> VisitOrder:
        """The order in which an epoch visits the samples."""
        return self._order(epoch)

    def committed(self) -> set[tuple[int, int]]:
        """Every (epoch, shard) that exists now."""
        found = (parse_commit_name(name) for name in self.objects.list(COMMITS))
        return {pair for pair in found if pair is not None and pair[0] < self.num_epochs and pair[1] < self.num_shards}

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
                f"{self.path} lacks epoch {epoch}, shard {shard}: it was not committed. "
                f"`logitstore {self.manifest.codec.command}` completes it."
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
        from logitstore.store.kernels import visited  # numba loads where records are first decoded

        self._check_positions(epoch, start, stop)
        count, m = stop - start, self.manifest
        out = DecodedRecords.empty(count, min(topk or m.topk, m.topk), m.index_dtype)
        seed, logz = np.empty(count, np.uint32), np.empty(count, np.float32) if m.logz else None
        at = 0
        for block, low, high in self._parts(epoch, start, stop):
            out.decode(at, block.index, block.logp, block.tail, low, high, values=m.values)
            here = slice(at, at + high - low)
            seed[here] = block.seed[low:high]
            if logz is not None and block.logz is not None:
                logz[here] = block.logz[low:high]
            at = here.stop
        return Records(
            sample=visited(self.order(epoch), start, stop),
            seed=seed,
            index=out.index,
            prob=out.prob,
            tail=out.tail,
            kept=out.kept,
            weight=(out.kept > 0).astype(np.float32),
            logz=logz,
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
        for block, low, high in self._parts(epoch, start, stop):
            index, logp = (np.concatenate(list(array[:, low:high]), axis=1) for array in (block.index, block.logp))
            assert block.logz is not None
            parts.append(decode_logits(index, logp, block.logz[low:high], self.num_classes))
        return np.concatenate(parts)

    def require_logits(self) -> None:
        """Refuse a store without logits: InputError, with the command that makes one that has them."""
        require_logits(self.manifest, self.path)

    def witnesses(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """The positions in [start, stop) that have a witness, and their CRC-32Cs."""
        self._check_positions(epoch, start, stop)
        first, last = -(-start // WITNESS_EVERY), -(-stop // WITNESS_EVERY)
        size, parts = self.manifest.shard_size // WITNESS_EVERY, []
        for shard in range(first // size, -(-last // size)):
            here = slice(max(first - shard * size, 0), last - shard * size)
            parts.append(self._blocks.witness(epoch, shard)[here])
        found = np.concatenate(parts) if parts else np.empty(0, np.uint32)
        return np.arange(first, last) * WITNESS_EVERY, found

    def block(self, epoch: int, shard: int) -> ShardBlock:
        """One shard's arrays as they are stored, checked against its commit."""
        return self._blocks.shard(epoch, shard)

    def info(self) -> dict[str, Any]:
        """What the store is and how much of it is there, as JSON values."""
        return summary(self)

    def _check_positions(self, epoch: int, start: int, stop: int) -> None:
        if not 0 <= epoch < self.num_epochs:
            raise InputError(f"There is no epoch {epoch}; {self.path} has room for epochs 0..{self.num_epochs - 1}.")
        if not 0 <= start < stop <= self.num_samples:
            raise InputError(f"Positions {start} to {stop} do not lie in 0..{self.num_samples}.")

    def _parts(self, epoch: int, start: int, stop: int) -> Iterator[tuple[Block, int, int]]:
        """The blocks that positions [start, stop) touch, each with the range inside it."""
        self._check_positions(epoch, start, stop)
        size = self._blocks.size
        for number in range(start // size, -(-stop // size)):
            first = number * size
            yield self._blocks.block(epoch, number), max(start - first, 0), min(stop - first, size)
