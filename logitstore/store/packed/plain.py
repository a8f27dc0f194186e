"""Records as levels: what the kernels code, made of a block as it is stored, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.store.blocks import Block
from logitstore.store.packed.shape import NO_MASS, RecordShape, level_of_halves
from logitstore.store.packed.state import Chunk
from logitstore.store.values import PADDING

_SIGN, _INFINITE = 0x8000, 0x7C00
_NAN = np.array(np.nan, np.float16).view(np.uint16)


@dataclass(frozen=True, kw_only=True)
class PlainRecords:
    """Records whose values are levels, and where they are float16, what lies within."""

    index_PK: NDArray[Any]
    """Classes; padding is the type's maximum."""
    level_PK: NDArray[np.uint8]
    """Levels; 255 at padding."""
    fine_PK: NDArray[np.uint16]
    """Bits of float16 without their sign; [0, K] if values are quantised."""
    kept_P: NDArray[np.int64]
    """Classes that are kept."""
    tail_P: NDArray[np.uint8]
    """Levels; 255 for no mass."""
    tail_fine_P: NDArray[np.uint16]
    """Bits without sign; [0] if values are quantised."""

    @classmethod
    def empty(cls, count: int, shape: RecordShape) -> Self:
        """So many records that keep nothing."""
        fine = count if shape.is_fine else 0
        return cls(
            index_PK=np.full((count, shape.topk), np.iinfo(shape.index_dtype).max, shape.index_dtype),
            level_PK=np.full((count, shape.topk), NO_MASS, np.uint8),
            fine_PK=np.zeros((fine, shape.topk), np.uint16),
            kept_P=np.zeros(count, np.int64),
            tail_P=np.full(count, NO_MASS, np.uint8),
            tail_fine_P=np.zeros(fine, np.uint16),
        )

    @classmethod
    def of(cls, block: Block, shape: RecordShape) -> Self | None:
        """The records of a block; None where they are not in order, and must be stored as they are.

        Args:
            block: with one group of ranks.
            shape: of its records.
        """
        index_PK = np.ascontiguousarray(block.index[0])
        kept_PK = index_PK != np.iinfo(index_PK.dtype).max
        kept_P = kept_PK.sum(axis=1, dtype=np.int64)
        if (kept_PK != (np.arange(shape.topk) < kept_P[:, None])).any():
            return None
        if (index_PK[kept_PK] >= shape.num_classes).any():
            return None
        if shape.is_fine:
            values, tails = _levels_of_halves(block.logp[0], kept_PK), _levels_of_halves(block.tail, None)
            if values is None or tails is None:
                return None
            (level_PK, fine_PK), (tail_P, tail_fine_P) = values, tails
        else:
            level_PK, tail_P = np.ascontiguousarray(block.logp[0]), block.tail
            fine_PK, tail_fine_P = np.empty((0, shape.topk), np.uint16), np.empty(0, np.uint16)
            if ((level_PK != PADDING) != kept_PK).any():
                return None
        order = fine_PK if shape.is_fine else level_PK
        ahead_PK, behind_PK = order[:, :-1], order[:, 1:]
        both_PK = kept_PK[:, 1:]
        if (both_PK & (ahead_PK > behind_PK)).any():
            return None
        tied_PK = both_PK & (ahead_PK == behind_PK) & (index_PK[:, :-1] >= index_PK[:, 1:])
        if shape.scale.by_code and tied_PK[:, 1:].any():
            return None
        return cls(
            index_PK=index_PK,
            level_PK=level_PK,
            fine_PK=fine_PK,
            kept_P=kept_P,
            tail_P=np.ascontiguousarray(tail_P),
            tail_fine_P=tail_fine_P,
        )

    def head(self, count: int) -> Self:
        """The first records."""
        return type(self)(**{name: array[:count] for name, array in vars(self).items()})

    def chunk(self, sample_P: NDArray[np.int64]) -> Chunk:
        """What the kernels take."""
        return Chunk(
            sample=sample_P,
            classes=self.index_PK,
            level=self.level_PK,
            fine=self.fine_PK,
            kept=self.kept_P,
            tail=self.tail_P,
            tail_fine=self.tail_fine_P,
        )

    def values(self, shape: RecordShape) -> tuple[NDArray[Any], NDArray[Any]]:
        """``logp`` [P, K] and ``tail`` [P] as they are stored."""
        if not shape.is_fine:
            return self.level_PK, self.tail_P
        kept_PK = np.arange(shape.topk) < self.kept_P[:, None]
        return _halves(self.fine_PK, kept_PK), _halves(self.tail_fine_P, self.tail_P != NO_MASS)


def _levels_of_halves(
    values: NDArray[np.float16], present: NDArray[np.bool_] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]] | None:
    """Levels, and bits without sign; None where a value is positive, infinite, -0.0 or an unusual NaN."""
    bits = np.ascontiguousarray(values).view(np.uint16)
    if present is None:
        present = bits != _NAN
    fine = np.where(present, bits & ~np.uint16(_SIGN), 0).astype(np.uint16)
    proper = (bits == 0) | ((bits > _SIGN) & (fine < _INFINITE))
    if (np.where(present, ~proper, bits != _NAN)).any():
        return None
    return np.where(present, level_of_halves()[fine], NO_MASS).astype(np.uint8), fine


def _halves(fine: NDArray[np.uint16], present: NDArray[np.bool_]) -> NDArray[np.float16]:
    bits = np.where(fine > 0, fine | _SIGN, 0).astype(np.uint16)
    return np.where(present, bits, _NAN).astype(np.uint16).view(np.float16)
