"""Batches of a training run as dicts of tensors. Shapes: B batch, K kept classes, C classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Self

import torch
from torch import Tensor, distributed
from torch.utils.data import IterableDataset, get_worker_info

from logitstore.device import resolve_device
from logitstore.errors import InputError
from logitstore.images import ImageSet
from logitstore.launch import Launch
from logitstore.learning.criterion import Targets
from logitstore.loader import Batch, prefetched
from logitstore.replay.columns import as_columns
from logitstore.train import TrainConfig
from logitstore.train.feed import open_feed


class TrainBatches(IterableDataset[dict[str, Tensor]]):
    """What ``train`` would learn from, for a loop of your own. A context manager.

    Iterating gives one pass: the very views that the teacher saw (checked against the store's witnesses), in its order,
    with its records. The next iteration is the next pass, unless ``set_epoch`` says another; passes beyond what the
    store holds go through it again. A batch is a dict of

    ============== =============== =======================================================================
    key            tensor          meaning
    ============== =============== =======================================================================
    views          uint8 [B,3,H,W] the views: normalise them on the device
    weight         float32 [B]     weight in the loss; 0 for samples that were skipped or excluded
    index          int64 [B, K]    kept classes, most probable first; what is not below C is padding
    prob           float32 [B, K]  their probabilities
    tail           float32 [B]     probability of all other classes together
    logits         float32 [B, C]  instead of these three where the loss is ``mse``: the teacher's logits
    labels         int64 [B]       the samples' classes, -1 where there are none
    partner_labels int64 [B]       those of what was mixed in
    own            float64 [B]     weight of the sample itself in its mixed view
    ============== =============== =======================================================================

    Without a store (``hard_labels_only``) there are neither records nor logits, and views are fresh. Batches are whole
    already, so a ``DataLoader`` around this takes ``batch_size=None`` and no workers: threads of this object's own
    render ahead. On a GPU they are copied there ahead, too.

    Args:
        config: what decides the batches: data, store and how it is read, batch size, seed, epochs, device. What
            concerns the student and the optimiser is not read.
        rank: which slice of each batch this process takes; None asks ``torch.distributed`` where it is initialised.
        world: processes that share a batch, of ``batch_size`` images in all; None likewise.

    Raises:
        InputError: processes were started together, but do not know each other yet; and what ``open_feed`` raises.
    """

    def __init__(self, config: TrainConfig, *, rank: int | None = None, world: int | None = None) -> None:
        rank, world = (rank, world) if rank is not None and world is not None else _place(rank, world)
        self.device = resolve_device(config.device)
        """Where the tensors are."""
        self.epochs = config.effective_recipe().epochs
        """Passes that the run is to make."""
        self._feed = open_feed(config, config.effective_recipe(), rank=rank, world=world)
        self._epoch = self._step = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Batches in a whole pass; the last one is left out where it is short."""
        return self._feed.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The batches of the next pass.

        Raises:
            WitnessError: a view is not the one that the teacher saw.
            InputError: a worker of a ``DataLoader`` asks.
        """
        if get_worker_info() is not None:
            raise InputError("Batches are made by threads of their own: give the DataLoader num_workers=0.")
        epoch, step = self._epoch, self._step
        self._epoch, self._step = epoch + 1, 0
        with closing(prefetched(self._feed.batches(epoch, step), self._columns, self.device)) as batches:
            yield from batches

    def set_epoch(self, epoch: int, step: int = 0) -> None:
        """Say which pass the next iteration makes.

        Args:
            epoch: its number, from 0.
            step: how many of its batches are done already.
        """
        self._epoch, self._step = epoch, step

    @property
    def num_classes(self) -> int:
        """C of the student."""
        return self._feed.num_classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where known."""
        return self._feed.class_names

    @property
    def size(self) -> int:
        """Height and width of the views in pixels."""
        return self._feed.loader.size

    @property
    def validation(self) -> ImageSet | None:
        """What ``train`` would validate on, its labels numbered as here; None where there is nothing with labels."""
        return self._feed.validation

    @property
    def checks_witnesses(self) -> bool:
        """Whether views are compared with what the store says of them: not at another size, nor without a store."""
        return self._feed.loader.checks_witnesses

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a sentence each."""
        return self._feed.notes

    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON types: store, data set and view."""
        return self._feed.identity()

    def close(self) -> None:
        """End the threads; they come again if the batches are used again."""
        self._feed.loader.close()

    def _columns(self, batch: Batch) -> dict[str, Tensor]:
        views = torch.from_numpy(batch.views_BCHW).to(self.device, non_blocking=True)
        return {"views": views, **as_columns(Targets.of(batch, self.device))}


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """This process's number and how many there are."""
    if (rank is None) != (world is None):
        raise InputError("Give both rank and world, or neither.")
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if (launch := Launch.from_environment()).world > 1:
        raise InputError(
            f"{launch.world} processes were started together, and this one does not know the others yet: initialise "
            "torch.distributed first, or give rank and world."
        )
    return 0, 1
