"""``Base``: what the base epochs tell of the others. It is learnt from their records and takes no room on disk.

Shape suffixes: P positions of a block, K ranks, L base epochs, N samples, C classes, W neighbours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.store.blocks import Block
from logitstore.store.codecs.packed import MAX_BASE
from logitstore.store.packed.expected import make_room
from logitstore.store.packed.kernels import LEARNT
from logitstore.store.packed.neighbours import Neighbours
from logitstore.store.packed.plain import PlainRecords
from logitstore.store.packed.shape import RecordShape
from logitstore.store.packed.state import BASE_RANKS, Model
from logitstore.store.packed.statistics import Counts

COUNTED_BLOCKS = 16
"""Blocks of each base epoch whose first records are counted."""


class Base:
    """What is known of samples and classes from base epochs; of none at first.

    Args:
        shape: of the records.
        num_samples: N.
    """

    def __init__(self, shape: RecordShape, num_samples: int) -> None:
        self.shape, self.num_samples = shape, num_samples
        self._start, self._stride = np.zeros(1, np.uint32), 0
        self._index = np.empty(0, shape.index_dtype)
        self._code = np.empty(0, np.uint8)
        self._neighbours = Neighbours(shape.num_classes, shape.index_dtype)
        self._best = [self._neighbours.best()]
        self._counts = [Counts.zeros()]
        self.level = 0
        """Number of base epochs that are known."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        best = {id(array): array.nbytes for arrays in self._best for array in arrays}
        known = self._start.nbytes + self._index.nbytes + self._code.nbytes
        return known + self._neighbours.nbytes + sum(best.values())

    @property
    def counts(self) -> Counts:
        """What a chunk's counts begin with; a copy."""
        return self._counts[self.level].copied()

    @property
    def model(self) -> Model:
        """What the kernels take."""
        neighbour, weight, upto = self._best[self.level]
        return Model(
            start=self._start,
            stride=self._stride,
            level=self.level,
            classes=self._index,
            code=self._code,
            neighbour=neighbour,
            weight=weight,
            upto=upto,
        )

    def upto(self, level: int) -> Self:
        """The same with fewer base epochs, in the same memory; for coding alone."""
        if not 0 <= level <= self.level:
            raise ValueError(f"there are {self.level} base epochs, not {level}")
        lower = copy.copy(self)
        lower.level = level
        return lower

    def add(self, blocks: Iterable[tuple[NDArray[np.int64], Block]]) -> None:
        """Learn from one more base epoch.

        Args:
            blocks: its chunks in order of positions, each with the samples at them, [P].

        Raises:
            ValueError: there are eight base epochs, or more are known already than here, or the blocks do not hold
                every sample once.
        """
        from logitstore.store.packed.chunk import coded  # which needs a base

        if self.level == MAX_BASE:
            raise ValueError(f"there are at most {MAX_BASE} base epochs")
        if len(self._counts) > self.level + 1:
            raise ValueError(f"{len(self._counts) - 1} base epochs are known already, here only {self.level}")
        before, counts = self.counts, self.counts
        gathered: list[_Part] = []
        for number, (sample_P, block) in enumerate(blocks):
            records = PlainRecords.of(block, self.shape)
            if records is None:  # they were stored as they are, and tell nothing
                records = PlainRecords.empty(len(sample_P), self.shape)
            elif number < COUNTED_BLOCKS:
                after = coded(records.head(LEARNT), sample_P[:LEARNT], self)[1]
                counts = Counts(*(sum_ + new - old for sum_, new, old in zip(counts, after, before, strict=True)))
            self._neighbours.add(records.index_PK, records.kept_P)
            kept_P = np.minimum(records.kept_P, BASE_RANKS)
            kept_PK = np.arange(self.shape.topk) < kept_P[:, None]
            index, code = records.index_PK[kept_PK], records.level_PK[kept_PK]
            gathered.append(_Part(sample_P=sample_P, kept_P=kept_P, index=index, code=code))
        self._include(gathered)
        self._counts.append(counts)
        self._best.append(self._neighbours.best())
        self.level += 1

    def _include(self, parts: Sequence[_Part]) -> None:
        """Put an epoch's classes, which come chunk by chunk, into the order of samples."""
        sample_N = np.concatenate([part.sample_P for part in parts])
        if not np.array_equal(np.sort(sample_N), np.arange(self.num_samples)):
            raise ValueError(f"a base epoch must hold each of the {self.num_samples} samples once")
        kept_N = np.empty(self.num_samples, np.int64)
        kept_N[sample_N] = np.concatenate([part.kept_P for part in parts])
        stride, count = self._stride, len(self._index) + int(kept_N.sum())
        if count > np.iinfo(np.uint32).max:
            raise ValueError(f"base epochs may keep at most 2**32 classes altogether, not {count}")
        start = np.empty(self.num_samples * (stride + 1) + 1, np.uint32)
        index, code = np.empty(count, self._index.dtype), np.empty(count, self._code.dtype)
        make_room(self._start, self._index, self._code, kept_N, stride, start, index, code)
        for part in parts:
            rank = np.arange(len(part.index)) - np.repeat(np.cumsum(part.kept_P) - part.kept_P, part.kept_P)
            place = np.repeat(start[part.sample_P * (stride + 1) + stride].astype(np.int64), part.kept_P) + rank
            index[place], code[place] = part.index, part.code
        self._start, self._stride, self._index, self._code = start, stride + 1, index, code


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The classes of a chunk, one record's after the other's."""

    sample_P: NDArray[np.int64]
    kept_P: NDArray[np.int64]
    index: NDArray[Any]
    code: NDArray[np.uint8]
