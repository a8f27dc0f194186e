"""What the loader hands out, and which positions go into it.

Shape suffixes: B batch, C colours (3) or, of logits, classes, H height, W width; a batch's witnesses have J.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.pcg import VisitOrder

if TYPE_CHECKING:
    from logitstore.store import Records

WITNESS_STEP = 64
"""One position in so many has a witness."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Consecutive views of one epoch, and their records where there is a store."""

    epoch: int
    """Number of the epoch, from 0."""
    start: int
    """Where the batch begins in the epoch."""
    stop: int
    """Where it ends (exclusive). Without shuffled shards, ``start`` and ``stop`` are positions."""
    position_B: NDArray[np.int64]
    """Positions in the epoch's visit order."""
    sample_B: NDArray[np.int64]
    """Samples, in the data set's own numbering."""
    seed_B: NDArray[np.uint32]
    """Seeds of the views."""
    views_BCHW: NDArray[np.uint8]
    """The views, mixed where the spec mixes."""
    own_B: NDArray[np.float64]
    """Weight of the sample itself in its mixed view; 1 where nothing was mixed in."""
    label_B: NDArray[np.int64]
    """The sample's class; -1 where the data set has no labels."""
    partner_label_B: NDArray[np.int64]
    """Class of the sample that was mixed in; the sample's own where nothing was."""
    weight_B: NDArray[np.float32]
    """Weight in the loss: 1, or 0 where an image did not decode, here or when the store was made, or was excluded."""
    records: Records | None
    """What the store keeps of these views."""
    logits_BC: NDArray[np.float32] | None = None
    """The teacher's logits, where they were asked for; NaN where ``weight_B`` is 0 because the store has no record."""
    bad: tuple[str, ...]
    """Names of images that did not decode."""
    witness_position_J: NDArray[np.int64]
    """Positions in the batch that have a witness."""
    witness_J: NDArray[np.uint32]
    """CRC-32C of their views, as rendered here; empty where views are not of the spec's size."""

    def __len__(self) -> int:
        return len(self.sample_B)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """The way through one epoch: its positions in order, or by whole shards in another order.

    Pairs of neighbours and blocks of witnesses stay together, because shards hold a multiple of 64 positions; the
    short shard at the end of an epoch stays there.
    """

    num_samples: int
    """N."""
    shard_size: int = 0
    """Positions in a shard, where shards are shuffled; 0 leaves positions in order."""
    shuffle_seed: int = 0
    """With the epoch's number, what the order of shards depends on."""
    epoch: int = 0
    """Number of the pass, which may be beyond what the store holds."""

    def runs(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The runs of consecutive positions that [start, stop) of this way consists of."""
        whole = self.num_samples // self.shard_size if self.shard_size else 0
        if whole < 2:
            if start < stop:
                yield start, stop
            return
        order = VisitOrder(num_samples=whole, run_seed=self.shuffle_seed, epoch=self.epoch)
        while start < stop:
            slot = start // self.shard_size
            end = min(stop, (slot + 1) * self.shard_size) if slot < whole else stop
            shift = (int(order.samples(slot)) - slot) * self.shard_size if slot < whole else 0
            yield start + shift, end + shift
            start = end


def rank_slice(start: int, stop: int, rank: int, world: int) -> tuple[int, int]:
    """Which part of the global batch [start, stop) a rank takes: whole pairs, contiguous, as even as can be.

    ``start`` is even where ``world`` is above 1.
    """
    if world == 1:
        return start, stop
    pairs = (stop - start + 1) // 2
    low, high = (min(stop, start + 2 * (pairs * part // world)) for part in (rank, rank + 1))
    return low, high


def global_batches(num_samples: int, start: int, stop: int, size: int, *, drop_last: bool) -> Iterator[tuple[int, int]]:
    """Starts and stops of the global batches in [start, stop).

    Raises:
        InputError: the range is not in the epoch, or ``drop_last`` would leave no batch of the whole epoch.
    """
    if not 0 <= start <= stop <= num_samples:
        raise InputError(f"Positions must lie in an epoch of {num_samples} samples, got {start} to {stop}.")
    if drop_last and num_samples < size:
        raise InputError(
            f"The data set has {num_samples} samples, fewer than one batch of {size}: use a smaller --batch-size."
        )
    for low in range(start, stop, size):
        high = min(low + size, stop)
        if high - low == size or not drop_last:
            yield low, high
