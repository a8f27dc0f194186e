"""What a process holds for itself: anonymous and shared memory, not the files that it has mapped."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

MIB = 1 << 20
_FIELDS = ("RssAnon", "RssShmem")


def private_bytes() -> int:
    """``RssAnon`` + ``RssShmem`` of this process, in bytes; Linux only."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return sum(int(status[name].split()[0]) * 1024 for name in _FIELDS)


def in_fresh_process(function: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """What a function returns in a new process, so that one measurement's memory is no part of the next one's."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
