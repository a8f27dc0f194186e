"""Batches of views for the producer (fresh seeds) and the consumer (stored seeds).

Shape suffixes: E the pairs that enclose a batch, C colours (3) or, of logits, classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.images import ImageSet
from logitstore.loader.batch import Batch, Visit, global_batches, rank_slice
from logitstore.loader.matching import check_store, check_witnesses
from logitstore.loader.memory import BatchMemory
from logitstore.loader.ordered import Job, Workers, in_order
from logitstore.loader.painter import Painter
from logitstore.loader.work import Work, joined, partners
from logitstore.pcg import VisitOrder, view_seeds
from logitstore.views import Renderer, ViewSpec

if TYPE_CHECKING:
    from logitstore.store import Ensemble, Records, Store

_MIN_TASK, _MAX_TASK = 2, 16  # images in one task; even, so that pairs stay in one task
_TASKS_AHEAD = 3  # full tasks under way per worker, so that none waits
_MIN_AHEAD = 2  # batches: one that is ready, one in the making


class ViewLoader:
    """Views of a data set in the visit order of its epochs. A context manager.

    Threads start with the first batch and stay for later epochs, until ``close``. The memory of a batch is used again
    once nobody holds the batch or an array of it. ``threads`` are for other work of the same run, too, such as
    validation between two epochs.

    Args:
        images: the data set.
        spec: what may happen to a view.
        run_seed: gives fresh seeds (the producer); or
        store: gives stored seeds and records (the consumer); of several stores the mean of what their teachers say.
        batch_size: views in a global batch, over all ranks; with more than one rank a multiple of 2 x world.
        workers: threads; 0 works in the calling thread.
        size: height and width of views in pixels; None is the spec's. At another size witnesses are not checked.
        rank: which slice of each global batch to make, in [0, world).
        world: slices in a global batch.
        topk: read at most this many classes of each record of each store; None reads all.
        skip_bad: an image that does not decode becomes a view of the fill colour with weight 0, and where the spec
            mixes its neighbour has weight 0 too; otherwise it raises, unless the store has no record of it either.
        check_witnesses: compare views with the store's witnesses.
        drop_last: leave out an incomplete last global batch.
        shuffle_seed: visit whole shards of the (first) store in an order that depends on this and on the pass; None
            visits positions in order.
        logits: read the teacher's logits from the store, too, which must be dense and have ``logz``.
        exclude: samples whose views have weight 0, and where the spec mixes their neighbours' too; they are rendered
            all the same, and nothing moves. An excluded image need not decode.
        pinned: put views into page-locked memory, so that their copies to a GPU need not wait; take the batches through
            ``prefetched`` then, which holds each until it is there.

    Raises:
        MismatchError: the store was made of another data set or with another view spec.
        InputError: batch size, rank and world do not fit together, or the store has no logits.
    """

    def __init__(
        self,
        images: ImageSet,
        spec: ViewSpec,
        *,
        run_seed: int | None = None,
        store: Store | Ensemble | None = None,
        batch_size: int,
        workers: int,
        size: int | None = None,
        rank: int = 0,
        world: int = 1,
        topk: int | None = None,
        skip_bad: bool = False,
        check_witnesses: bool = True,
        drop_last: bool = False,
        shuffle_seed: int | None = None,
        logits: bool = False,
        exclude: NDArray[np.int64] | None = None,
        pinned: bool = False,
    ) -> None:
        _check_slices(batch_size, rank, world)
        if (run_seed is None) == (store is None):
            raise InputError("A view loader takes its seeds either from a run seed or from a store.")
        if store is not None:
            for member in store.members:
                check_store(member, images, spec)
            if logits:
                store.require_logits()
            run_seed = store.members[0].manifest.run_seed
        assert run_seed is not None
        self.images, self.spec, self.store = images, spec, store
        self.batch_size, self.workers, self.rank, self.world = batch_size, workers, rank, world
        self.size = spec.size if size is None else size
        self.checks_witnesses = store is not None and check_witnesses and self.size == spec.size
        self._painter = Painter(
            images, Renderer(spec, size=self.size), skip_bad=skip_bad, witnesses=self.size == spec.size
        )
        self._run_seed, self._topk, self._drop_last = run_seed, topk, drop_last
        self._shuffle_seed, self._logits = shuffle_seed, logits
        self._excluded = np.unique(np.asarray([] if exclude is None else exclude, np.int64))
        per_rank = -(-batch_size // world)
        self.threads = Workers(workers)
        self._ahead = max(_MIN_AHEAD, -(-_TASKS_AHEAD * workers * _MAX_TASK // per_rank))
        self._memory = BatchMemory(
            nbytes=(per_rank + 2) * 3 * self.size**2,  # with the neighbours of both ends
            kept=self._ahead + 2,
            pinned=pinned,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and give unused memory back; both come again if the loader is used again."""
        self.threads.close()
        self._memory.clear()

    def num_batches(self, start: int = 0, stop: int | None = None) -> int:
        """How many batches ``batches`` gives for the same range."""
        length = (self.images.num_samples if stop is None else stop) - start
        return length // self.batch_size if self._drop_last else -(-length // self.batch_size)

    def batches(
        self, epoch: int, start: int = 0, stop: int | None = None, *, visit: int | None = None
    ) -> Generator[Batch, None, None]:
        """This rank's slices of the global batches of [start, stop), in order.

        A rank's slice of an incomplete last batch may be empty.

        Args:
            epoch: number of the epoch, from 0; with a store, one that it holds.
            start: where to begin: 0, or where an earlier run stopped.
            stop: where to end (exclusive); None is the end of the epoch.
            visit: number of the pass, on which the order of shuffled shards depends; None is ``epoch``.

        Raises:
            DecodeError: an image does not decode.
            ViewError: a user's own transform failed on an image.
            WitnessError: a view is not the one that the teacher saw.
            StoreError: a shard that is needed is absent or damaged.
        """
        stop = self.images.num_samples if stop is None else stop
        return self.chain([(epoch, start, stop)], visit=visit)

    def chain(
        self, ranges: Iterable[tuple[int, int, int]], *, visit: int | None = None
    ) -> Generator[Batch, None, None]:
        """The batches of several ranges, one range after the other, without a pause between them.

        Args:
            ranges: epoch, start and stop of each, as ``batches`` takes them; asked for one at a time, as far ahead as
                batches are made.
            visit: see ``batches``.

        Raises:
            What ``batches`` raises.
        """
        jobs = (
            self._job(epoch, low, high, epoch if visit is None else visit)
            for epoch, start, stop in ranges
            for low, high in self._global_batches(start, stop)
        )
        return in_order(jobs, workers=self.threads, ahead=self._ahead)

    def _global_batches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        return global_batches(self.images.num_samples, start, stop, self.batch_size, drop_last=self._drop_last)

    def _job(self, epoch: int, low: int, high: int, visit: int) -> Job[Batch]:
        work = self._open(epoch, *rank_slice(low, high, self.rank, self.world), visit)
        # Small enough that every worker has some of each batch.
        step = max(_MIN_TASK, min(_MAX_TASK, len(work) // max(1, 2 * self.workers) // 2 * 2))
        tasks: list[Callable[[], None]] = [
            partial(self._painter.paint, work, row, min(row + step, len(work))) for row in range(0, len(work), step)
        ]
        return Job(tasks=tasks, result=partial(self._close, work))

    def _open(self, epoch: int, start: int, stop: int, visit: int) -> Work:
        """Positions, samples, seeds and records of the pairs that enclose [start, stop)."""
        low = start - start % 2
        high = min(self.images.num_samples, stop + stop % 2) if stop > start else low
        runs = list(self._way(visit).runs(low, high))
        position_E = np.concatenate([np.arange(*run, dtype=np.int64) for run in runs] or [np.arange(0)])
        if self.store is None or not runs:
            order = VisitOrder(num_samples=self.images.num_samples, run_seed=self._run_seed, epoch=epoch)
            sample_E, records, logits_EC = order.samples(position_E), None, None
            seed_E = view_seeds(self._run_seed, epoch, sample_E)
        else:
            records = joined([self.store.read(epoch, *run, topk=self._topk) for run in runs])
            sample_E, seed_E = records.sample, records.seed
            logits_EC = np.concatenate([self.store.logits(epoch, *run) for run in runs]) if self._logits else None
        return Work(
            epoch=epoch,
            start=start,
            stop=stop,
            cut=slice(start - low, stop - low),
            position_E=position_E,
            sample_E=np.asarray(sample_E, np.int64),
            seed_E=np.asarray(seed_E, np.uint32),
            records=records,
            logits_EC=logits_EC,
            views_ECHW=self._memory.take(len(position_E), 3, self.size, self.size),
            own_E=np.ones(len(position_E)),
            weight_E=self._weights(sample_E, records),
            witness_E=np.zeros(len(position_E), np.uint32),
        )

    def _weights(self, sample_E: NDArray[np.int64], records: Records | None) -> NDArray[np.float32]:
        """Weights in the loss before anything is decoded."""
        weight_E = np.ones(len(sample_E), np.float32) if records is None else records.weight.copy()
        if len(self._excluded):
            place_E = np.searchsorted(self._excluded, sample_E).clip(max=len(self._excluded) - 1)
            excluded_E = self._excluded[place_E] == sample_E
            if self.spec.mixes:
                excluded_E = excluded_E | excluded_E[partners(len(sample_E))]
            weight_E[excluded_E] = 0.0
        return weight_E

    def _way(self, visit: int) -> Visit:
        if self.store is None or self._shuffle_seed is None:
            return Visit(num_samples=self.images.num_samples)
        size = self.store.members[0].manifest.shard_size
        return Visit(num_samples=self.images.num_samples, shard_size=size, shuffle_seed=self._shuffle_seed, epoch=visit)

    def _close(self, work: Work) -> Batch:
        """The finished batch; runs in the consuming thread."""
        batch = work.batch(self.images.labels, witnessed=self._painter.witnesses)
        if self.checks_witnesses:
            assert self.store is not None
            check_witnesses(self.store.members[0], self.images, batch)  # the others' were compared with its own
        return batch


def _check_slices(batch_size: int, rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise InputError(f"Rank {rank} does not exist among {world}.")
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}.")
    if world > 1 and batch_size % (2 * world):
        raise InputError(
            f"A batch of {batch_size} does not divide into pairs over {world} processes: make --batch-size a multiple "
            f"of {2 * world}."
        )
