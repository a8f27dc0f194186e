"""Jobs made of small tasks, done by threads, handed out in order. The heavy code inside releases the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Job(Generic[T]):
    """One result in the making."""

    tasks: list[Callable[[], None]]
    """Independent pieces of work; they leave what they made in what ``result`` reads."""
    result: Callable[[], T]
    """Called in the consuming thread once every task is done."""


def in_order(jobs: Iterable[Job[T]], *, workers: int, ahead: int) -> Generator[T, None, None]:
    """Results of the jobs, in their order.

    The jobs are made in the consuming thread, ``ahead`` of the one that is handed out. An exception, of a task or in
    the making of a job, is raised when that job's turn comes. When the iterator ends, fails or is closed, waiting tasks
    are dropped and running ones awaited, so no thread outlives it.

    Args:
        jobs: made one at a time, lazily.
        workers: threads; 0 does the work in the consuming thread, with nothing ahead.
        ahead: jobs under way beyond the one that is waited for, at least 1.
    """
    if workers == 0:
        for job in jobs:
            for task in job.tasks:
                task()
            yield job.result()
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="logitstore-loader")
    under_way: deque[tuple[Job[T], list[Future[None]]]] = deque()
    jobs, failure = iter(jobs), None
    try:
        while True:
            try:
                job = next(jobs)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            under_way.append((job, [pool.submit(task) for task in job.tasks]))
            if len(under_way) > ahead:
                yield _finish(*under_way.popleft())
        while under_way:
            yield _finish(*under_way.popleft())
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finish(job: Job[T], futures: list[Future[None]]) -> T:
    for future in futures:
        future.result()
    return job.result()
