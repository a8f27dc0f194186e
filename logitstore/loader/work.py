"""A batch in the making: what its tasks read and write, and how stored records are put together for it.

Shape suffixes: E rows of the pairs that enclose a batch, C colours (3) or, of logits, classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from logitstore.store import Records


@dataclass(kw_only=True, eq=False)
class Work:
    """Arrays that the tasks of one batch fill, each task its own rows.

    They hold whole pairs. Where a batch begins or ends within one, the neighbour is made too and cut off at the end.
    """

    epoch: int
    start: int
    stop: int
    cut: slice
    """The rows that the batch keeps."""
    position_E: NDArray[np.int64]
    sample_E: NDArray[np.int64]
    seed_E: NDArray[np.uint32]
    records: Records | None
    logits_EC: NDArray[np.float32] | None
    """The teacher's, in the order of classes."""
    views_ECHW: NDArray[np.uint8]
    own_E: NDArray[np.float64]
    weight_E: NDArray[np.float32]
    bad: dict[int, str] = field(default_factory=dict)
    """Row and name of images that did not decode."""

    def __len__(self) -> int:
        return len(self.sample_E)


def joined(parts: Sequence[Records]) -> Records:
    """Records of several runs of positions, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return _rebuilt(parts[0], lambda name: np.concatenate([getattr(part, name) for part in parts]))


def cut(records: Records, rows: slice) -> Records:
    """Some rows of records."""
    if rows.indices(len(records.sample)) == (0, len(records.sample), 1):
        return records
    return _rebuilt(records, lambda name: getattr(records, name)[rows])


def _rebuilt(like: Records, column: Callable[[str], Any]) -> Records:
    """Records whose every array comes from ``column``; what is no array is kept."""
    values = {item.name: getattr(like, item.name) for item in fields(like)}
    return type(like)(**{n: column(n) if isinstance(v, np.ndarray) else v for n, v in values.items()})
