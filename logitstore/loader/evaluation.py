"""Evaluation views: resized, cut from the centre, in the data set's own order, no randomness."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.images import ImageSet
from logitstore.loader.memory import BatchMemory
from logitstore.loader.ordered import Job, Workers, in_order
from logitstore.views import centre_view

_TASK = 8
_TASKS_AHEAD = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class EvalBatch:
    """Consecutive samples of a data set."""

    start: int
    """The first sample."""
    views_BCHW: NDArray[np.uint8]
    """Their centre views."""
    label_B: NDArray[np.int64]
    """Their classes; -1 where the data set has no labels."""

    def __len__(self) -> int:
        return len(self.label_B)


def eval_batches(
    images: ImageSet,
    *,
    size: int,
    crop_pct: float,
    batch_size: int,
    workers: int | Workers,
    start: int = 0,
    stop: int | None = None,
    pinned: bool = False,
) -> Generator[EvalBatch, None, None]:
    """Centre views of samples [start, stop), the last batch as short as it comes.

    Args:
        images: the data set.
        size: height and width of views, in pixels.
        crop_pct: share of the resized short side that is kept.
        batch_size: views in a batch.
        workers: threads for this call, 0 for working in the calling thread; or lasting ones.
        start: the first sample.
        stop: where to end (exclusive); None is the end of the data set.
        pinned: put views into page-locked memory; see ``ViewLoader``.

    Raises:
        DecodeError: an image does not decode.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}.")
    end = images.num_samples if stop is None else min(stop, images.num_samples)
    ahead = max(1, -(-_TASKS_AHEAD * (workers if isinstance(workers, int) else workers.count) * _TASK // batch_size))
    memory = BatchMemory(nbytes=batch_size * 3 * size**2, kept=ahead + 2, pinned=pinned)

    def job(low: int) -> Job[EvalBatch]:
        high = min(low + batch_size, end)
        return _job(images, low, high, memory.take(high - low, 3, size, size), crop_pct)

    return _closing_own(map(job, range(start, end, batch_size)), workers, ahead)


def _closing_own(
    jobs: Iterator[Job[EvalBatch]], workers: int | Workers, ahead: int
) -> Generator[EvalBatch, None, None]:
    if isinstance(workers, Workers):
        yield from in_order(jobs, workers=workers, ahead=ahead)
    else:
        with Workers(workers) as own:
            yield from in_order(jobs, workers=own, ahead=ahead)


def _job(images: ImageSet, start: int, stop: int, views_BCHW: NDArray[np.uint8], crop_pct: float) -> Job[EvalBatch]:
    count, size = views_BCHW.shape[0], views_BCHW.shape[-1]
    labels = None if images.labels is None else images.labels[start:stop]
    label_B = np.full(count, -1, np.int64) if labels is None else np.asarray(labels, np.int64)

    def render(low: int, high: int) -> None:
        for row in range(low, high):
            views_BCHW[row] = centre_view(images.pixels(start + row), size, crop_pct)

    tasks: list[Callable[[], None]] = [partial(render, low, min(low + _TASK, count)) for low in range(0, count, _TASK)]
    return Job(tasks=tasks, result=lambda: EvalBatch(start=start, views_BCHW=views_BCHW, label_B=label_B))
