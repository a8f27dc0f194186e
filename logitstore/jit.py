"""How kernels are compiled: without the GIL, and kept on disk between runs where there is a place to keep them.

numba keys what it keeps by the file a kernel stands in. Who edits a kernel that another file compiles in
(``tables``, ``pcg``, ``turn``, ...) removes that file's ``__pycache__`` too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numba import config, njit


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call; strict IEEE arithmetic, no parallelism of its own, the GIL released."""
    try:
        return njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return njit(nogil=True)(function)  # type: ignore[no-any-return]


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile into every kernel that calls it: for small steps inside loops, where a call costs more than the step."""
    return njit(nogil=True, forceinline=True)(function)  # type: ignore[no-any-return]


def wrapping() -> AbstractContextManager[object]:
    """For calls of kernels: with the JIT off, numpy's scalars wrap around as compiled ones do, but would warn."""
    return np.errstate(over="ignore") if config.DISABLE_JIT else nullcontext()
