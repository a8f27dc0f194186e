"""How kernels are compiled: without the GIL, and kept on disk between runs where there is a place to keep them.

numba keeps machine code for as long as the file is unchanged that a kernel stands in. But kernels are compiled into
those of other files, which would then go on with what was there before. So the code is kept for as long as no file
with kernels has changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit

SOURCES = ("jit.py", "pcg.py", "images/window.py", "store/*kernels.py", "store/packed/*.py", "views/*.py")
"""Where kernels stand, and what they are made of."""


def kernel(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile on first call; strict IEEE arithmetic, no parallelism of its own, the GIL released."""
    if config.DISABLE_JIT:
        return function
    try:
        compiled = njit(nogil=True, cache=True, **options)(function)
        file = compiled._cache._cache_file
        file._source_stamp = (*file._source_stamp, sources_digest())
    except (RuntimeError, AttributeError):  # nowhere to write, or a numba that keeps code in another way
        return njit(nogil=True, **options)(function)  # type: ignore[no-any-return]
    return compiled  # type: ignore[no-any-return]


def lean_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function that allocates nothing, nor do those it calls.

    numba then counts no references to arrays; where small functions hand arrays on, that took half of the time.
    """
    return kernel(function, _nrt=False)


@cache
def sources_digest() -> str:
    """A hash of all files with kernels, hexadecimal."""
    package = Path(__file__).parent
    files = (file for pattern in SOURCES for file in sorted(package.glob(pattern)))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into every kernel that calls it: for small steps inside loops, where a call costs more than the step."""
    return njit(nogil=True, forceinline=True)(function)  # type: ignore[no-any-return]


def lean_inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for lean kernels."""
    return njit(nogil=True, forceinline=True, _nrt=False)(function)  # type: ignore[no-any-return]


def wrapping() -> AbstractContextManager[object]:
    """For calls of kernels: with the JIT off, numpy's scalars wrap around as compiled ones do, but would warn."""
    return np.errstate(over="ignore") if config.DISABLE_JIT else nullcontext()
