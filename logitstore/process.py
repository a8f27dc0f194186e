"""Settings of a process that is ours alone: how threads wait and what memory goes back to the system.

Not for libraries that are imported into somebody else's process: ``__main__`` and the benchmarks call it, first thing.
Nothing here changes a result. What it is worth stands in docs/log.md.
"""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_KEPT_BYTES = 1 << 30


def prepare() -> None:
    """Let waiting threads sleep, and keep freed memory for the next batch. Before torch loads, or it has no effect."""
    # OpenMP's threads spin at every barrier by default. As soon as anything else wants a core, be it our own threads
    # that render views, all of them wait for the one that lost its core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # glibc gives the memory of freed activations back and faults it in again, page by page, for the next layer.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        # Else whatever is larger than 32 MiB comes straight from the system, and goes back there, each time.
        mallopt(_M_MMAP_MAX, 0)
