"""Make ``logitstore/views/tables.npz``: ``python -m tests.make_tables``.

50-digit arithmetic, rounded once, so that any machine makes the same file. The tables are part of the rules by which
a seed becomes a view: changing one calls for another ``ViewSpec.version``.
"""

from __future__ import annotations

import mpmath
import numpy as np
from numpy.typing import NDArray

from logitstore.views.tables import INTERVALS, TABLE_FILE


def _fixed(value: mpmath.mpf) -> int:
    return int(mpmath.nint(value * 2**32))


def _normal_quantiles() -> list[mpmath.mpf]:
    root2 = mpmath.sqrt(2)
    quantiles = [root2 * mpmath.erfinv(mpmath.mpf(i) / INTERVALS) for i in range(INTERVALS)]
    # The last interval reaches to infinity. Its end is put where a uniform step has the mean of the normal tail.
    tail = mpmath.mpf(1) / (2 * INTERVALS)
    mean = mpmath.npdf(quantiles[-1]) / tail
    return [*quantiles, 2 * mean - quantiles[-1]]


def make_tables() -> dict[str, NDArray[np.int64]]:
    """All tables by name, int64 [4097] in units of 2**-32."""
    with mpmath.workdps(50):
        steps = [mpmath.mpf(i) / INTERVALS for i in range(INTERVALS + 1)]
        values = {
            "normal": _normal_quantiles(),
            "log2": [mpmath.log(1 + step, 2) for step in steps],
            "exp2": [mpmath.mpf(2) ** step for step in steps],
            "sine": [mpmath.sin(step * mpmath.pi / 2) for step in steps],
        }
        return {name: np.array([_fixed(value) for value in column], np.int64) for name, column in values.items()}


if __name__ == "__main__":
    np.savez_compressed(TABLE_FILE, **make_tables())
    print(f"{TABLE_FILE}: {TABLE_FILE.stat().st_size:,} bytes")
