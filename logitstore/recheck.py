"""``verify``: is a store whole, do its views replay, and does its teacher still say the same?

Checksums are recomputed by ``store``. On top of that this module replays sampled views through the loader, which
compares them with the witnesses, and runs the teacher on them again. Nothing here writes.

Shape suffixes: B records, K kept, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from logitstore.device import dtype_name, resolve_device, resolve_dtype
from logitstore.errors import DamagedError, IncompleteError, InputError, MismatchError, WitnessError
from logitstore.images import ImageSet, open_images
from logitstore.images.packed import is_packed
from logitstore.launch import usable_cores
from logitstore.loader import Batch, ViewLoader, as_dumped, stored_spec
from logitstore.pack import PackReport, verify_packed
from logitstore.pcg import VisitOrder
from logitstore.progress import ProgressFactory, start
from logitstore.store import (
    WITNESS_EVERY,
    Store,
    VerifyReport,
    decode_records,
    encode_records,
    open_store,
    verify_store,
)
from logitstore.teacher import Teacher, is_custom, load_teacher
from logitstore.topk import select_topk

T = TypeVar("T")

KL_LIMIT = 1e-3
"""Nats. On the same class of hardware a teacher's own rounding stays far below this mean divergence."""

_LEAST_MASS = 1e-12


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What to check. Every field is an option of ``logitstore verify``."""

    store: str
    """Path of the store, or of packed images."""
    data: str | None = None
    """The data set it was made of: sampled views are replayed against the witnesses. None checks the bytes only."""
    checkpoint: str | None = None
    """Weights of the teacher, which then runs on the sampled views again; needs ``data``."""
    teacher: str | None = None
    """The teacher to run again; needs ``data``. None is the store's own where ``checkpoint`` is given."""
    view: str | None = None
    """The ``module:function`` of a store of a user's own transform."""
    sample: int = 256
    """Views to replay, chosen over the whole store; at most those with a witness, one in 64."""
    seed: int = 0
    """Which views are chosen."""
    batch_size: int | None = None
    """Views per step of the teacher; None is the store's."""
    workers: int | None = None
    """Threads that decode and render; None is one per core."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``; ``auto`` is what the store was made in."""

    def __post_init__(self) -> None:
        if self.sample < 1:
            raise InputError(f"--sample must be at least 1, got {self.sample}.")
        if self.data is None and (self.checkpoint or self.teacher):
            raise InputError("To run the teacher again its images are needed: give --data, too.")

    @property
    def reruns_teacher(self) -> bool:
        """Whether a teacher was named, by its weights or by its name."""
        return bool(self.checkpoint or self.teacher)


def verify(config: VerifyConfig, progress: ProgressFactory | None = None) -> VerifyReport | PackReport:
    """Check a store, or packed images.

    Args:
        config: what to check.
        progress: how to show progress; None is silent.

    Returns:
        What was found. ``ok`` means whole, and that everything replayed agrees.

    Raises:
        StoreNotFoundError: there is no store.
        FormatError: what is there is no store, or one of another format version.
        MismatchError: the data set, the transform or the teacher is not the one that the store was made with.
        InputError: something the user named cannot be used.
    """
    if is_packed(Path(config.store).expanduser()):
        if config.data is not None:
            raise InputError(f"{config.store} holds packed images, which have no views to replay: leave out --data.")
        return verify_packed(config.store, progress)
    with start(progress, None, "shard", "checksums") as bar:
        report = verify_store(config.store, lambda done, _: bar.advance(done - bar.done))
    if config.data is None:
        return report
    try:
        store = open_store(config.store)
    except DamagedError:  # the report says so
        return report
    replay = _Replay(config, store)
    replay.run(progress)
    return replace(
        report,
        ok=report.ok and not replay.errors,
        errors=report.errors + tuple(replay.errors),
        notes=report.notes + tuple(replay.notes),
        views_checked=replay.views_checked,
        witnesses=replay.witnesses,
        kl=replay.mean_kl,
    )


class _Replay:
    """Sampled views of a store, made again."""

    def __init__(self, config: VerifyConfig, store: Store) -> None:
        assert config.data is not None
        self.errors: list[str] = []
        self.notes: list[str] = []
        self.views_checked = 0
        self.mean_kl: float | None = None
        self.witnesses = int(_witness_ends(store)[-1])
        self._config, self._store = config, store
        images = as_dumped(store, open_images(config.data))
        spec = stored_spec(store, config.view, flippable=images.flippable)
        self._loader = ViewLoader(images, spec, store=store, batch_size=2, workers=0, skip_bad=True)
        self._teacher = _load_teacher(config, store, images, spec.size) if config.reruns_teacher else None

    def run(self, progress: ProgressFactory | None) -> None:
        """Replay the sampled views; what differs ends up in ``errors``."""
        chosen = _choose(self._store, self._config.sample, self._config.seed)
        divergences: list[NDArray[np.float64]] = []
        with start(progress, len(chosen), "view", "replay") as bar:
            for pairs in _groups(self._replayed(chosen), self._batch_size // 2):
                if self._teacher is not None:
                    divergences.append(self._divergence(self._teacher, pairs))
                bar.advance(len(pairs))
        if sum(map(len, divergences)):
            self._judge(float(np.concatenate(divergences).mean()))

    @property
    def _batch_size(self) -> int:
        return max(2, self._config.batch_size or int(self._store.manifest.inference.get("batch_size", 2)))

    def _replayed(self, chosen: list[tuple[int, int]]) -> Iterator[Batch]:
        """Each chosen position with the neighbour it may be mixed with, where both replay."""
        workers = self._config.workers or usable_cores()
        with ThreadPoolExecutor(workers, thread_name_prefix="logitstore-replay") as pool:
            # A few at a time: views wait in memory until the teacher takes them.
            for group in _groups(chosen, 8 * workers):
                for batch in pool.map(self._replay, group):
                    if isinstance(batch, Batch):
                        self._count(batch)
                        yield batch
                    elif batch:
                        self.errors.append(batch)

    def _replay(self, chosen: tuple[int, int]) -> Batch | str:
        """The pair at a position of an epoch, or what is wrong with it; empty where the checksums said so already."""
        epoch, position = chosen
        try:
            batches = self._loader.batches(epoch, position, min(position + 2, self._store.num_samples))
            return next(batches)
        except WitnessError as error:
            return str(error)
        except (DamagedError, IncompleteError):
            return ""

    def _count(self, batch: Batch) -> None:
        assert batch.records is not None
        used = bool(batch.weight_B[0] > 0)
        self.views_checked += used
        if not used and batch.records.weight[0] > 0:
            self.errors.append(f"{', '.join(batch.bad)} decoded when the store was made and does not any more.")

    def _divergence(self, teacher: Teacher, pairs: list[Batch]) -> NDArray[np.float64]:
        """KL in nat of the teacher's present records from the stored ones, for the views of these pairs."""
        manifest = self._store.manifest
        logits_BC = teacher.logits(np.concatenate([pair.views_BCHW for pair in pairs]))
        selected = select_topk(logits_BC, manifest.topk, manifest.floor, manifest.mass, manifest.gain).numpy()
        selected.pop("logz_B")
        encoded = encode_records(
            **selected, topk=manifest.topk, values=manifest.values, num_classes=manifest.num_classes
        )
        records = [pair.records for pair in pairs if pair.records is not None]
        stored = [np.concatenate([getattr(record, name) for record in records]) for name in ("index", "prob", "tail")]
        used_B = np.concatenate([pair.weight_B for pair in pairs]) > 0
        present_BC, stored_BC = (
            dense(index, prob, tail, manifest.num_classes)[used_B]
            for index, prob, tail in (decode_records(*encoded, values=manifest.values), stored)
        )
        return np.asarray(np.sum(stored_BC * (np.log(stored_BC) - np.log(present_BC)), axis=1))

    def _judge(self, mean_kl: float) -> None:
        assert self._teacher is not None
        self.mean_kl = mean_kl
        made = self._store.manifest.inference
        here = {"device_type": self._teacher.device.type, "dtype": dtype_name(self._teacher.dtype)}
        if mean_kl <= KL_LIMIT:
            return
        sentence = f"The teacher now differs from its records by {mean_kl:.2e} nat in the mean"
        if all(made.get(name) == value for name, value in here.items()):
            self.errors.append(f"{sentence}, more than {KL_LIMIT:g}: dump again with the present software.")
        else:
            self.notes.append(f"{sentence}; the store was made with {made}, this ran with {here}.")


def _load_teacher(config: VerifyConfig, store: Store, images: ImageSet, size: int) -> Teacher:
    """The teacher the user names, which must be the one that the store was made with."""
    stored = store.manifest.teacher
    name = config.teacher or str(stored.get("name"))
    if config.teacher is None and is_custom(name):
        raise InputError(
            f"The teacher of {store.path} is the function {name}; code is never imported on a store's word, so name it "
            f"yourself: --teacher {name}"
        )
    device = resolve_device(config.device)
    made_in = store.manifest.inference.get("dtype")
    dtype = resolve_dtype(made_in if config.dtype == "auto" else config.dtype, device)
    teacher = load_teacher(name, checkpoint=config.checkpoint, images=images, size=size, device=device, dtype=dtype)
    for field, present in teacher.describe().items():
        if stored.get(field) != present:
            raise MismatchError(
                f"The teacher's {field} that the store at {store.path} was made with",
                stored=stored.get(field),
                present=present,
                remedy="Give the teacher and the weights that were dumped.",
            )
    return teacher


def _witness_ends(store: Store) -> NDArray[np.int64]:
    """How many witnesses lie before the end of the first 0, 1, … of the committed shards."""
    lengths = [stop - first for first, stop in (store.shard_range(shard) for _, shard in sorted(store.committed()))]
    return np.cumsum([0, *(-(-length // WITNESS_EVERY) for length in lengths)], dtype=np.int64)


def _choose(store: Store, count: int, seed: int) -> list[tuple[int, int]]:
    """At most ``count`` positions with a witness in committed shards, each (epoch, position), in the order of reading.

    A permutation of all of them is cut off, so a larger count checks what a smaller one did, too.
    """
    shards, blocks = sorted(store.committed()), _witness_ends(store)
    total = int(blocks[-1])
    if total == 0:
        return []
    numbers = VisitOrder(num_samples=total, run_seed=seed, epoch=0).samples(np.arange(min(count, total)))
    chosen = []
    for number in np.sort(numbers).tolist():
        place = int(np.searchsorted(blocks, number, side="right")) - 1
        epoch, shard = shards[place]
        chosen.append((epoch, store.shard_range(shard)[0] + (number - int(blocks[place])) * WITNESS_EVERY))
    return chosen


def dense(
    index_BK: NDArray[np.integer[Any]], prob_BK: NDArray[np.float32], tail_B: NDArray[np.float32], num_classes: int
) -> NDArray[np.float64]:
    """Whole distributions [B, C] of records, the tail spread evenly over the classes that were not kept."""
    kept_BK = index_BK != np.iinfo(index_BK.dtype).max
    left_B = np.maximum(num_classes - kept_BK.sum(1), 1)
    dense_BC = np.repeat((tail_B.astype(np.float64) / left_B)[:, None], num_classes, axis=1)
    rows, ranks = np.nonzero(kept_BK)
    dense_BC[rows, index_BK[rows, ranks]] = prob_BK[rows, ranks]
    return np.maximum(dense_BC, _LEAST_MASS)


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
