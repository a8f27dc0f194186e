"""Jobs made of small tasks, done by threads that last, handed out in order. The heavy code inside releases the GIL."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

T = TypeVar("T")
_UnderWay = deque[tuple["Job[T]", list[Future[None]]]]


@dataclass(frozen=True, kw_only=True)
class Job(Generic[T]):
    """One result in the making."""

    tasks: list[Callable[[], None]]
    """Independent pieces of work; they leave what they made in what ``result`` reads."""
    result: Callable[[], T]
    """Called in the consuming thread once every task is done."""


class Workers:
    """Threads that stay between one use and the next. A context manager.

    They start with the first task. Closing ends them; tasks that come later start new ones.

    Args:
        count: threads; 0 stands for working in the calling thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, task: Callable[[], None]) -> Future[None]:
        """Have a task done; there must be at least one thread."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="logitstore-loader")
        return self._pool.submit(task)

    def close(self) -> None:
        """Drop the tasks that wait, let the running ones end, and end the threads."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)


def in_order(jobs: Iterable[Job[T]], *, workers: Workers, ahead: int) -> Generator[T, None, None]:
    """Results of the jobs, in their order.

    The jobs are made in the consuming thread, ``ahead`` of the one that is handed out. An exception, of a task or in
    the making of a job, is raised when that job's turn comes. When the iterator ends, fails or is closed, waiting tasks
    are dropped and running ones awaited, so none writes into memory of somebody else's.

    Args:
        jobs: made one at a time, lazily.
        workers: who does the tasks; without threads the consuming thread does, with nothing ahead.
        ahead: jobs under way beyond the one that is waited for, at least 1.
    """
    if workers.count == 0:
        for job in jobs:
            for task in job.tasks:
                task()
            yield job.result()
        return
    under_way: _UnderWay[T] = deque()
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
            under_way.append((job, [workers.submit(task) for task in job.tasks]))
            del job  # the memory of a batch must not live on here when it has been handed out
            if len(under_way) > ahead:
                yield _first(under_way)
        while under_way:
            yield _first(under_way)
        if failure is not None:
            raise failure
    finally:
        futures = [future for _, tasks in under_way for future in tasks]
        wait([future for future in futures if not future.cancel()])


def _first(under_way: _UnderWay[T]) -> T:
    """The result of the first job, which stays where it is for ``in_order`` to clear away when a task fails."""
    job, futures = under_way[0]
    for future in futures:
        future.result()
    under_way.popleft()
    return job.result()
