"""A teacher that speaks again, on the views that a store replays: to a student in every step, or beside the records.

In a run whose targets it makes the store's records are not looked at, and all else is ``logitstore train``. The
teacher's whole distribution becomes a record of all classes in float32, so what differs from training on a dense store
is that store's rounding, and nothing else. Shape suffixes: B batch, C classes, K kept classes (all).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from logitstore.cuts import Dense
from logitstore.errors import InputError, MismatchError
from logitstore.images import ImageSet
from logitstore.learning.feed import Feed
from logitstore.loader import Batch, ViewLoader, as_dumped, stored_spec
from logitstore.store import Records, Store
from logitstore.teacher import Teacher, load_teacher, select_topk
from logitstore.train import TrainConfig
from logitstore.train.feed import open_feed
from students.recipes import Recipe

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class LiveFeed(Feed):
    """A feed whose records come from a teacher that sees each batch."""

    teacher: Teacher
    """Who speaks."""

    def batches(self, epoch: int, step: int = 0, count: int | None = None) -> Generator[Batch, None, None]:
        """As the store's, with what the teacher says now in place of what it said then."""
        with closing(super().batches(epoch, step, count)) as batches:
            for batch in batches:
                assert isinstance(self.store, Store)
                said = whole_records(batch, self.teacher, self.store.manifest.index_dtype)
                yield replace(batch, records=said)

    def identity(self) -> dict[str, Any]:
        """What decides the batches."""
        return {**super().identity(), "targets": "live teacher", "live_teacher": self.teacher.sha256}


def whole_records(batch: Batch, teacher: Teacher, index_dtype: np.dtype[Any]) -> Records:
    """The teacher's distribution over all classes for each view of a batch, unrounded; classes as a store has them."""
    said = select_topk(teacher.logits(batch.views_BCHW), teacher.num_classes).numpy()
    prob_BK = np.exp(said["logp_BK"].astype(np.float64))
    return Records(
        sample=batch.sample_B,
        seed=batch.seed_B,
        index=said["index_BK"].astype(index_dtype),
        prob=(prob_BK / prob_BK.sum(axis=1, keepdims=True)).astype(np.float32),
        tail=np.zeros(len(batch), np.float32),
        kept=said["kept_B"].astype(np.int32),
        weight=np.ones(len(batch), np.float32),
        logz=None,
    )


def heard(store: Store, teacher: Teacher, images: ImageSet, *, views: int, workers: int) -> dict[str, Any]:
    """How far a store's records are from what its teacher says of the same views now, before any rounding.

    Args:
        store: any store; its first epoch is replayed.
        teacher: the one that made it.
        images: what it was made of.
        views: how many, from the first position on.
        workers: threads that decode and render.

    Returns:
        ``views``, and ``kl``, the mean KL(teacher || decoded) in nat.
    """
    require_own_teacher(store, teacher)
    images = as_dumped(store, images)
    spec = stored_spec(store, flippable=images.flippable)
    found = []
    with ViewLoader(images, spec, store=store, batch_size=_BATCH, workers=workers) as loader:
        for batch in loader.batches(0, 0, min(views, len(images))):
            assert batch.records is not None
            said = Dense.of(teacher.logits(batch.views_BCHW).cpu().numpy())
            found.append(said.kl(batch.records.index, batch.records.prob, batch.records.tail))
    return {"views": sum(map(len, found)), "kl": float(np.concatenate(found).mean())}


def require_own_teacher(store: Store, teacher: Teacher) -> None:
    """Refuse another teacher than a store's own: MismatchError."""
    stored = store.manifest.teacher["sha256"]
    if teacher.sha256 != stored:
        raise MismatchError(
            f"The teacher of the store at {store.path}",
            stored=stored,
            present=teacher.sha256,
            remedy="Let the teacher speak that made the store.",
        )


def with_live_teacher(name: str, checkpoint: str) -> Callable[..., LiveFeed]:
    """What ``train`` opens instead of the store's own feed.

    Args:
        name: of the teacher.
        checkpoint: its weights: those that made the store.
    """

    def opener(config: TrainConfig, recipe: Recipe, *, rank: int = 0, world: int = 1) -> LiveFeed:
        feed = open_feed(config, recipe, rank=rank, world=world)
        if not isinstance(feed.store, Store):
            raise InputError("A live teacher speaks on the views of one store: give one --store.")
        teacher = load_teacher(
            name, checkpoint=checkpoint, size=feed.loader.size, device=config.device, dtype=config.dtype
        )
        require_own_teacher(feed.store, teacher)
        return LiveFeed(**vars(feed), teacher=teacher)

    return opener
