"""``convert``: shard after shard, the base epochs of a packed store first, until all complete epochs are there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.convert.config import BASE_EPOCHS, ConvertConfig, ConvertResult
from logitstore.errors import (
    ClaimLostError,
    FormatError,
    IncompleteError,
    InputError,
    MismatchError,
    StoreNotFoundError,
)
from logitstore.launch import usable_cores
from logitstore.loader.ordered import Job, Workers, in_order
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.signals import StopRequest, stop_requests
from logitstore.store import Commit, Manifest, Store, commit_shard, create_store, open_store
from logitstore.store.claiming import Claims, Shard, count_records, holder
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.layout import choose_packed_chunk

_POLL_S = 0.5


def convert(config: ConvertConfig, progress: ProgressFactory | None = None) -> ConvertResult:
    """Write the complete epochs of a store in another form. What is there already stays as it is.

    Every shard is read back and compared before it is committed. Ctrl-C and SIGTERM end it after the shards in work.
    Several processes may convert the same store into the same folder at once.

    Args:
        config: what to convert. Called again, it adds what is missing: epochs that were dumped since, too.
        progress: how to show progress; None is silent.

    Returns:
        What there is now, and what this call made of it.

    Raises:
        InputError: the store has this codec already, or its folder holds the other one.
        IncompleteError: no epoch of the store is complete, or fewer than are wanted as base epochs.
        MismatchError: the folder holds another store, or other records.
        DamagedError: the store is damaged.
    """
    source = open_store(config.store)
    notes: list[str] = []
    there = _store_at(config.out)
    manifest = _manifest(config, source, there, notes)
    if there is not None:
        there.manifest.require_same(manifest, where=str(there.path))
        _require_same_records(source, there)
    store = create_store(config.out, manifest)
    complete = source.complete_epochs()
    wanted = [(epoch, shard) for epoch in complete for shard in range(store.num_shards)]
    committed = store.committed()
    total = count_records(store, wanted)
    done = count_records(store, [place for place in wanted if place in committed])
    with start(progress, total, "record", "convert", done=done) as bar, stop_requests() as stop:
        for note in notes:
            bar.say(note)
        conversion = _Conversion(source, store, config.workers or usable_cores(), bar, stop)
        for epochs, needed in _stages(store, complete):
            conversion.run([(epoch, shard) for epoch in epochs for shard in range(store.num_shards)], needed=needed)
        seconds = bar.seconds
    stop.obey()
    committed = store.committed()
    model_bytes = store.form.model_bytes
    return ConvertResult(
        out=str(store.path),
        store_id=store.store_id,
        codec=store.manifest.codec.name,
        complete=committed >= set(wanted),
        epochs=len(store.complete_epochs()),
        shards=conversion.shards,
        records=conversion.records,
        records_per_second=conversion.records / max(seconds, 1e-9),
        bytes_per_record_before=source.info()["bytes_per_record"],
        bytes_per_record_after=store.info()["bytes_per_record"],
        model_bytes=model_bytes,
        model_bytes_per_sample=None if model_bytes is None else model_bytes / store.num_samples,
        in_progress=tuple(holder(store, *place) for place in wanted if place not in committed),
        notes=tuple(notes),
    )


def _store_at(path: str) -> Store | None:
    """A store that is there already."""
    try:
        return open_store(path)
    except (StoreNotFoundError, FormatError):
        return None  # for create_store to make, or to refuse


def _manifest(config: ConvertConfig, source: Store, there: Store | None, notes: list[str]) -> Manifest:
    """What the converted store will say of itself."""
    if Path(config.out).resolve().is_relative_to(Path(config.store).resolve()):
        raise InputError(f"{config.out} is the store itself, or in it: name another folder for the converted one.")
    if source.manifest.codec.name == config.codec:
        other = "standard" if config.codec == "packed" else "packed"
        raise InputError(
            f"The store at {source.path} is {config.codec} already: give --codec {other}, or copy its folder."
        )
    complete = source.complete_epochs()
    if not complete:
        raise IncompleteError(
            f"The store at {source.path} has no complete epoch yet, and no others are converted: run "
            f"`logitstore {source.manifest.codec.command}` to complete one."
        )
    if config.codec == "standard":
        return replace(source.manifest, codec=source.manifest.codec.standard)
    standard = source.manifest.codec.standard
    if there is not None and isinstance(there.manifest.codec, PackedCodec):
        _require_base(there, there.manifest.codec, config.base_epochs, source, complete)
        return replace(source.manifest, codec=replace(there.manifest.codec, source=standard))
    base = complete[: config.base_epochs or BASE_EPOCHS]
    if config.base_epochs is not None and len(base) < config.base_epochs:
        raise IncompleteError(
            f"--base-epochs {config.base_epochs} needs as many complete epochs; the store at {source.path} has "
            f"{len(complete)}: dump more, or give --base-epochs {len(complete)}."
        )
    if config.base_epochs is None and len(base) < min(BASE_EPOCHS, source.num_epochs):
        notes.append(
            f"Only {len(base)} of {source.num_epochs} epochs are complete, and these are the base epochs: with "
            f"{BASE_EPOCHS} of them later epochs take fewer bytes."
        )
    codec = PackedCodec(base=tuple(base), chunk=choose_packed_chunk(source.manifest), source=standard)
    return replace(source.manifest, codec=codec)


def _require_base(
    store: Store, codec: PackedCodec, base_epochs: int | None, source: Store, complete: list[int]
) -> None:
    """Refuse to complete a packed store with other base epochs than it has, or without one of them."""
    if base_epochs not in (None, len(codec.base)):
        raise MismatchError(
            f"The number of base epochs of the store at {store.path}",
            stored=len(codec.base),
            present=base_epochs,
            remedy="Leave out --base-epochs to add to it, or convert into another folder.",
        )
    there = {*store.complete_epochs(), *complete}
    if lacking := [epoch for epoch in codec.base if epoch not in there]:
        raise IncompleteError(
            f"Epoch {lacking[0]} is a base epoch of the store at {store.path}, and complete neither there nor in "
            f"{source.path}: dump it again, or convert into another folder."
        )


def _stages(store: Store, complete: list[int]) -> Iterator[tuple[list[int], bool]]:
    """Epochs that may be converted side by side, and whether what follows needs them."""
    codec = store.manifest.codec
    base = codec.base if isinstance(codec, PackedCodec) else ()
    for epoch in base:
        yield [epoch], True
    yield [epoch for epoch in complete if epoch not in base], False


def _require_same_records(source: Store, store: Store) -> None:
    """Refuse to go on with a store that was made of other records, as after a second dump of the same settings."""
    for epoch, shard in sorted(store.committed() & source.committed()):
        if store.commit(epoch, shard).info.get("source") == _described(source.commit(epoch, shard)):
            continue
        theirs, ours = store.block(epoch, shard).arrays(), source.block(epoch, shard).arrays()
        for name, array in ours.items():
            if array.tobytes() != theirs[name].tobytes():
                row = int(np.flatnonzero((_bits(array) != _bits(theirs[name])).any(axis=1))[0])
                raise MismatchError(
                    f"The array {name} of epoch {epoch}, shard {shard}, entry {row}",
                    stored=f"{theirs[name][row]} in {store.path}",
                    present=f"{array[row]} in {source.path}",
                    remedy="It was made of another dump with the same settings: convert this one into another folder.",
                )


def _bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """An array's entries as their bytes, in which NaN equals NaN."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _described(commit: Commit) -> dict[str, str]:
    """The objects of a shard by their CRC-32C."""
    return {name: stored.crc32c for name, stored in commit.objects.items()}


class _Conversion:
    """Converts shards in threads; ``shards`` and ``records`` count them.

    Args:
        source: what is converted.
        store: where to.
        workers: threads, each of which works on one shard.
        bar: advanced by records.
        stop: ends it after the shards in work.
    """

    def __init__(self, source: Store, store: Store, workers: int, bar: Progress, stop: StopRequest) -> None:
        self.shards = self.records = self._bytes = 0
        self._source, self._store, self._workers, self._bar, self._stop = source, store, workers, bar, stop

    def run(self, shards: list[Shard], *, needed: bool) -> None:
        """Convert what is missing of some shards.

        Args:
            shards: of epochs that do not depend on each other.
            needed: wait for those that other processes are converting.
        """
        committed = self._store.committed()
        missing = [place for place in shards if place not in committed]
        with Claims(self._store, missing, self._bar) as claims, Workers(self._workers) as threads:
            self._convert(claims, threads)
            while needed and self._stop.signum is None and claims.missing():
                time.sleep(_POLL_S)
                self._convert(claims, threads)

    def _convert(self, claims: Claims, threads: Workers) -> None:
        if self._stop.signum is not None:
            return
        size = self._store.manifest.shard_size
        jobs = (self._job(claims, (epoch, first // size)) for epoch, first, _ in claims.ranges())
        with closing(in_order(jobs, workers=threads, ahead=threads.count)) as commits:
            for commit in commits:
                if commit is not None:
                    self._count(commit)
                if self._stop.signum is not None:
                    return

    def _job(self, claims: Claims, place: Shard) -> Job[Commit | None]:
        made: list[Commit] = []
        return Job(tasks=[partial(self._one, claims, place, made)], result=lambda: made[0] if made else None)

    def _one(self, claims: Claims, place: Shard, made: list[Commit]) -> None:
        with claims.take(place) as claim:
            info = {"source": _described(self._source.commit(*place))}
            try:
                made.append(commit_shard(self._store, claim, self._source.block(*place), info, read_back=True))
            except ClaimLostError as error:
                self._bar.say(str(error))

    def _count(self, commit: Commit) -> None:
        self.shards += 1
        self.records += commit.records
        self._bytes += sum(stored.size for stored in commit.objects.values())
        self._bar.advance(commit.records, **{"B/record": f"{self._bytes / self.records:.1f}"})
