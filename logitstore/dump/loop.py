"""``dump``: shard after shard, until every one is committed or in other hands."""

from __future__ import annotations

import time
from contextlib import closing

from logitstore.dump.assembly import Assembly
from logitstore.dump.config import DumpConfig, DumpResult
from logitstore.dump.producer import Producer
from logitstore.dump.share import Share, in_turn
from logitstore.launch import Launch
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.signals import StopRequest, stop_requests
from logitstore.store.claiming import Claims, count_records, holder

_POLL_S = 0.5


def dump(config: DumpConfig, progress: ProgressFactory | None = None) -> DumpResult:
    """Make every shard of the requested epochs that is not committed yet, and that no other process is making.

    Ctrl-C and SIGTERM end it after the batch, with the claim given back. Of several processes that torchrun started,
    each makes a part of the shards on a GPU of its own; the main one returns when all are done.

    Args:
        config: what to dump. Called again with the same one, it makes what is missing.
        progress: how the main process shows progress; None is silent.

    Returns:
        What was made and what is left. That other processes are still at work is no error.

    Raises:
        InputError: something the user named cannot be used.
        MismatchError: the store exists and was made of something else.
        NonFiniteError: the teacher gave a NaN or an Inf.
    """
    launch = Launch.from_environment()
    progress = progress if launch.is_main else None
    producer = Producer(config, progress)
    epochs = range(config.start_epoch, producer.num_epochs)
    store = producer.open_store(epochs)
    wanted = Share.parse(config.shards).shards(epochs, store.num_shards)
    committed = store.committed()
    missing = in_turn([shard for shard in wanted if shard not in committed], launch)
    total, to_do = count_records(store, wanted), count_records(store, missing)
    with (
        start(progress, total, "img", "dump", done=total - to_do) as bar,
        producer.at_work(),
        stop_requests() as stop,
    ):
        with Assembly(store, bar) as assembly, Claims(store, missing, bar) as claims:
            _make(producer, claims, assembly, bar, stop)
            while launch.world > 1 and launch.is_main and stop.signum is None and claims.missing():
                time.sleep(_POLL_S)  # the others are making them; should one of them die, they are ours
                _make(producer, claims, assembly, bar, stop)
        seconds = bar.seconds
    stop.obey()
    committed = store.committed()
    left = [shard for shard in missing if shard not in committed]
    made = [shard for shard in missing if shard in committed] if launch.world > 1 and launch.is_main else assembly.made
    commits = [store.commit(*shard) for shard in made]
    records = sum(commit.records for commit in commits)
    return DumpResult(
        store=str(store.path),
        complete=all((epoch, shard) in committed for epoch in epochs for shard in range(store.num_shards)),
        shards=len(commits),
        records=records,
        skipped=sum(commit.skipped for commit in commits),
        images_per_second=records / max(seconds, 1e-9),
        bytes_per_record=store.info()["bytes_per_record"],
        in_progress=tuple(holder(store, *shard) for shard in left),
    )


def _make(producer: Producer, claims: Claims, assembly: Assembly, bar: Progress, stop: StopRequest) -> None:
    """Make what can be claimed; a stop request ends it after the batch."""
    with closing(producer.selections(claims.ranges())) as selections:
        for selection in selections:
            assembly.add(selection.encode)
            bar.advance(selection.records)
            for name in selection.bad:
                bar.say(f"{name} does not decode and becomes an empty record.")
            if selection.ends_shard:
                assembly.finish(claims.take(selection.shard))
            if stop.signum is not None:
                return
