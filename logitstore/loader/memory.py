"""Memory for batches of views, used again as soon as nobody looks at what lay there."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


class BatchMemory:
    """Gives out arrays whose memory comes back when the last view, slice or tensor of them is gone.

    Fresh memory costs a page fault for every 4 KiB that is written first, and page-locked memory a call to the driver.

    Args:
        nbytes: of a full batch; larger arrays are given, too, but their memory is not kept.
        kept: how many unused pieces are kept at most.
        pinned: whether to page-lock the memory, so that copies to a GPU need not wait. Whoever copies from it must
            hold on to the array until the copy is done.
    """

    def __init__(self, *, nbytes: int, kept: int, pinned: bool = False) -> None:
        self._nbytes, self._kept, self._pinned = nbytes, kept, pinned
        self._free: deque[U8] = deque()

    def take(self, *shape: int) -> U8:
        """An array of this shape, C-contiguous, with anything in it."""
        needed = math.prod(shape)
        try:
            memory = self._free.pop() if needed <= self._nbytes else self._new(needed)
        except IndexError:
            memory = self._new(self._nbytes)
        # Slices and tensors hold on to ``flat``, for numpy looks no further than a buffer that is no array.
        flat = np.frombuffer(memory.data, np.uint8, needed)
        weakref.finalize(flat, self._come_back, memory).atexit = False
        return flat.reshape(shape)

    def clear(self) -> None:
        """Give the unused memory back to the system."""
        self._free.clear()

    def _come_back(self, memory: U8) -> None:
        if len(memory) == self._nbytes and len(self._free) < self._kept:
            self._free.append(memory)

    def _new(self, nbytes: int) -> U8:
        if not self._pinned:
            return np.empty(nbytes, np.uint8)
        import torch

        memory: U8 = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        return memory
