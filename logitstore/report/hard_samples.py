"""What a store's records say of each sample's label: counted shard by shard, in memory that grows with N alone.

A view says that the label is outside where it is not among the teacher's first classes; a class that the record did
not keep is never among them, for its probability was below the store's floor. A view counts for a sample if more than
half of it is the sample's own, and a skipped sample's empty record does not count.

Shape suffixes: N samples, B records of a shard, K ranks, M chosen samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from logitstore.loader.matching import recorded_spec
from logitstore.store import Records, Store
from logitstore.views.mix import own_shares

OWN_SHARE = 0.5
"""More than this of a mixed view must be the sample's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Sums over the views of each sample."""

    views_N: NDArray[np.int32]
    """Views that count."""
    outside_N: NDArray[np.int32]
    """Of these, views in which the label is outside the teacher's first classes."""
    label_prob_N: NDArray[np.float64]
    """Sum of the probabilities of the label; a label that was not kept has its even share of the tail."""

    @property
    def share_N(self) -> NDArray[np.float64]:
        """Share of the views in which the label is outside; 0 for a sample that no view counts for."""
        return self.outside_N / np.maximum(self.views_N, 1)

    @property
    def mean_label_prob_N(self) -> NDArray[np.float64]:
        """Mean probability of the label; 0 for a sample that no view counts for."""
        return np.asarray(self.label_prob_N / np.maximum(self.views_N, 1))


def tally(
    store: Store,
    label_N: NDArray[np.int64],
    *,
    epochs: Sequence[int],
    top: int,
    advance: Callable[[int], object] = lambda records: None,
) -> Tally:
    """Go through whole epochs of a store once.

    Args:
        store: the store.
        label_N: labels, numbered as the store's classes.
        epochs: complete epochs.
        top: how many of the teacher's first classes are looked at, at most K.
        advance: called with the number of records after each shard.
    """
    num_samples = store.num_samples
    views_N, outside_N = np.zeros(num_samples, np.int32), np.zeros(num_samples, np.int32)
    label_prob_N = np.zeros(num_samples)
    for records, counts_B in _shards(store, epochs):
        label_B = label_N[records.sample]
        is_label_BK = records.index == label_B[:, None]
        # No sample comes twice in a shard, so that plain indexing adds.
        views_N[records.sample] += counts_B
        outside_N[records.sample] += counts_B & ~is_label_BK[:, :top].any(1)
        prob_B = np.where(is_label_BK, records.prob, 0.0).sum(1) + ~is_label_BK.any(1) * _residual(store, records)
        label_prob_N[records.sample] += np.where(counts_B, prob_B, 0.0)
        advance(len(records))
    return Tally(views_N=views_N, outside_N=outside_N, label_prob_N=label_prob_N)


@dataclass(frozen=True, kw_only=True, eq=False)
class Opinions:
    """What the teacher says of a few samples, over their views."""

    prob_MC: NDArray[np.float64]
    """Mean probability of each class, the tail spread evenly."""
    first_MC: NDArray[np.float64]
    """Share of the views in which a class is the most probable."""


def opinions(store: Store, sample_M: NDArray[np.int64], *, epochs: Sequence[int]) -> Opinions:
    """Go through whole epochs of a store for a few samples; shards that hold none of them are not read.

    Args:
        store: the store.
        sample_M: samples, each once, each with a view that counts.
        epochs: complete epochs.
    """
    shape = (len(sample_M), store.num_classes)
    prob_MC, first_MC, views_M = np.zeros(shape), np.zeros(shape), np.zeros(len(sample_M))
    row_N = np.full(store.num_samples, -1, np.int64)
    row_N[sample_M] = np.arange(len(sample_M))
    for records, counts_B in _shards(store, epochs, sample_M):
        chosen = np.flatnonzero(counts_B & (row_N[records.sample] >= 0))
        row = row_N[records.sample[chosen]]
        views_M[row] += 1
        first_MC[row, records.index[chosen, 0]] += 1
        residual = _residual(store, records)[chosen]
        prob_MC[row] += residual[:, None]
        kept = np.arange(records.index.shape[1]) < records.kept[chosen, None]
        at, rank = np.nonzero(kept)
        prob_MC[row[at], records.index[chosen[at], rank]] += records.prob[chosen[at], rank] - residual[at]
    return Opinions(prob_MC=prob_MC / views_M[:, None], first_MC=first_MC / views_M[:, None])


def _shards(
    store: Store, epochs: Sequence[int], sample_M: NDArray[np.int64] | None = None
) -> Iterator[tuple[Records, NDArray[np.bool_]]]:
    """The records of each shard, and which of them count; only shards that hold one of some samples, if given."""
    spec = recorded_spec(store)
    for epoch in epochs:
        shards = np.arange(store.num_shards)
        if sample_M is not None:
            shards = np.unique(store.order(epoch).positions(sample_M) // store.manifest.shard_size)
        for shard in shards.tolist():
            records = store.read(epoch, *store.shard_range(shard))
            yield records, (records.weight > 0) & (own_shares(spec, records.seed) > OWN_SHARE)


def _residual(store: Store, records: Records) -> NDArray[np.float64]:
    """Probability of each class that a record did not keep, [B]."""
    return np.asarray(records.tail / np.maximum(store.num_classes - records.kept, 1.0))
