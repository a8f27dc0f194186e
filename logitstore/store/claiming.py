"""The shards of a store that this process makes: claimed as far ahead as work goes, given back in any case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from logitstore.progress import Progress
from logitstore.store.claims import Claim, claim_key, read_chain
from logitstore.store.reader import Store
from logitstore.store.writer import claim_shard

Shard = tuple[int, int]
"""Epoch and number of a shard in it."""


class Claims:
    """Claims on shards that are neither committed nor held by a live process. A context manager.

    Leaving it gives back what nobody took over from it.

    Args:
        store: where the shards belong.
        shards: those to be made, in the order in which to try them.
        bar: advanced by the shards that other processes commit meanwhile.
    """

    def __init__(self, store: Store, shards: list[Shard], bar: Progress) -> None:
        self._store, self._bar = store, bar
        self._missing = shards
        self._ours: set[Shard] = set()
        self._held: dict[Shard, Claim] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            self._held.popitem()[1].release()

    def ranges(self) -> Iterator[tuple[int, int, int]]:
        """Epoch, start and stop of one claimed shard after the other, until a whole round finds none to claim.

        Every round also takes up what other processes gave back or left behind meanwhile.
        """
        progressed = True
        while progressed:
            progressed = False
            for shard in self.missing():
                claim = claim_shard(self._store, *shard)
                if claim is not None:
                    progressed = True
                    self._ours.add(shard)
                    self._held[shard] = claim
                    self.missing()  # shows what others did meanwhile
                    yield shard[0], *self._store.shard_range(shard[1])

    def take(self, shard: Shard) -> Claim:
        """Hand over a claim: from now on the caller gives it back."""
        return self._held.pop(shard)

    def missing(self) -> list[Shard]:
        """The shards that are not committed at present, in the order in which to try them."""
        committed = self._store.committed()
        done = [shard for shard in self._missing if shard in committed]
        if done:
            self._missing = [shard for shard in self._missing if shard not in committed]
            by_others = [shard for shard in done if shard not in self._ours]
            self._bar.advance(count_records(self._store, by_others))
        return self._missing


def holder(store: Store, epoch: int, shard: int) -> str:
    """Who works on a shard, in words."""
    chain = read_chain(store.objects, claim_key(epoch, shard))
    who = f"process {chain[-1].owner.pid} on {chain[-1].owner.host.split('/')[0]}" if chain else "another process"
    return f"epoch {epoch}, shard {shard}: {who}"


def count_records(store: Store, shards: list[Shard]) -> int:
    """How many positions these shards have together."""
    return sum(stop - first for first, stop in (store.shard_range(shard) for _, shard in shards))
