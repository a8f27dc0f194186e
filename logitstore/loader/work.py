"""A batch in the making: what its tasks read and write, and how stored records are put together for it.

Shape suffixes: E rows of the pairs that enclose a batch, C colours (3) or, of logits, classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitstore.loader.batch import WITNESS_STEP, Batch

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
    witness_E: NDArray[np.uint32]
    """CRC-32C of the views whose positions have a witness; 0 elsewhere."""
    bad: dict[int, str] = field(default_factory=dict)
    """Row and name of images that did not decode."""

    def __len__(self) -> int:
        return len(self.sample_E)

    def batch(self, labels: NDArray[np.int64] | None, *, witnessed: bool) -> Batch:
        """The rows that the batch keeps, none of the large arrays copied.

        Args:
            labels: of all samples, or None.
            witnessed: whether the views are such as have witnesses.
        """
        label_E = np.full(len(self), -1, np.int64) if labels is None else np.asarray(labels[self.sample_E], np.int64)
        partner_label_E = np.where(self.own_E < 1.0, label_E[partners(len(self))], label_E)
        position_B = self.position_E[self.cut]
        witness_rows = np.flatnonzero(position_B % WITNESS_STEP == 0) if witnessed else np.arange(0)
        kept = range(len(self))[self.cut]
        return Batch(
            epoch=self.epoch,
            start=self.start,
            stop=self.stop,
            position_B=position_B,
            sample_B=self.sample_E[self.cut],
            seed_B=self.seed_E[self.cut],
            views_BCHW=self.views_ECHW[self.cut],
            own_B=self.own_E[self.cut],
            label_B=label_E[self.cut],
            partner_label_B=partner_label_E[self.cut],
            weight_B=self.weight_E[self.cut],
            records=None if self.records is None else cut(self.records, self.cut),
            logits_BC=None if self.logits_EC is None else self.logits_EC[self.cut],
            bad=tuple(self.bad[row] for row in sorted(self.bad) if row in kept),
            witness_position_J=position_B[witness_rows],
            witness_J=self.witness_E[self.cut][witness_rows],
        )


def partners(count: int) -> NDArray[np.int64]:
    """Which row each of ``count`` rows is paired with; an odd last one with itself."""
    return np.asarray(np.minimum(np.arange(count) ^ 1, count - 1))


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
