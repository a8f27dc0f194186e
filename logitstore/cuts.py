"""What a cut costs in quality: records made of whole logits, and the divergence of what a reader gets from them.

A cut says which classes of a view are kept, by number, probability, mass and gain, and how their values are stored.
Bytes mean something only at equal divergence, so whatever chooses a cut (``plan``, ``dump --target-kl``, the
benchmarks) measures it here, in float64. Shape suffixes: N views, C classes, K kept.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.store import decode_records, encode_records
from logitstore.store.manifest import NO_MASS_CUT
from logitstore.store.values import Values
from logitstore.topk import divergence_saved, select_topk

F64 = NDArray[np.float64]
_BLOCK_VALUES = 1 << 22  # of logits in one step: 32 MiB of float64
_LEAST_MASS = float(np.finfo(np.float32).smallest_subnormal)  # what a reader can still tell from nothing
FLOORS = tuple(float(f"{digits / 10:.1f}e{power}") for power in range(-8, 0) for digits in range(10, 100))
"""The floors that ``largest_floor`` chooses among: all of two significant digits from 1e-8 to 0.99. Likewise what the
masses of ``smallest_mass`` leave out."""
GAINS = tuple(float(f"{digits / 100:.2f}e{power}") for power in range(-8, 1) for digits in range(100, 1000))
"""The gains that ``largest_gain`` chooses among: all of three significant digits from 1e-8 to 9.99."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which classes of a view are kept, and how."""

    topk: int
    """K, the most classes; in [1, C]."""
    floor: float = 0.0
    """Classes less probable than this are not kept, but for the first."""
    mass: float = NO_MASS_CUT
    """Only the fewest classes that hold this probability together are kept; 1 keeps all."""
    gain: float = 0.0
    """Only classes are kept that lower the divergence by so many nat each, as do all before them; 0 keeps all."""
    values: Values = "q8"
    """``q8``, ``q4``, ``q2`` (steps of 1/8, 1/4, 1/2 nat) or ``f16``."""

    def records(self, logits_NC: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """``index``, ``logp``, ``tail`` of views in the dtypes of a store, selected and encoded as ``dump`` does.

        Args:
            logits_NC: float32 [N, C].
        """
        parts = [self._encoded(logits_NC[rows]) for rows in _blocks(*logits_NC.shape)]
        return {name: np.concatenate(arrays) for name, *arrays in zip(("index", "logp", "tail"), *parts, strict=True)}

    def _encoded(self, logits_NC: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        selected = select_topk(torch.from_numpy(logits_NC), self.topk, self.floor, self.mass, self.gain).numpy()
        del selected["logz_B"]
        return encode_records(**selected, topk=self.topk, values=self.values, num_classes=logits_NC.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """The whole distributions of views: what records are compared with."""

    logits_NC: NDArray[np.float32]
    """The logits."""
    logz_N: F64
    """Their log-sum-exp."""
    plogp_N: F64
    """Minus the entropy of each view, in nat."""

    @classmethod
    def of(cls, logits_NC: NDArray[np.floating[Any]]) -> Self:
        """The distributions of finite logits [N, C], which are kept as float32."""
        dense = cls(
            logits_NC=np.ascontiguousarray(logits_NC, np.float32),
            logz_N=np.empty(len(logits_NC)),
            plogp_N=np.empty(len(logits_NC)),
        )
        for rows in _blocks(*dense.logits_NC.shape):
            logits = dense.logits_NC[rows].astype(np.float64)
            top_N = logits.max(axis=1)
            dense.logz_N[rows] = top_N + np.log(np.exp(logits - top_N[:, None]).sum(axis=1))
            logp_NC = logits - dense.logz_N[rows, None]
            dense.plogp_N[rows] = (np.exp(logp_NC) * logp_NC).sum(axis=1)
        return dense

    def __getitem__(self, rows: slice | NDArray[Any]) -> Dense:
        """Some of the views."""
        return Dense(logits_NC=self.logits_NC[rows], logz_N=self.logz_N[rows], plogp_N=self.plogp_N[rows])

    def __len__(self) -> int:
        return len(self.logits_NC)

    @property
    def num_classes(self) -> int:
        """C."""
        return int(self.logits_NC.shape[1])

    def prob(self, index_NK: NDArray[Any]) -> F64:
        """float64 [N, K]: probabilities of each view's classes in ``index_NK``; 0 where that is padding."""
        kept_NK = index_NK < self.num_classes
        logit_NK = np.take_along_axis(self.logits_NC, np.where(kept_NK, index_NK, 0).astype(np.int64), axis=1)
        return np.where(kept_NK, np.exp(logit_NK - self.logz_N[:, None]), 0.0)

    def kl(self, index_NK: NDArray[Any], prob_NK: NDArray[Any], tail_N: NDArray[Any]) -> F64:
        """KL(dense || decoded) of each view in nat, float64 [N], the tail spread evenly over classes not kept.

        Both sums over the classes that were not kept are known without visiting them: one is what is missing of the
        entropy, in the other all have the same probability. A reader's masses below the least float32 count as that.

        Args:
            index_NK: kept classes, padded at the end with anything that is no class.
            prob_NK: their probabilities, as a reader gets them.
            tail_N: the probability outside them, likewise.
        """
        kept_NK = index_NK < self.num_classes
        rest_N = self.num_classes - kept_NK.sum(axis=1)
        dense_NK = self.prob(index_NK)
        total_N = prob_NK.sum(axis=1, dtype=np.float64) + tail_N
        missing_N = np.where(rest_N > 0, np.maximum(1.0 - dense_NK.sum(axis=1), 0.0), 0.0)
        each_N = np.maximum(tail_N / np.maximum(rest_N, 1) / total_N, _LEAST_MASS)
        logq_NK = np.log(np.maximum(np.where(kept_NK, prob_NK, 1.0) / total_N[:, None], _LEAST_MASS))
        return np.asarray(self.plogp_N - (dense_NK * logq_NK).sum(axis=1) - missing_N * np.log(each_N))

    def kl_of(self, cut: Cut) -> F64:
        """The same for the records that a store of this cut will hold, without writing one."""
        records = cut.records(self.logits_NC)
        return self.kl(*decode_records(records["index"], records["logp"], records["tail"], values=cut.values))


def largest_floor(dense: Dense, cut: Cut, target_kl: float) -> float | None:
    """The largest floor, of two significant digits, at which the records' mean divergence stays within a target.

    Args:
        dense: the whole distributions of a sample of views.
        cut: everything but the floor.
        target_kl: mean KL(dense || decoded) in nat.

    Returns:
        the floor; 0 where only records without one are good enough; None where not even these are.
    """
    found = _last_good(dense, [replace(cut, floor=floor) for floor in (0.0, *FLOORS)], target_kl)
    return None if found is None else found.floor


def smallest_mass(dense: Dense, cut: Cut, target_kl: float) -> float | None:
    """The smallest mass to keep, likewise; what it leaves out has two significant digits. 1 cuts nothing.

    Args:
        dense: the whole distributions of a sample of views.
        cut: everything but the mass.
        target_kl: mean KL(dense || decoded) in nat.
    """
    cuts = [replace(cut, mass=round(1.0 - left_out, 9)) for left_out in (0.0, *FLOORS)]
    found = _last_good(dense, cuts, target_kl)
    return None if found is None else found.mass


def largest_gain(dense: Dense, cut: Cut, target_kl: float) -> float | None:
    """The largest gain that a class must have, likewise; 0 where only records without this cut are good enough.

    Of all ways to cut it keeps the fewest classes at the same divergence.

    Args:
        dense: the whole distributions of a sample of views.
        cut: everything but the gain.
        target_kl: mean KL(dense || decoded) in nat.
    """
    found = _last_good(dense, [replace(cut, gain=gain) for gain in (0.0, *GAINS)], target_kl)
    return None if found is None else found.gain


def _last_good(dense: Dense, cuts: Sequence[Cut], target_kl: float) -> Cut | None:
    """The last of ever deeper cuts that is within the target: what is kept apart no more is spread with the rest.

    Making records takes long, and what their rounding costs hardly depends on the cut: where to look is found without.
    """

    def good(place: int) -> bool:
        return float(dense.kl_of(cuts[place]).mean()) <= target_kl

    records = cuts[0].records(dense.logits_NC)
    decoded = decode_records(records["index"], records["logp"], records["tail"], values=cuts[0].values)
    prob_NK = -np.sort(-dense.prob(records["index"]), axis=1)
    whole = float(dense.kl(*decoded).mean())
    if whole > target_kl:
        return None
    unrounded = target_kl - whole + _exact_kl(dense, prob_NK, cuts[0])
    near = bisect_left(range(1, len(cuts)), True, key=lambda place: _exact_kl(dense, prob_NK, cuts[place]) > unrounded)
    return cuts[_last_place(good, near, len(cuts))]


def _last_place(good: Callable[[int], bool], near: int, count: int) -> int:
    """Up to which place ``good`` holds, from 0 on: looked for in ever longer steps from a place that may be near.

    Args:
        good: holds at 0, and nowhere after a place at which it does not.
        near: where to begin.
        count: of places.
    """
    place, beyond, step = near, near + 1, 1
    if good(near):
        while beyond < count and good(beyond):
            place, beyond, step = beyond, min(count, beyond + 2 * step), 2 * step
    else:
        place, beyond = max(0, near - 1), near
        while place > 0 and not good(place):
            place, beyond, step = max(0, place - 2 * step), place, 2 * step
    while beyond - place > 1:
        middle = (place + beyond) // 2
        place, beyond = (middle, beyond) if good(middle) else (place, middle)
    return place


def _exact_kl(dense: Dense, prob_NK: F64, cut: Cut) -> float:
    """Mean divergence of records of a cut that are not rounded.

    Args:
        dense: the whole distributions.
        prob_NK: their largest probabilities, descending.
        cut: what is kept of these.
    """
    held_NK = np.cumsum(prob_NK, axis=1)
    kept_NK = (prob_NK >= cut.floor) & (held_NK - prob_NK < cut.mass)
    if cut.gain > 0:
        behind_NK = torch.from_numpy(np.maximum(1.0 - held_NK, 0.0))
        saved_NK = divergence_saved(torch.from_numpy(prob_NK), behind_NK, dense.num_classes).numpy()
        kept_NK[:, 1:] &= np.logical_and.accumulate(saved_NK[:, 1:] >= cut.gain, axis=1)
    kept_NK[:, 0] = True
    part_NK = np.where(kept_NK, prob_NK, 0.0)
    kept_plogp_N = (part_NK * np.log(np.maximum(part_NK, _LEAST_MASS))).sum(axis=1)
    tail_N = np.maximum(1.0 - part_NK.sum(axis=1), _LEAST_MASS)
    rest_N = np.maximum(dense.num_classes - kept_NK.sum(axis=1), 1)
    return float((dense.plogp_N - kept_plogp_N - tail_N * np.log(tail_N / rest_N)).mean())


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_VALUES // max(columns, 1))
    return (slice(start, start + step) for start in range(0, rows, step))
