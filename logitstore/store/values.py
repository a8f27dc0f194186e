"""Forms of stored log-probabilities: float32 to what is stored, and masses back from it. No files and no records here.

``q8``, ``q4`` and ``q2`` store -8, -4 and -2 log p in a byte, rounded half to even and clamped to 254; ``f16`` stores
log p itself. 255 or NaN stands for no mass. docs/format.md defines them.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

Values = Literal["q8", "q4", "q2", "f16"]
FORMS: tuple[Values, ...] = get_args(Values)
CODES_PER_NAT: dict[Values, int] = {"q8": 8, "q4": 4, "q2": 2}
"""Of the forms that store a byte."""
PADDING = 255
"""The code for no mass."""
RANKED_BY_CODE: frozenset[Values] = frozenset({"q4", "q2"})
"""Forms whose ranks behind the first are ordered by what is stored: by code, then by class. In others they follow the
logits, as the first does in all."""

_LAST = PADDING - 1
_F16_LOWEST = float(np.finfo(np.float16).min)


def value_dtype(values: Values) -> np.dtype[Any]:
    """Of what is stored."""
    return np.dtype(np.uint8 if values in CODES_PER_NAT else np.float16)


def index_dtype(num_classes: int) -> np.dtype[Any]:
    """Of stored classes: uint16, or uint32 where that cannot hold C classes and the padding."""
    return np.dtype(np.uint16 if num_classes <= np.iinfo(np.uint16).max else np.uint32)


def record_bytes(topk: int, num_classes: int, values: Values, logz: bool) -> int:
    """Bytes of a record before it is compressed, its seed included, its share of a witness not."""
    return 4 + topk * index_dtype(num_classes).itemsize + (topk + 1) * value_dtype(values).itemsize + 4 * logz


def quantise(logp: F32, values: Values) -> NDArray[Any]:
    """Stored form of float32 log-masses of any shape; -inf becomes padding. No NaN may be among them."""
    present = logp > -np.inf
    if values not in CODES_PER_NAT:
        clamped = np.maximum(logp, np.float32(_F16_LOWEST), where=present, out=np.full_like(logp, np.nan))
        return clamped.astype(np.float16)
    # A log-probability is at most 0 but for the rounding of the softmax. np.rint rounds half to even.
    scaled = np.multiply(logp, np.float32(-CODES_PER_NAT[values]), where=present, out=np.zeros_like(logp))
    stored = np.clip(np.rint(scaled), 0, _LAST).astype(np.uint8)
    stored[~present] = PADDING
    return stored


def rank_by_code(index_BK: NDArray[Any], code_BK: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Stored ranks behind the first in the order of codes, then of classes; padding, the largest of both, stays last.

    Coarse codes are often equal. What order such classes had among them would take more bytes than it is worth; but
    which one the teacher held for the most probable is kept.

    Args:
        index_BK: stored classes, most probable first, uint16 or uint32 [B, K].
        code_BK: their codes [B, K].
    """
    bits = 8 * index_BK.itemsize
    wide_BK: NDArray[Any] = code_BK.astype(np.uint32 if bits == 16 else np.uint64)
    key_BK = (wide_BK << bits) | index_BK
    key_BK[:, 1:].sort(axis=1)
    return key_BK.astype(index_BK.dtype), (key_BK >> bits).astype(np.uint8)


@cache
def mass_table(values: Values) -> F32:
    """Mass of every code, float32 [256] or [65536]; padding has mass 0. Not to be written to."""
    if values in CODES_PER_NAT:
        return np.append(np.exp(-np.arange(PADDING) / CODES_PER_NAT[values]), 0.0).astype(np.float32)
    stored = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(over="ignore", invalid="ignore"):  # of codes that no record holds
        return np.nan_to_num(np.exp(stored.astype(np.float32)), nan=0.0)


def codes(stored: NDArray[Any]) -> NDArray[Any]:
    """What is stored as the unsigned numbers that ``mass_table`` is indexed by; nothing is copied."""
    return stored if stored.dtype == np.uint8 else stored.view(np.uint16)
