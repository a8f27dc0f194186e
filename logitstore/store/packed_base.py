"""The model of a packed store: what its base epochs tell of every sample. Read once, when a record first needs it.

A base epoch is coded with what those before it tell, so the model grows by one epoch after the other. Nothing of it
lies in the store but the base epochs themselves; a checksum over their objects ties every coded chunk to them.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from logitstore.checksums import canonical_json
from logitstore.errors import IncompleteError
from logitstore.launch import Launch, usable_cores
from logitstore.store.blocks import Block
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.commits import Commit
from logitstore.store.manifest import Manifest
from logitstore.store.packed import BASE_RANKS, Base, RecordShape

T = TypeVar("T")
Chunk = tuple[NDArray[np.int64], Block]
"""Sample numbers and records of the positions of one chunk."""


class BaseEpochs:
    """The model by level: how many base epochs it knows. Safe to use from several threads.

    Args:
        manifest: of the store.
        codec: its codec.
        commit: gives a shard's commit.
        chunks: tasks that decode the chunks of a base epoch, in their order, given the model to decode them with.
    """

    def __init__(
        self,
        manifest: Manifest,
        codec: PackedCodec,
        commit: Callable[[int, int], Commit],
        chunks: Callable[[int, Base], Iterable[Callable[[], Chunk]]],
    ) -> None:
        self._manifest, self._codec, self._commit, self._chunks = manifest, codec, commit, chunks
        self._lock = threading.Lock()
        self._base = self._nothing()
        self._checksums: dict[int, int] = {}

    def at(self, level: int) -> Base:
        """The model that knows so many base epochs, read as far as it has to be.

        Raises:
            IncompleteError: one of their shards is not there.
            DamagedError: one of their objects is not what was committed.
        """
        with self._lock:
            while self._base.level < level:
                epoch = self._codec.base[self._base.level]
                try:
                    self._base.add(_ahead(self._chunks(epoch, self._base.upto(self._base.level))))
                except BaseException:
                    self._base = self._nothing()  # part of an epoch may be in it
                    raise
            return self._base.upto(level)

    def checksum(self, level: int) -> int:
        """CRC-32C over size and CRC-32C of the objects that so many base epochs consist of.

        Raises:
            IncompleteError: one of their shards is not there.
            DamagedError: one of their commits was altered.
        """
        if level not in self._checksums:
            commits = (
                self._commit(epoch, shard)
                for epoch in self._codec.base[:level]
                for shard in range(self._manifest.num_shards)
            )
            objects = [(c.epoch, c.shard, c.objects["packed"].crc32c, c.objects["packed"].size) for c in commits]
            self._checksums[level] = int(google_crc32c.value(canonical_json(objects)))
        return self._checksums[level]

    def room(self) -> int:
        """Bytes that the whole model takes at most, by what the commits of the base epochs count.

        Raises:
            DamagedError: one of these commits was altered.
        """
        nothing, levels = self._nothing(), len(self._codec.base)
        entry = nothing.shape.index_dtype.itemsize + 1
        kept = 0
        for epoch in self._codec.base:
            for shard in range(self._manifest.num_shards):
                with contextlib.suppress(IncompleteError):
                    commit = self._commit(epoch, shard)
                    kept += min(commit.kept, BASE_RANKS * commit.records)
        return (levels + 1) * nothing.nbytes + 4 * (levels * self._manifest.num_samples + 1) + entry * kept

    def _nothing(self) -> Base:
        return Base(RecordShape.of(self._manifest), self._manifest.num_samples)


def _ahead(tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results of tasks in their order, done by a thread a core; only a few wait to be taken."""
    threads = max(1, usable_cores() // Launch.from_environment().local_world)
    under_way: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="logitstore-base") as pool:
        try:
            for task in tasks:
                under_way.append(pool.submit(task))
                if len(under_way) > 2 * threads:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
