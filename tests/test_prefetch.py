"""Items in order, one ahead on a GPU, errors in their turn, the source closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch

from logitstore.loader import prefetched
from logitstore.loader.prefetch import one_ahead, tensors_in


def source(log: list[str], count: int, fails_at: int = -1) -> Iterator[int]:
    try:
        for n in range(count):
            if n == fails_at:
                raise ZeroDivisionError(n)
            log.append(f"made {n}")
            yield n
    finally:
        log.append("closed")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_item_is_asked_for_before_the_one_in_front_is_handed_out(count: int) -> None:
    log: list[str] = []
    for n in one_ahead(source(log, count)):
        log.append(f"used {n}")
    used = [log.index(f"used {n}") for n in range(count)]
    assert used == sorted(used)
    assert all(log.index(f"made {n + 1}") < used[n] for n in range(count - 1))
    assert all(log.index(f"made {n + 2}") > used[n] for n in range(count - 2))


@pytest.mark.parametrize("fails_at", [0, 1, 4])
def test_an_error_waits_for_its_turn(fails_at: int) -> None:
    found = []
    with pytest.raises(ZeroDivisionError, match=str(fails_at)):
        for n in one_ahead(source([], 7, fails_at)):
            found.append(n)
    assert found == list(range(fails_at))


def test_on_a_cpu_items_are_placed_when_they_are_asked_for() -> None:
    log: list[str] = []
    placed = prefetched(source(log, 3), lambda n: log.append(f"placed {n}") or n, torch.device("cpu"))
    assert next(placed) == 0 and log == ["made 0", "placed 0"]
    assert list(placed) == [1, 2]
    assert log == ["made 0", "placed 0", "made 1", "placed 1", "made 2", "placed 2", "closed"]


def test_closing_closes_the_source() -> None:
    log: list[str] = []
    placed = prefetched(source(log, 3), str, torch.device("cpu"))
    next(placed)
    placed.close()
    assert log == ["made 0", "closed"]
    assert list(prefetched([1, 2], str, torch.device("cpu"))) == ["1", "2"]  # a list has nothing to close


def test_a_failure_in_placing_closes_the_source() -> None:
    log: list[str] = []
    with pytest.raises(ValueError, match="no"):
        list(prefetched(source(log, 3), lambda n: int("no"), torch.device("cpu")))
    assert log == ["made 0", "closed"]


@dataclass(frozen=True)
class Nested:
    """A dataclass of everything that may hold tensors."""

    one: torch.Tensor
    more: tuple[object, ...]
    none: None = None


def test_tensors_are_found_at_any_depth() -> None:
    a, b, c, d = (torch.tensor(n) for n in range(4))
    value = Nested(one=a, more=([b, "text"], {"c": (c, 3)}, Nested(one=d, more=())))
    assert [int(tensor) for tensor in tensors_in(value)] == [0, 1, 2, 3]
    assert list(tensors_in((1, None, Nested, {}))) == []


class FakeStream:
    """What the GPU's part asks of a stream; waiting for a copy is logged."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def wait_stream(self, other: object) -> None:
        self._log.append("side waits")

    def record_event(self) -> FakeStream:
        return self

    def synchronize(self) -> None:
        self._log.append("copied")


def test_on_a_gpu_copies_are_done_and_tensors_belong_to_the_callers_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr("logitstore.loader.prefetch._side_stream", lambda device: FakeStream(log))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "the caller's")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"{int(self)} is {stream}"))
    for tensor in prefetched(source(log, 2), torch.tensor, torch.device("cuda")):
        log.append(f"used {int(tensor)}")
    first = ["side waits", "made 0", "made 1", "copied", "0 is the caller's", "used 0"]
    assert log == [*first, "closed", "copied", "1 is the caller's", "used 1"]
