"""The machinery under the loader: order, failures, closing; and which positions go into which batch."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.errors import InputError
from logitstore.loader.batch import Visit, global_batches, rank_slice
from logitstore.loader.ordered import Job, Workers, in_order


def loader_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("logitstore-loader")}


def squares(count: int, *, fails_at: int = -1) -> Iterator[Job[list[int]]]:
    """Job n has n % 4 tasks, which finish out of order."""
    for n in range(count):
        done: list[int] = []

        def task(n: int = n, done: list[int] = done) -> None:
            time.sleep(0.001 * (n * 7 % 4))
            if n == fails_at:
                raise ZeroDivisionError(n)
            done.append(n * n)

        yield Job(tasks=[task] * (1 + n % 4), result=lambda done=done: done)


@pytest.fixture(params=[0, 1, 3])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with Workers(request.param) as threads:
        yield threads


@pytest.mark.parametrize("ahead", [1, 5])
def test_results_come_in_order(workers: Workers, ahead: int) -> None:
    for _ in range(2):
        results = list(in_order(squares(20), workers=workers, ahead=ahead))
        assert results == [[n * n] * (1 + n % 4) for n in range(20)]


def test_a_failing_task_is_raised_in_its_turn(workers: Workers) -> None:
    results = in_order(squares(20, fails_at=9), workers=workers, ahead=4)
    assert len(list(itertools.islice(results, 9))) == 9
    with pytest.raises(ZeroDivisionError, match="9"):
        next(results)
    assert list(in_order(squares(5), workers=workers, ahead=1))[4] == [16]


def test_a_job_that_cannot_be_made_is_raised_in_its_turn(workers: Workers) -> None:
    def jobs() -> Iterator[Job[list[int]]]:
        yield from squares(5)
        raise KeyError("sixth")

    results = in_order(jobs(), workers=workers, ahead=4)
    assert len(list(itertools.islice(results, 5))) == 5
    with pytest.raises(KeyError, match="sixth"):
        next(results)


def test_jobs_are_made_no_further_ahead_than_asked() -> None:
    made: list[int] = []

    def jobs() -> Iterator[Job[int]]:
        for n in itertools.count():
            made.append(n)
            yield Job(tasks=[lambda: None], result=lambda n=n: n)

    with Workers(2) as workers:
        results = in_order(jobs(), workers=workers, ahead=3)
        assert [next(results) for _ in range(10)] == list(range(10))
        assert len(made) == 13
        results.close()


@pytest.mark.parametrize("stop", [GeneratorExit, KeyboardInterrupt, ZeroDivisionError])
def test_stopping_early_drops_what_waits_and_awaits_what_runs(stop: type[BaseException]) -> None:
    started, running = threading.Event(), []
    others = loader_threads()

    def slow() -> None:
        running.append(1)
        started.set()
        time.sleep(0.05)
        running.pop()
        if stop is ZeroDivisionError and len(done) == 1:
            raise ZeroDivisionError

    done: list[int] = []
    with Workers(2) as workers:
        results = in_order((Job(tasks=[slow] * 2, result=lambda: 0) for _ in range(30)), workers=workers, ahead=20)
        done.append(next(results))
        assert started.is_set()
        threads = loader_threads() - others
        assert len(threads) == 2
        began = time.monotonic()
        with pytest.raises(stop):
            next(results) if stop is ZeroDivisionError else results.throw(stop)
        assert time.monotonic() - began < 1.0  # of 1.5 seconds' work that was waiting, by two threads
        assert not running
        time.sleep(0.06)
        assert not running  # nor does anything start again
        assert loader_threads() - others == threads
    assert not loader_threads() - others


def test_closing_twice_and_before_the_first_use() -> None:
    workers, others = Workers(2), loader_threads()
    workers.close()
    assert list(in_order(squares(3), workers=workers, ahead=1)) == [[0], [1, 1], [4, 4, 4]]
    workers.close()
    workers.close()
    assert not loader_threads() - others


@given(start=st.integers(0, 500).map(lambda n: 2 * n), length=st.integers(0, 400), world=st.integers(1, 9))
def test_rank_slices_cover_a_batch_in_whole_pairs(start: int, length: int, world: int) -> None:
    slices = [rank_slice(start, start + length, rank, world) for rank in range(world)]
    assert slices[0][0] == start and slices[-1][1] == start + length
    assert all(slices[r][1] == slices[r + 1][0] for r in range(world - 1))
    assert all(low % 2 == 0 or low == high for low, high in slices)
    sizes = [high - low for low, high in slices]
    assert max(sizes) - min(sizes) <= 2
    if length % (2 * world) == 0:
        assert set(sizes) == {length // world}


def test_global_batches() -> None:
    assert list(global_batches(10, 0, 10, 4, drop_last=False)) == [(0, 4), (4, 8), (8, 10)]
    assert list(global_batches(10, 4, 10, 4, drop_last=True)) == [(4, 8)]
    assert list(global_batches(10, 10, 10, 4, drop_last=False)) == []
    with pytest.raises(InputError, match="10 samples, fewer than one batch of 16: use a smaller --batch-size"):
        list(global_batches(10, 0, 10, 16, drop_last=True))
    with pytest.raises(InputError, match="got 4 to 11"):
        list(global_batches(10, 4, 11, 4, drop_last=False))


@settings(max_examples=60)
@given(
    samples=st.integers(1, 2000), shard=st.sampled_from([64, 128]), seed=st.integers(0, 9), step=st.integers(50, 300)
)
def test_shuffled_shards_visit_every_position_once(samples: int, shard: int, seed: int, step: int) -> None:
    visit = Visit(num_samples=samples, shard_size=shard, shuffle_seed=seed, epoch=3)
    runs = [run for low in range(0, samples, step) for run in visit.runs(low, min(low + step, samples))]
    positions = [position for run in runs for position in range(*run)]
    assert sorted(positions) == list(range(samples))
    for slot, position in enumerate(positions):
        assert slot % shard == position % shard  # so pairs and blocks of witnesses stay together
    assert positions[samples // shard * shard :] == list(range(samples // shard * shard, samples))


def test_order_of_shards_depends_on_seed_and_pass() -> None:
    def order(seed: int, epoch: int) -> tuple[int, ...]:
        runs = Visit(num_samples=64 * 20, shard_size=64, shuffle_seed=seed, epoch=epoch).runs(0, 64 * 20)
        return tuple(start for start, _ in runs)

    orders = {order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9 and order(1, 2) == order(1, 2)
    assert tuple(range(0, 64 * 20, 64)) not in orders
    assert list(Visit(num_samples=500).runs(3, 77)) == [(3, 77)]
