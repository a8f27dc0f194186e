"""``dump``: shard after shard, until every one is committed or in other hands."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Self

from logitstore.dump.config import DumpConfig, DumpResult
from logitstore.dump.producer import Producer
from logitstore.errors import ClaimLostError
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.signals import stop_requests
from logitstore.store import Claim, Commit, ShardBlock, Store, claim_shard, commit_shard
from logitstore.store.claims import claim_key, read_chain


def dump(config: DumpConfig, progress: ProgressFactory | None = None) -> DumpResult:
    """Make every shard of the requested epochs that is not committed yet, and that no other process is making.

    Ctrl-C and SIGTERM end it after the batch, with the claim given back.

    Args:
        config: what to dump. Called again with the same one, it makes what is missing.
        progress: how to show progress; None is silent.

    Returns:
        What was made and what is left. That other processes are still at work is no error.

    Raises:
        InputError: something the user named cannot be used.
        MismatchError: the store exists and was made of something else.
        NonFiniteError: the teacher gave a NaN or an Inf.
    """
    producer = Producer(config, progress)
    epochs = range(config.start_epoch, config.num_epochs)
    store = producer.open_store(epochs)
    wanted = [(epoch, shard) for epoch in epochs for shard in range(store.num_shards)]
    total = _num_records(store, wanted)
    missing = [pair for pair in wanted if not store.is_committed(*pair)]
    with (
        start(progress, total, "img", "dump", done=total - _num_records(store, missing)) as bar,
        producer.threads(),
        stop_requests() as stop,
    ):
        with _Writer(store, bar) as writer:
            for claim in _claims(store, missing):
                with ExitStack() as held:
                    held.enter_context(claim)
                    block = producer.make_shard(claim.epoch, claim.shard, bar, stop)
                    if block is None:
                        break
                    writer.commit(claim, block)
                    held.pop_all()  # the writer gives the claim back
                if stop.signum is not None:
                    break
        seconds = bar.seconds
    stop.obey()
    left = [pair for pair in missing if not store.is_committed(*pair)]
    return DumpResult(
        store=str(store.path),
        complete=not left,
        shards=writer.shards,
        records=writer.records,
        skipped=writer.skipped,
        images_per_second=writer.records / max(seconds, 1e-9),
        bytes_per_record=store.info()["bytes_per_record"],
        in_progress=tuple(_holder(store, *pair) for pair in left),
    )


class _Writer:
    """Commits one shard in a thread of its own while the next one is made. A context manager.

    Leaving it waits for the last commit, also when the next shard failed.
    """

    def __init__(self, store: Store, bar: Progress) -> None:
        self.shards = self.records = self.skipped = 0
        self._bytes = 0
        self._store, self._bar = store, bar
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logitstore-writer")
        self._pending: Future[Commit | None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self._settle()

    def commit(self, claim: Claim, block: ShardBlock) -> None:
        """Commit a shard and give its claim back, soon; what went wrong with the one before is raised here."""
        self._settle()
        self._pending = self._thread.submit(self._commit, claim, block)

    def _commit(self, claim: Claim, block: ShardBlock) -> Commit | None:
        with claim:
            try:
                return commit_shard(self._store, claim, block)
            except ClaimLostError as error:
                self._bar.say(str(error))
                return None

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        commit = None if pending is None else pending.result()
        if commit is not None:
            self.shards += 1
            self.records += commit.records
            self.skipped += commit.skipped
            self._bytes += sum(stored.size for stored in commit.objects.values())
            self._bar.advance(0, **{"B/record": f"{self._bytes / self.records:.1f}"})


def _claims(store: Store, missing: list[tuple[int, int]]) -> Iterator[Claim]:
    """Claims on shards that are neither committed nor held by a live process, until a whole round finds none.

    Every round also takes up what other processes gave back or left behind meanwhile.
    """
    progressed = True
    while progressed:
        progressed = False
        missing = [pair for pair in missing if not store.is_committed(*pair)]
        for epoch, shard in missing:
            claim = claim_shard(store, epoch, shard)
            if claim is not None:
                progressed = True
                yield claim


def _holder(store: Store, epoch: int, shard: int) -> str:
    chain = read_chain(store.objects, claim_key(epoch, shard))
    who = f"process {chain[-1].owner.pid} on {chain[-1].owner.host.split('/')[0]}" if chain else "another process"
    return f"epoch {epoch}, shard {shard}: {who}"


def _num_records(store: Store, shards: list[tuple[int, int]]) -> int:
    return sum(stop - first for first, stop in (store.shard_range(shard) for _, shard in shards))
