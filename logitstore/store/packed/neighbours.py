"""Which classes come with which, learnt from the first base records, in memory that only C bounds. docs/format.md
defines it.

Shape suffixes: C classes, S slots, W neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.jit import kernel

SLOTS = 64
"""Classes that are counted beside a class."""
NEIGHBOURS = 32
"""Of these, the most frequent ones are used."""
RANKS = 12
"""Ranks of a record that are looked at."""
RECORDS = 1 << 18
"""Records that are looked at, of all base epochs together: some hundred of each of a thousand classes, in a second."""

_PER_CLASS = 4
_WEIGHT = 1024


class Neighbours:
    """Counts of classes beside classes."""

    def __init__(self, num_classes: int, dtype: np.dtype[Any]) -> None:
        self._records = 0
        self._slot_CS = np.zeros((num_classes, SLOTS), dtype)
        self._count_CS = np.zeros((num_classes, SLOTS), np.int32)
        self._seen_C = np.zeros(num_classes, np.int64)

    def add(self, index_PK: NDArray[Any], kept_P: NDArray[np.int64]) -> None:
        """Look at records, in order; not at more than ``RECORDS`` in all."""
        count = min(len(kept_P), RECORDS - self._records)
        if count > 0:
            _count(index_PK[:count], kept_P[:count], self._slot_CS, self._count_CS, self._seen_C)
            self._records += count

    def best(self) -> tuple[NDArray[Any], NDArray[np.uint16], NDArray[np.int64]]:
        """Neighbours [C, W], their weights, 0 behind the last, and the cumulated frequencies of classes, [C + 1]."""
        count_CW = self._count_CS[:, :NEIGHBOURS].astype(np.int64)
        weight_CW = np.maximum(_WEIGHT * count_CW // (self._seen_C[:, None] + 1), count_CW > 0)
        upto = np.zeros(len(self._seen_C) + 1, np.int64)
        np.cumsum(_PER_CLASS * (self._seen_C + 1), out=upto[1:])
        return self._slot_CS[:, :NEIGHBOURS].copy(), weight_CW.astype(np.uint16), upto

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._slot_CS.nbytes + self._count_CS.nbytes + self._seen_C.nbytes


@kernel
def _count(index_PK, kept_P, slot_CS, count_CS, seen_C):  # type: ignore[no-untyped-def]
    """Count pairs among the first ranks of records. A class's slots are in descending order of their counts.

    A class that has none takes a free slot, or the last one, whose count begins anew.
    """
    slots = slot_CS.shape[1]
    for p in range(len(kept_P)):
        ranks = min(kept_P[p], RANKS)
        for k in range(ranks):
            cls = np.int64(index_PK[p, k])
            seen_C[cls] += 1
            for j in range(ranks):
                if j == k:
                    continue
                other = index_PK[p, j]
                s = 0
                while s < slots - 1 and count_CS[cls, s] > 0 and slot_CS[cls, s] != other:
                    s += 1
                if slot_CS[cls, s] != other or count_CS[cls, s] == 0:
                    slot_CS[cls, s] = other
                    count_CS[cls, s] = 0
                count_CS[cls, s] += 1
                better = s
                while better > 0 and count_CS[cls, better - 1] < count_CS[cls, s]:
                    better -= 1
                if better != s:
                    count = count_CS[cls, s]
                    slot_CS[cls, s], count_CS[cls, s] = slot_CS[cls, better], count_CS[cls, better]
                    slot_CS[cls, better], count_CS[cls, better] = other, count
