"""Evaluation views: resized, cut from the centre, in the data set's own order, no randomness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.images import ImageSet
from logitstore.loader.ordered import Job, in_order
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
    workers: int,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[EvalBatch]:
    """Centre views of samples [start, stop), the last batch as short as it comes.

    Args:
        images: the data set.
        size: height and width of views, in pixels.
        crop_pct: share of the resized short side that is kept.
        batch_size: views in a batch.
        workers: threads; 0 works in the calling thread.
        start: the first sample.
        stop: where to end (exclusive); None is the end of the data set.

    Raises:
        DecodeError: an image does not decode.
    """
    if batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}.")
    end = images.num_samples if stop is None else min(stop, images.num_samples)
    return in_order(
        (_job(images, low, min(low + batch_size, end), size, crop_pct) for low in range(start, end, batch_size)),
        workers=workers,
        ahead=max(1, -(-_TASKS_AHEAD * workers * _TASK // batch_size)),
    )


def _job(images: ImageSet, start: int, stop: int, size: int, crop_pct: float) -> Job[EvalBatch]:
    count = stop - start
    views_BCHW = np.empty((count, 3, size, size), np.uint8)
    label_B = np.full(count, -1, np.int64) if images.labels is None else images.labels[start:stop]

    def render(low: int, high: int) -> None:
        for row in range(low, high):
            views_BCHW[row] = centre_view(images.pixels(start + row), size, crop_pct)

    tasks: list[Callable[[], None]] = [partial(render, low, min(low + _TASK, count)) for low in range(0, count, _TASK)]
    return Job(tasks=tasks, result=lambda: EvalBatch(start=start, views_BCHW=views_BCHW, label_B=label_B))
