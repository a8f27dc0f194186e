"""The next batch travels to the device while the present one is worked on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
P = TypeVar("P")


def prefetched(items: Iterable[T], place: Callable[[T], P], device: torch.device) -> Generator[P, None, None]:
    """Items as ``place`` puts them on a device, in their order. Exceptions come in the turn of the item they are about.

    On a GPU the next item is placed, on a stream of its own, before the present one is handed out: its copies run while
    the caller's kernels do. The caller works on the stream that is current when it asks. An item is kept until its
    copies are done, so that its memory may be page-locked and used again afterwards. On any other device items are
    placed one at a time, when they are asked for.

    Args:
        items: where they come from; closed together with this iterator if it can be closed.
        place: from an item to what the caller wants on the device: tensors, or tuples, lists, mappings and dataclasses
            of them. Its copies should not wait (``non_blocking``).
        device: where the caller works.
    """
    import torch

    try:
        if device.type == "cuda":
            for _, placed, copied in one_ahead(_on_side_stream(items, place, device)):
                copied.synchronize()  # hardly ever waits: the copies began a step ago
                for tensor in tensors_in(placed):
                    # The side stream, which it was taken on, must not have its memory again while it is used here.
                    tensor.record_stream(torch.cuda.current_stream(device))
                yield placed
        else:
            yield from map(place, items)
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The items, each asked for before the one in front of it is handed out; what goes wrong waits for its turn."""
    source = iter(items)
    try:
        present = next(source)
    except StopIteration:
        return
    while True:
        try:
            following = next(source)
        except StopIteration:
            yield present
            return
        except Exception:
            yield present
            raise
        yield present
        present = following


def _on_side_stream(
    items: Iterable[T], place: Callable[[T], P], device: torch.device
) -> Iterator[tuple[T, P, torch.cuda.Event]]:
    """Each item, what ``place`` made of it, and what happens when its copies are done."""
    import torch

    side = _side_stream(device)
    # What ``place`` reads on the device, such as constants, was made there before.
    side.wait_stream(torch.cuda.current_stream(device))
    for item in items:
        with torch.cuda.stream(side):
            placed = place(item)
            copied = side.record_event()
        yield item, placed, copied


def tensors_in(value: object) -> Iterator[torch.Tensor]:
    """All tensors of a value, at any depth of tuples, lists, mappings and dataclasses."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each device: torch keeps freed memory for the stream it was taken on."""
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
