"""What a run is fed with: batches for every step, and all that is known about them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from logitstore.images import ImageSet
from logitstore.loader import Batch, Exclusion, ViewLoader
from logitstore.store import Ensemble, Store


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Batches for every step of a run."""

    images: ImageSet
    """What is trained on."""
    validation: ImageSet | None
    """What is validated on; None where there is nothing with labels."""
    store: Store | Ensemble | None
    """Where views and targets come from; None trains on labels."""
    loader: ViewLoader
    """Makes the batches."""
    num_classes: int
    """C of the model."""
    class_names: tuple[str, ...] | None
    """Names of the classes, where known."""
    epochs: tuple[int, ...] = ()
    """The stored epochs that the run visits, in turn; empty without a store."""
    notes: tuple[str, ...] = ()
    """What the user should know, a sentence each."""
    exclusion: Exclusion | None = None
    """Samples of weight 0; None excludes none."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass; an incomplete last batch is left out."""
        return self.loader.num_batches()

    def batches(self, epoch: int, step: int = 0, count: int | None = None) -> Generator[Batch, None, None]:
        """The batches of one pass, from one of its steps on. Close it to stop the threads that work ahead.

        Args:
            epoch: number of the pass, from 0; beyond what the store holds, its epochs come again.
            step: steps of this pass that are done already.
            count: batches wanted; None is all that are left of the pass.
        """
        stored = self.epochs[epoch % len(self.epochs)] if self.epochs else epoch
        size, last = self.loader.batch_size, self.steps_per_epoch
        stop = last if count is None else min(last, step + count)
        return self.loader.batches(stored, step * size, stop * size, visit=epoch)

    def probe(self, step: int) -> None:
        """Make the batch of a step once and drop it: what makes it unusable is found before anything is written."""
        epoch, done = divmod(step, self.steps_per_epoch)
        with closing(self.batches(epoch, done, 1)) as batches:
            next(batches)

    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON types."""
        stored = {} if self.store is None else {**self.store.identity(), "stored_epochs": self.epochs}
        excluded = {} if self.exclusion is None else {"exclude": self.exclusion.describe()}
        return {
            "targets": "hard labels" if self.store is None else "store",
            **stored,
            "data": {"name": self.images.name, "count": len(self.images), "fingerprint": self.images.fingerprint},
            "num_classes": self.num_classes,
            "size": self.loader.size,
            "view": self.loader.spec.to_dict(),
            **excluded,
        }
