"""Scratch memory of the pixel kernels: one growing array per thread, so that no image allocates."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import wrapping


class _Arena(threading.local):
    def __init__(self) -> None:
        self.grow(1 << 17)

    def grow(self, count: int) -> None:
        self.words = np.empty(count, np.uint64)
        self.read = self.words.view()
        self.read.flags.writeable = False


_arena = _Arena()


def with_arena(attempt: Callable[..., int], *arguments: object) -> None:
    """Run a kernel with this thread's scratch, uint64, as its last two arguments: to write, and the same to read.

    The kernel returns how many words it needs before it writes anything, or does its work and returns 0.
    """
    with wrapping():
        while needed := attempt(*arguments, _arena.words, _arena.read):
            _arena.grow(needed)


def flat(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All values in C order, read-only, so that each kernel is compiled for one kind of array."""
    values = array.reshape(-1)
    values.flags.writeable = False
    return values
