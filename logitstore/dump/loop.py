"""``dump``: shard after shard, until every one is committed or in other hands."""

from __future__ import annotations

from collections.abc import Iterator

from logitstore.dump.config import DumpConfig, DumpResult
from logitstore.dump.producer import Producer
from logitstore.errors import ClaimLostError
from logitstore.progress import ProgressFactory, start
from logitstore.signals import stop_requests
from logitstore.store import Claim, Store, claim_shard, commit_shard
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
    made, stored_bytes, skipped = [], 0, 0
    with (
        start(progress, total, "img", "dump", done=total - _num_records(store, missing)) as bar,
        producer.threads(),
        stop_requests() as stop,
    ):
        for claim in _claims(store, missing):
            with claim:
                block = producer.make_shard(claim.epoch, claim.shard, bar, stop)
                if block is None:
                    break
                try:
                    commit = commit_shard(store, claim, block)
                except ClaimLostError as error:
                    bar.say(str(error))
                    continue
            made.append((claim.epoch, claim.shard))
            skipped += commit.skipped
            stored_bytes += sum(stored.size for stored in commit.objects.values())
            bar.advance(0, **{"B/record": f"{stored_bytes / _num_records(store, made):.1f}"})
            if stop.signum is not None:
                break
        seconds = bar.seconds
    stop.obey()
    records = _num_records(store, made)
    left = [pair for pair in missing if not store.is_committed(*pair)]
    return DumpResult(
        store=str(store.path),
        complete=not left,
        shards=len(made),
        records=records,
        skipped=skipped,
        images_per_second=records / max(seconds, 1e-9),
        bytes_per_record=store.info()["bytes_per_record"],
        in_progress=tuple(_holder(store, *pair) for pair in left),
    )


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
