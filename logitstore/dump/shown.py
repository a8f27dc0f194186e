"""What the teacher is shown: images, view spec, order and seeds; fresh ones, or those of another store.

With ``--views-from`` a second teacher sees what the first one saw, pixel for pixel: the seeds come from the other
store's shards, its witnesses are compared on the way, and what was skipped there stays skipped. Where its seeds are
those that its run seed gives, as in every store that ``dump`` made, the new store is the one that a dump with this run
seed would make, and does not depend on the other one. Where they are not, its manifest names the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from logitstore.dump.config import DIGITS_EPOCHS, DumpConfig
from logitstore.errors import IncompleteError, InputError, MismatchError
from logitstore.images import ImageSet, open_images
from logitstore.inference import open_views
from logitstore.loader import Batch, ViewLoader, as_dumped, stored_spec
from logitstore.loader.matching import check_images, check_store
from logitstore.pcg import view_seeds
from logitstore.store import WITNESS_EVERY, Store, open_store
from logitstore.views import ViewSpec, check_transform


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Views of one data set, epoch after epoch."""

    images: ImageSet
    """What the views are of."""
    spec: ViewSpec
    """What may happen to them."""
    run_seed: int
    """Decides their order, and their seeds where these do not come from ``source``."""
    num_epochs: int
    """E."""
    source: Store | None = None
    """The store whose views these are; None makes fresh ones."""

    def loader(self, *, batch_size: int, workers: int, skip_bad: bool, pinned: bool) -> ViewLoader:
        """Makes the views; see ``ViewLoader``. Of records of ``source`` it reads the first class only."""
        return ViewLoader(
            self.images,
            self.spec,
            run_seed=self.run_seed if self.source is None else None,
            store=self.source,
            topk=1,
            batch_size=batch_size,
            workers=workers,
            skip_bad=skip_bad,
            pinned=pinned,
        )

    @property
    def some_skipped(self) -> bool:
        """Whether some images were skipped in ``source``, so that these need not decode here, either."""
        store = self.source
        return store is not None and any(store.commit(*shard).skipped for shard in store.committed())

    def require_complete(self, epochs: range) -> None:
        """Refuse to begin where ``source`` lacks some of the views.

        Raises:
            IncompleteError: with the first epoch that has a gap.
        """
        if self.source is None:
            return
        committed, shards = self.source.committed(), self.source.num_shards
        for epoch in epochs:
            if missing := [shard for shard in range(shards) if (epoch, shard) not in committed]:
                raise IncompleteError(
                    f"Epoch {epoch} of the store at {self.source.path}, whose views are wanted, lacks {len(missing)} "
                    f"of {shards} shards, number {missing[0]} first: complete it"
                    + (f", or begin with what is there: --epochs {epoch}." if epoch > epochs.start else ".")
                )

    def require_elsewhere(self, path: Path) -> None:
        """Refuse to write where ``source`` lies.

        Raises:
            InputError: the two are one.
        """
        if self.source is not None and self.source.path.resolve() == path.resolve():
            raise InputError(
                f"{path} is the store of --views-from, and the new records need one of their own: name it with --store."
            )

    def remark(self, num_classes: int, class_names: tuple[str, ...] | None) -> str | None:
        """A sentence for the user where a teacher of these classes and that of ``source`` have no mean."""
        source = self.source
        if source is None:
            return None
        theirs = source.class_names
        alike = class_names is None or theirs is None or sorted(class_names) == sorted(theirs)
        if num_classes == source.num_classes and alike:
            return None
        what = f"has {num_classes} classes, and that of {source.path} {source.num_classes}"
        if num_classes == source.num_classes:
            what = f"has classes that are called otherwise than those of {source.path}"
        return f"The teacher {what}: students can be trained on either store, but not on both together."

    def recorded(self) -> str | None:
        """What a manifest says of ``source``: its store id where its seeds are its own, else nothing.

        The first views of each epoch that is there are looked at; ``check_seeds`` looks at all when they are made.
        """
        store = self.source
        if store is None:
            return None
        for epoch in sorted({epoch for epoch, shard in store.committed() if shard == 0}):
            records = store.read(epoch, 0, min(WITNESS_EVERY, store.num_samples), topk=1)
            if not np.array_equal(records.seed, view_seeds(self.run_seed, epoch, records.sample)):
                return store.records_id
        return None

    def check_seeds(self, batch: Batch, recorded: str | None) -> None:
        """Refuse seeds of which the manifest does not speak.

        Args:
            batch: views of one epoch.
            recorded: the manifest's ``views_from``.

        Raises:
            MismatchError: only some of the seeds in ``source`` are those that its run seed gives.
        """
        if self.source is None or recorded is not None:
            return
        derived_B = view_seeds(self.run_seed, batch.epoch, batch.sample_B)
        if (rows := np.flatnonzero(batch.seed_B != derived_B)).size:
            row = int(rows[0])
            raise MismatchError(
                f"The seed in the store at {self.source.path} at epoch {batch.epoch}, position "
                f"{int(batch.position_B[row])}, and the one that its run seed gives, as it does elsewhere in it,",
                stored=int(batch.seed_B[row]),
                present=int(derived_B[row]),
                remedy="Such a mixture cannot be described: give --views-from a store whose seeds are of one kind.",
            )


def open_shown(config: DumpConfig) -> Shown:
    """What a configuration says the teacher shall see.

    Raises:
        InputError: something the user named cannot be used.
        MismatchError: the store of ``views_from`` was made of other images, or with other settings than those named.
    """
    shown = _fresh(config) if config.views_from is None else _as_seen(config, config.views_from)
    check_transform(shown.spec, map(shown.images.pixels, range(len(shown.images))))
    return shown


def _fresh(config: DumpConfig) -> Shown:
    images, spec = open_views(config)
    return Shown(
        images=images,
        spec=spec,
        run_seed=config.run_seed,
        num_epochs=DIGITS_EPOCHS if config.epochs is None else config.epochs,
    )


def _as_seen(config: DumpConfig, path: str) -> Shown:
    source = open_store(path)
    images = open_images(config.data, subset=config.subset)
    if config.subset is None:
        images = as_dumped(source, images)
    check_images(source, images)
    num_epochs = source.num_epochs if config.epochs is None else config.epochs
    _require("--seed", "run seed", source, source.manifest.run_seed, config.seed)
    _require("--size", "size of the views", source, source.manifest.view.get("size"), config.size)
    if num_epochs > source.num_epochs:
        _require("--epochs", "number of epochs", source, source.num_epochs, num_epochs)
    config.check_start(num_epochs)
    spec = stored_spec(source, config.view, flippable=images.flippable)
    check_store(source, images, spec)
    return Shown(images=images, spec=spec, run_seed=source.manifest.run_seed, num_epochs=num_epochs, source=source)


def _require(option: str, what: str, source: Store, stored: object, given: object) -> None:
    """Refuse an option that asks for other views than those of ``source``; None asks for nothing."""
    if given is not None and given != stored:
        raise MismatchError(
            f"The {what} of the store at {source.path} and what {option} asks for",
            stored=stored,
            present=given,
            remedy=f"Leave out {option} to see the views of that store, or leave out --views-from.",
        )
