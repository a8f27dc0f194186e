"""Records in memory: padding and quantising for the disk, and masses back from it. No files here.

Shape suffixes: B records, S records of a shard, W witnesses of a shard, K ranks.

On disk a record holds log-probabilities at temperature 1, in one of the forms of ``values``. Padding is what stands for
no mass there, in ``tail`` too; a padded index is its type's maximum. A skipped sample has nothing kept and no tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError, NonFiniteError
from logitstore.store.values import (
    RANKED_BY_CODE,
    Values,
    codes,
    index_dtype,
    mass_table,
    quantise,
    rank_by_code,
    value_dtype,
)

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Records:
    """Decoded records at consecutive positions of one epoch; probabilities are masses, not logarithms."""

    sample: NDArray[np.int64]
    """Sample numbers, [B]."""
    seed: NDArray[np.uint32]
    """Seeds of the views, [B]."""
    index: NDArray[Any]
    """Kept classes, most probable first, [B, K]; uint16 or uint32, padding is the type's maximum."""
    prob: F32
    """Probabilities of the kept classes, [B, K]; 0 at padding. Sums with ``tail`` to 1."""
    tail: F32
    """Probability outside the kept classes, [B]."""
    kept: NDArray[np.int32]
    """Number of kept classes, [B]."""
    weight: F32
    """Weight in a loss, [B]: 1, or 0 for a skipped sample."""
    logz: F32 | None
    """Log-sum-exp of the logits, [B]; None where the store does not keep it."""

    def __len__(self) -> int:
        return len(self.seed)


@dataclass(frozen=True, kw_only=True)
class ShardBlock:
    """One shard's arrays as they are stored, for ``commit_shard``."""

    seed: NDArray[np.uint32]
    """[S]"""
    index: NDArray[Any]
    """[S, K], from ``encode_records``."""
    logp: NDArray[Any]
    """[S, K], from ``encode_records``."""
    tail: NDArray[Any]
    """[S], from ``encode_records``."""
    witness: NDArray[np.uint32]
    """[W], CRC-32C of the views at positions 0, 64, 128, ... of the shard."""
    logz: F32 | None = None
    """[S], float32."""

    def __len__(self) -> int:
        return len(self.seed)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, without an absent ``logz``."""
        return {name: array for name, array in vars(self).items() if array is not None}


def encode_records(
    *,
    index_BK: NDArray[np.integer[Any]],
    logp_BK: F32,
    tail_B: F32,
    kept_B: NDArray[np.integer[Any]],
    topk: int,
    values: Values,
    num_classes: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Pad records to K ranks and quantise them.

    Args:
        index_BK: classes, most probable first; at most ``topk`` ranks, whatever stands beyond ``kept_B`` is ignored.
        logp_BK: their log-probabilities in nat, float32.
        tail_B: log of the mass outside the kept classes; -inf for none.
        kept_B: ranks that count, per record; 0 for a skipped sample, whose tail is stored as "no mass".
        topk: K of the store.
        values: form of the store.
        num_classes: C.

    Returns:
        ``index`` [B, K], ``logp`` [B, K], ``tail`` [B] in the dtypes of the store.

    Raises:
        InputError: a class outside [0, C), or more ranks than ``topk``.
        NonFiniteError: a kept log-probability is NaN or infinite, or a tail NaN or +inf.
    """
    num_records, given = index_BK.shape
    if given > topk:
        raise InputError(f"Records of {given} ranks do not fit into a store of {topk}; cut them to the first {topk}.")
    if logp_BK.shape != index_BK.shape or tail_B.shape != (num_records,) or kept_B.shape != (num_records,):
        raise InputError("index_BK, logp_BK, tail_B and kept_B do not agree in their numbers of records and ranks.")
    if num_records and not 0 <= kept_B.min() <= kept_B.max() <= given:
        raise InputError(f"kept_B must lie in 0..{given}.")
    kept_BK = np.arange(given) < kept_B[:, None]
    _check_kept(index_BK, logp_BK, kept_BK, num_classes)
    empty_B = kept_B == 0
    _check_tail(tail_B, empty_B)

    dtype = index_dtype(num_classes)
    index = np.full((num_records, topk), np.iinfo(dtype).max, dtype)
    np.copyto(index[:, :given], index_BK, where=kept_BK, casting="unsafe")
    logp = np.full((num_records, topk), -np.inf, np.float32)
    np.copyto(logp[:, :given], logp_BK, where=kept_BK)
    stored, tail = quantise(logp, values), quantise(np.where(empty_B, np.float32(-np.inf), tail_B), values)
    if values in RANKED_BY_CODE:
        index, stored = rank_by_code(index, stored)
    return index, stored, tail


def kept_counts(index_BK: NDArray[Any]) -> NDArray[np.int32]:
    """Ranks per record that are not padding."""
    padding = np.iinfo(index_BK.dtype).max
    return np.asarray(np.einsum("bk->b", (index_BK != padding).view(np.uint8), dtype=np.int32))


def decode_records(
    index_BK: NDArray[Any], logp_BK: NDArray[Any], tail_B: NDArray[Any], *, values: Values, topk: int | None = None
) -> tuple[NDArray[Any], F32, F32]:
    """Masses of stored records, normalised so that kept classes and tail sum to 1 (within 1e-6).

    Args:
        index_BK: stored classes.
        logp_BK: stored log-probabilities.
        tail_B: stored log of the tail's mass.
        values: form of the store.
        topk: keep only so many ranks; the mass of the others goes to the tail.

    Returns:
        ``index`` [B, k], ``prob`` [B, k] float32, ``tail`` [B] float32. A record without any mass (a skipped sample)
        stays without.

    Raises:
        InputError: the shapes do not fit together, or another form was stored.
    """
    if not (logp_BK.shape == index_BK.shape and tail_B.shape == index_BK.shape[:1]):
        raise InputError(
            f"Records need as many log-probabilities as classes and one tail each, got {index_BK.shape}, "
            f"{logp_BK.shape} and {tail_B.shape}."
        )
    count, width = index_BK.shape
    out = DecodedRecords.empty(count, width if topk is None else min(topk, width), index_BK.dtype)
    out.decode(0, index_BK[None], logp_BK[None], tail_B, 0, count, values=values)
    return out.index, out.prob, out.tail


@dataclass(frozen=True, kw_only=True)
class DecodedRecords:
    """Memory that records are decoded into."""

    index: NDArray[Any]
    """[B, K]"""
    prob: F32
    """[B, K]"""
    tail: F32
    """[B]"""
    kept: NDArray[np.int32]
    """[B]"""

    @classmethod
    def empty(cls, count: int, topk: int, index_dtype: np.dtype[Any]) -> Self:
        """Room for so many records of so many ranks."""
        return cls(
            index=np.empty((count, topk), index_dtype),
            prob=np.empty((count, topk), np.float32),
            tail=np.empty(count, np.float32),
            kept=np.empty(count, np.int32),
        )

    def decode(
        self,
        at: int,
        index_QPR: NDArray[Any],
        logp_QPR: NDArray[Any],
        tail_P: NDArray[Any],
        low: int,
        high: int,
        *,
        values: Values,
    ) -> None:
        """Decode positions ``low`` to ``high`` of stored arrays into the rows from ``at`` on.

        Args:
            at: first row.
            index_QPR: stored classes, in groups of ranks.
            logp_QPR: stored log-probabilities.
            tail_P: stored log of the tail's mass.
            low: first position in the arrays.
            high: one after the last position.
            values: form of what is stored.

        Raises:
            InputError: it is stored in another form.
        """
        if not logp_QPR.dtype == tail_P.dtype == value_dtype(values):
            raise InputError(f"Log-probabilities as {values} are {value_dtype(values)}, got {logp_QPR.dtype}.")
        from logitstore.store.kernels import decode_masses  # numba loads where records are first decoded

        here = slice(at, at + high - low)
        decode_masses(
            np.ascontiguousarray(index_QPR),
            np.ascontiguousarray(codes(logp_QPR)),
            np.ascontiguousarray(codes(tail_P)),
            mass_table(values),
            index_QPR.dtype.type(np.iinfo(index_QPR.dtype).max),
            low,
            high,
            self.index[here],
            self.prob[here],
            self.tail[here],
            self.kept[here],
        )


def _check_kept(index_BK: NDArray[Any], logp_BK: F32, kept_BK: NDArray[np.bool_], num_classes: int) -> None:
    classes = index_BK[kept_BK]
    if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
        raise InputError(f"A kept class lies outside 0..{num_classes - 1}.")
    if not np.isfinite(logp_BK[kept_BK]).all():
        raise NonFiniteError("A kept log-probability is NaN or infinite; the teacher's logits are not finite.")


def _check_tail(tail_B: F32, empty_B: NDArray[np.bool_]) -> None:
    bad = np.isnan(tail_B) | (tail_B == np.inf)
    if (bad & ~empty_B).any():
        raise NonFiniteError("A tail is NaN or infinite; the teacher's logits are not finite.")
