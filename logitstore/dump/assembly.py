"""From selections to commits, beside the teacher: one thread encodes batches, one writes finished shards.

What waits here is bounded: a few batches of selections, one shard in the making and one being written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ClaimLostError
from logitstore.progress import Progress
from logitstore.store import Claim, Commit, ShardBlock, Store, commit_shard
from logitstore.store.claiming import Shard

Part = dict[str, NDArray[Any]]
"""The arrays of a shard for one batch, by name, as they are stored."""
_PARTS_UNDER_WAY = 3  # a GPU has something to do while one is encoded and one is waited for


class Assembly:
    """Takes the batches of one shard after the other and commits each shard when it is whole. A context manager.

    Leaving it waits for the last commit, also when a later shard failed.

    Args:
        store: where shards go.
        bar: told of what goes wrong, and of the size of records.
    """

    def __init__(self, store: Store, bar: Progress) -> None:
        self.made: list[Shard] = []
        self._records = self._bytes = 0
        self._store, self._bar = store, bar
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="logitstore-encoder")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="logitstore-writer")
        self._under_way: deque[Future[Part]] = deque()
        self._parts: list[Future[Part]] = []
        self._commit: Future[Commit | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._encoder.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        if kind is None:
            self._settle()

    def add(self, encode: Callable[[], Part]) -> None:
        """Take the next batch of the present shard; what went wrong with one before is raised here.

        Args:
            encode: makes its arrays, in a thread; waits for the teacher's device.
        """
        part = self._encoder.submit(encode)
        self._under_way.append(part)
        self._parts.append(part)
        while len(self._under_way) > _PARTS_UNDER_WAY:
            self._under_way.popleft().result()

    def finish(self, claim: Claim) -> None:
        """Commit the present shard, which is whole, and give its claim back, soon; the next batch begins another."""
        parts, self._parts = self._parts, []
        try:
            self._settle()
        except BaseException:
            claim.release()
            raise
        self._commit = self._writer.submit(self._write, claim, parts)

    def _write(self, claim: Claim, parts: list[Future[Part]]) -> Commit | None:
        with claim:
            arrays = [part.result() for part in parts]
            block = ShardBlock(**{name: np.concatenate([array[name] for array in arrays]) for name in arrays[0]})
            try:
                return commit_shard(self._store, claim, block)
            except ClaimLostError as error:
                self._bar.say(str(error))
                return None

    def _settle(self) -> None:
        """Wait for the commit before and count it."""
        pending, self._commit = self._commit, None
        commit = None if pending is None else pending.result()
        if commit is not None:
            self.made.append((commit.epoch, commit.shard))
            self._records += commit.records
            self._bytes += sum(stored.size for stored in commit.objects.values())
            self._bar.advance(0, **{"B/record": f"{self._bytes / self._records:.1f}"})
