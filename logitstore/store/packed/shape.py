"""What the records of a store look like, as far as coding needs to know; and what their levels mean.

Quantised values are levels already. float16 values have levels of 1/8 nat, too, and lie finer within them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.store.manifest import Manifest
from logitstore.store.packed.state import Scale
from logitstore.store.values import CODES_PER_NAT, RANKED_BY_CODE, Values, index_dtype, record_bytes, value_dtype

F16_LEVELS = 8
"""Levels per nat of float16 values."""
NO_MASS = 255
"""Level of a tail without mass, and of what is no class."""

_LAST = 254
_INFINITE = 0x7C00
_FALL = {8: 3790295335, 4: 3344923893, 2: 2605029347}
"""2**32 exp(-1/n)."""
_REACH = 10
"""Nats below which a class is taken to be that a view did not keep, where there is no floor."""


@dataclass(frozen=True, kw_only=True)
class RecordShape:
    """What a chunk's records look like."""

    topk: int
    """K."""
    num_classes: int
    """C."""
    values: Values
    """Form of the values."""
    floor: float
    """Least probability of a class that is kept; 0 for none."""
    logz: bool
    """Whether each has the log-sum-exp of its logits."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Of a store's records."""
        m = manifest
        return cls(topk=m.topk, num_classes=m.num_classes, values=m.values, floor=m.floor, logz=m.logz)

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Of classes."""
        return index_dtype(self.num_classes)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of log-probabilities."""
        return value_dtype(self.values)

    @property
    def is_fine(self) -> bool:
        """Whether values are finer than levels."""
        return self.values not in CODES_PER_NAT

    @property
    def record_bytes(self) -> int:
        """Bytes of a record in memory, seed included."""
        return record_bytes(self.topk, self.num_classes, self.values, self.logz)

    @cached_property
    def scale(self) -> Scale:
        """What levels mean."""
        per_nat = CODES_PER_NAT.get(self.values, F16_LEVELS)
        mass = _masses(per_nat)
        # The last level that the floor lets through.
        last = int((mass[:_LAST] >= self.floor * mass[0]).sum()) - 1
        absent = last + per_nat if self.floor > 0 else _REACH * per_nat
        shift = last.bit_length() - 4 if self.floor > 0 else per_nat.bit_length() - 1
        return Scale(
            mass=mass,
            hint=np.minimum(_LAST, (mass[None] > ((np.arange(4097)[:, None] + 1) << 12) - 1).sum(axis=1)),
            first=_firsts() if self.is_fine else np.empty(0, np.int64),
            absent=min(_LAST, absent),
            shift=max(0, shift),
            by_code=self.values in RANKED_BY_CODE,
        )


def _masses(per_nat: int) -> NDArray[np.int64]:
    """Probability, in 2**24, of each level."""
    masses, exact = [], 1 << 40
    for _ in range(NO_MASS + 1):
        masses.append(exact >> 16)
        exact = exact * _FALL[per_nat] >> 32
    return np.array(masses, np.int64)


@cache
def level_of_halves() -> NDArray[np.uint8]:
    """Level of each float16 in [0, inf), by its bits, taken as a negative log-probability."""
    halves = np.arange(_INFINITE, dtype=np.uint16).view(np.float16).astype(np.float32)
    return np.minimum(np.rint(halves * F16_LEVELS), _LAST).astype(np.uint8)


def _firsts() -> NDArray[np.int64]:
    """Bits of the first float16 of each level, and one behind the last."""
    return np.searchsorted(level_of_halves(), np.arange(NO_MASS + 1)).astype(np.int64)
