"""The cuts that a plan tries, and what records of each are like. Shape suffixes: N views, K kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.convert.config import CodecName
from logitstore.cuts import Cut, Dense, largest_floor, largest_gain, smallest_mass
from logitstore.plan.config import PlanConfig
from logitstore.plan.weigh import Weight, weigh
from logitstore.sampling import Sample
from logitstore.store import Manifest, decode_records
from logitstore.store.manifest import NO_MASS_CUT
from logitstore.store.records import kept_counts

_FIRST = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """Records of one cut: how large, and how good."""

    codec: CodecName
    """``standard`` or ``packed``."""
    cut: Cut
    """What is kept."""
    weight: Weight
    """What it takes in a store."""
    mean_kept: float
    """Classes kept of a view."""
    kept_mass: float
    """The probability that they hold, in the mean."""
    kl: float
    """Mean KL(dense || decoded) in nat, the tail spread evenly."""
    kl_error: float | None
    """Its standard error, by images; None for a single one."""
    top1: float
    """Share of views whose largest probability is that of the dense one's class. Rounding may make a tie; among equals
    the first class counts, on both sides. The first rank of a record is the teacher's first class in any case."""
    top5: float
    """Share of the dense distribution's five most probable classes that are kept."""

    def to_dict(self, epochs: int) -> dict[str, Any]:
        """As JSON takes it.

        Args:
            epochs: of the store, over which metadata are shared.
        """
        size = {
            "bytes_per_record": self.weight.bytes_per_record(epochs),
            "record_bytes": self.weight.per_record[-1],
            "gigabytes": self.weight.total(epochs) / 1e9,
        }
        found = {name: getattr(self, name) for name in _MEASURED}
        return {"codec": self.codec, **asdict(self.cut), **size, **found}


_MEASURED = ("mean_kept", "kept_mass", "kl", "kl_error", "top1", "top5")


def cuts_to_try(config: PlanConfig, dense: Dense) -> Iterator[Cut]:
    """Every K with every form: at each floor, mass and gain, and cut by each of these as far as the target allows."""
    topks = sorted({min(topk, dense.num_classes) for topk in config.topk})
    for values, topk in product(dict.fromkeys(config.values), topks):
        whole = Cut(topk=topk, values=values)
        cuts = {
            *(replace(whole, floor=floor) for floor in config.floor),
            *(replace(whole, mass=mass) for mass in config.mass),
            *(replace(whole, gain=gain) for gain in config.gain),
        }
        floor = largest_floor(dense, whole, config.target_kl)
        if floor is not None:  # then the target is within reach
            cuts.add(replace(whole, floor=floor))
            cuts.add(replace(whole, mass=smallest_mass(dense, whole, config.target_kl) or NO_MASS_CUT))
            cuts.add(replace(whole, gain=largest_gain(dense, whole, config.target_kl) or 0.0))
        yield from sorted(cuts, key=lambda cut: (cut.gain, -cut.mass, cut.floor))


class Scales:
    """Measures records of any cut on one sample.

    Args:
        sample: the views.
        codecs: to weigh records in.
    """

    def __init__(self, sample: Sample, codecs: Sequence[CodecName]) -> None:
        self.dense = sample.dense()
        self._sample, self._codecs = sample, tuple(dict.fromkeys(codecs))
        # Of float16 records the ranks are in the exact order.
        first = Cut(topk=min(_FIRST, self.dense.num_classes), values="f16")
        self._first_NF = first.records(self.dense.logits_NC)["index"]

    def measure(self, cut: Cut, manifest: Manifest) -> list[Row]:
        """Make records of all views, weigh them, decode them, compare.

        Args:
            cut: what is kept.
            manifest: of the standard store that is planned.

        Returns:
            a row for each codec.
        """
        records = cut.records(self.dense.logits_NC)
        index_NK, prob_NK, tail_N = decode_records(
            records["index"], records["logp"], records["tail"], values=cut.values
        )
        kl_N = self.dense.kl(index_NK, prob_NK, tail_N)
        row = partial(
            Row,
            cut=cut,
            mean_kept=float(kept_counts(index_NK).mean()),
            kept_mass=float(self.dense.prob(index_NK).sum(axis=1).mean()),
            kl=float(kl_N.mean()),
            kl_error=self._sample.standard_error(kl_N),
            top1=float((_first_class(index_NK, prob_NK) == self._first_NF[:, 0]).mean()),
            top5=float((self._first_NF[:, :, None] == index_NK[:, None, :]).any(axis=2).mean()),
        )
        views = self._sample.views
        return [row(codec=codec, weight=weigh(manifest, records, views, codec)) for codec in self._codecs]


def front(rows: Sequence[Row], epochs: int) -> list[Row]:
    """The rows that no other of their codec beats in both bytes and divergence, by codec and bytes.

    Args:
        rows: of any codecs.
        epochs: of the store, over which metadata are shared.
    """
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.codec, row.weight.bytes_per_record(epochs), row.kl)):
        if not best or row.codec != best[-1].codec or row.kl < best[-1].kl:
            best.append(row)
    return best


def smallest(rows: Sequence[Row], codecs: Sequence[str], target_kl: float, epochs: int) -> Row | None:
    """The smallest records of some codecs that are good enough; None where none are.

    Args:
        rows: what was tried.
        codecs: which of them count.
        target_kl: mean divergence that is good enough, in nat.
        epochs: of the store.
    """
    good = [row for row in rows if row.codec in codecs and row.kl <= target_kl]
    return min(good, key=lambda row: (row.weight.bytes_per_record(epochs), row.kl), default=None)


def _first_class(index_NK: NDArray[Any], prob_NK: NDArray[np.float32]) -> NDArray[Any]:
    """The most probable class of decoded records, the first of equals."""
    largest_NK = prob_NK == prob_NK.max(axis=1, keepdims=True)
    return np.asarray(np.where(largest_NK, index_NK, np.iinfo(index_NK.dtype).max).min(axis=1))
