"""The tables that stand in for libm, and how they are read: linearly, with exact arithmetic.

Libraries' ``exp``, ``sin`` and their like differ in the last bit between machines. These tables ship with the package
(``tables.npz``, made by ``python -m tests.make_tables``); each has 4,096 equal intervals and holds int64 in units of
2**-32. Linear interpolation is within 1e-7 of ``log2``, ``exp2`` and ``sin``. The functions that read them are compiled
into the draws, and run as they stand with the JIT off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel

TABLE_FILE = Path(__file__).with_name("tables.npz")
INTERVALS = 4096
ONE = 4294967296.0
"""2**32: the tables' unit, and the number of steps between two whole arguments."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The shipped tables, each int64 [4097] in units of 2**-32 (read-only)."""

    normal: NDArray[np.int64]
    """Standard normal quantiles of 0.5 + i / 8192; the last entry gives the outermost interval its true mean."""
    log2: NDArray[np.int64]
    """log2(1 + i / 4096)."""
    exp2: NDArray[np.int64]
    """2 ** (i / 4096)."""
    sine: NDArray[np.int64]
    """sin(90 degrees * i / 4096)."""


@cache
def load_tables() -> Tables:
    """The tables from the file beside this module."""
    with np.load(TABLE_FILE) as archive:
        arrays = {name: np.ascontiguousarray(archive[name], np.int64) for name in archive.files}
    for array in arrays.values():
        array.setflags(write=False)
    return Tables(**arrays)


@kernel
def interpolate(table, position):  # type: ignore[no-untyped-def]
    """``table`` at ``position`` / 2**20 entries, rounded down: position in [0, 2**32]; int64 in and out."""
    entry = min(position >> 20, INTERVALS - 1)
    return table[entry] + ((table[entry + 1] - table[entry]) * (position - (entry << 20)) >> 20)


@kernel
def normal_quantile(bits, normal):  # type: ignore[no-untyped-def]
    """Standard normal number from 32 random bits (int64): bit 31 is the sign, the others how far out."""
    distance = interpolate(normal, (bits & 0x7FFFFFFF) << 1) / ONE
    return -distance if bits >> 31 else distance


@kernel
def log2(x, table):  # type: ignore[no-untyped-def]
    """Base-2 logarithm of a positive float64."""
    exponent = 0.0
    while x >= 2.0:
        x *= 0.5
        exponent += 1.0
    while x < 1.0:
        x *= 2.0
        exponent -= 1.0
    return exponent + interpolate(table, math.floor((x - 1.0) * ONE)) / ONE


@kernel
def exp2(x, table):  # type: ignore[no-untyped-def]
    """2 to the power of a float64 between -1000 and 1000."""
    whole = math.floor(x)
    value = interpolate(table, math.floor((x - whole) * ONE)) / ONE
    for _ in range(whole):
        value *= 2.0
    for _ in range(-whole):
        value *= 0.5
    return value


@kernel
def sin_degrees(degrees, sine):  # type: ignore[no-untyped-def]
    """Sine of an angle in [-90, 90] degrees."""
    value = interpolate(sine, math.floor(abs(degrees) / 90.0 * ONE)) / ONE
    return -value if degrees < 0.0 else value
