"""Scratch memory of the pixel kernels: one set of growing buffers per thread, so that no image allocates."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray


class _Buffers(threading.local):
    """Buffers of one thread that grow to the largest request and are reused. A name always has the same dtype."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[np.generic]] = {}

    def take(self, name: str, dtype: DTypeLike, *shape: int) -> NDArray[np.generic]:
        """An uninitialised C-contiguous array; valid until the same name is taken again in this thread."""
        count = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.size < count:
            flat = self._flat[name] = np.empty(count, dtype)
        return flat[:count].reshape(shape)

    def take_words(self, name: str, *shape: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        """An uninitialised array of 64-bit words, and the same memory as bytes (last axis 8 times as long)."""
        words = self.take(name, np.uint64, *shape)
        return words, words.view(np.uint8)  # type: ignore[return-value]


buffers = _Buffers()


class _Arena(threading.local):
    def __init__(self) -> None:
        self.words = np.empty(1 << 16, np.uint64)


_arena = _Arena()


def with_arena(attempt: Callable[..., int], *arguments: object) -> None:
    """Run a kernel with this thread's scratch: it says how many words it needs, or does its work and returns 0."""
    with np.errstate(over="ignore"):  # the JIT off: numpy's scalars wrap around as wanted, but would warn
        while needed := attempt(*arguments, _arena.words):
            _arena.words = np.empty(needed, np.uint64)
