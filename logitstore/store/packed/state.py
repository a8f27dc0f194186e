"""What the kernels take: tuples of arrays, since these are what numba takes.

Shape suffixes: P positions of a chunk, K ranks, N samples, C classes, L base epochs, W neighbours of a class.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.store.packed.others import run_bits

BASE_RANKS = 32
"""Ranks of a base record at most that make classes expected."""


class Model(NamedTuple):
    """What base epochs tell. ``Base`` makes it."""

    start: NDArray[np.uint32]
    """[N x stride + 1]: where the classes begin that base epoch b kept of sample i, at place i x stride + b"""
    stride: int
    """Base epochs that are known,"""
    level: int
    """and L, how many of them count here."""
    classes: NDArray[Any]
    """classes that were kept, sample by sample, so that one is read at one place,"""
    code: NDArray[np.uint8]
    """and their levels"""
    neighbour: NDArray[Any]
    """[C, W]: classes that come with a class, most frequent first,"""
    weight: NDArray[np.uint16]
    """and how often; 0 behind the last"""
    upto: NDArray[np.int64]
    """[C + 1]: cumulated frequency of classes"""


class Scale(NamedTuple):
    """What levels mean."""

    mass: NDArray[np.int64]
    """[256]: probability, in 2**24, of each level"""
    hint: NDArray[np.int64]
    """[4097]: for each 2**12 of probability, the first level that has no more than the last of these, 254 at most"""
    first: NDArray[np.int64]
    """[256]: for values finer than levels, the first value of each level and one behind the last; else empty"""
    absent: int
    """Level of a class that was not kept."""
    shift: int
    """Levels of a band are 2**shift."""
    by_code: bool
    """Whether classes of one level are in ascending order."""


class Chunk(NamedTuple):
    """Records of a chunk; read in coding, written in decoding."""

    sample: NDArray[np.int64]
    """[P]; always read"""
    classes: NDArray[Any]
    """[P, K]"""
    level: NDArray[np.uint8]
    """[P, K]: codes of quantised values"""
    fine: NDArray[np.uint16]
    """[P, K]: values finer than levels, in ascending order of their negatives; [0, K] where there are none"""
    kept: NDArray[np.int64]
    """[P]"""
    tail: NDArray[np.uint8]
    """[P]"""
    tail_fine: NDArray[np.uint16]
    """[P], or empty"""


class Space(NamedTuple):
    """Memory that the kernels work in."""

    slot: NDArray[np.int64]
    """[C]: place among the expected classes, else -1"""
    out: NDArray[np.int64]
    """[C]: whether a class is expected or listed, and so cannot be any other"""
    score: NDArray[np.int64]
    """[C]: of neighbours,"""
    block: NDArray[np.int64]
    """[S]: and of runs of classes"""
    known: NDArray[np.int64]
    """[M]: expected classes,"""
    key: NDArray[np.int64]
    """[M]: their keys,"""
    chance: NDArray[np.int64]
    """[M]: chances,"""
    total: NDArray[np.int64]
    """[M]: sums of levels"""
    views: NDArray[np.int64]
    """[M]: and numbers of views"""

    @classmethod
    def of(cls, num_classes: int, levels: int) -> Self:
        """Space for so many classes and base epochs."""
        expected = levels * BASE_RANKS + 1
        return cls(
            np.full(num_classes, -1, np.int64),
            np.zeros(num_classes, np.int64),
            np.zeros(num_classes, np.int64),
            np.zeros((num_classes >> run_bits(num_classes)) + 1, np.int64),
            *np.empty((5, expected), np.int64),
        )
