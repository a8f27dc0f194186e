"""Records of every kind, and the distributions that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.store import Records


def records(
    seed: int, *, count: int, topk: int, num_classes: int, dtype: Any = np.uint16, empty: bool = True
) -> Records:
    """Records of every length from none to all ranks, with equal probabilities among them, and some without a tail."""
    rng = np.random.Generator(np.random.PCG64([seed, topk, num_classes]))
    kept = rng.integers(0 if empty else 1, topk + 1, count)
    there = np.arange(topk) < kept[:, None]
    index = np.argsort(rng.random((count, num_classes)), axis=1)[:, :topk]
    mass = np.sort(rng.integers(0, 4, (count, topk)) / 4, axis=1)[:, ::-1] * there
    tail = np.where((kept == 0) | (kept == num_classes) | (rng.random(count) < 0.2), 0.0, rng.random(count))
    total = mass.sum(1) + tail
    mass[(total == 0) & (kept > 0), 0] = 1.0
    total = np.where(total == 0, 1.0, total)
    return Records(
        sample=np.arange(count),
        seed=np.arange(count, dtype=np.uint32),
        index=np.where(there, index, np.iinfo(dtype).max).astype(dtype),
        prob=(mass / total[:, None]).astype(np.float32),
        tail=(tail / total).astype(np.float32),
        kept=kept.astype(np.int32),
        weight=(kept > 0).astype(np.float32),
        logz=None,
    )


def dense(one: Records, num_classes: int) -> NDArray[np.float64]:
    """The distributions that records stand for, [B, C]."""
    found = np.zeros((len(one), num_classes))
    for row in range(len(one)):
        kept = int(one.kept[row])
        if kept < num_classes:
            found[row] = float(one.tail[row]) / (num_classes - kept)
        found[row, one.index[row, :kept].astype(np.int64)] = one.prob[row, :kept]
    return found
