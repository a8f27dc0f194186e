"""The images that a run is validated on, and how well a model does on them."""

from __future__ import annotations

from torch import nn

from logitstore.accuracy import Accuracy
from logitstore.cards import Preprocessing
from logitstore.device import Compute
from logitstore.distributed import Ranks
from logitstore.errors import DataError
from logitstore.images import ImageSet, open_images
from logitstore.loader import Workers
from logitstore.loader.matching import numbered
from logitstore.scoring import score


def open_validation(
    data: str, val_data: str | None, *, class_names: tuple[str, ...] | None, num_classes: int, notes: list[str]
) -> ImageSet | None:
    """What a run is validated on, with labels that number the model's classes.

    Args:
        data: what is trained on, as ``open_images`` takes it; its ``val`` split is taken where it has one.
        val_data: what the user named instead; must have labels.
        class_names: of the model's classes, where known.
        num_classes: C of the model.
        notes: gets a sentence where there is nothing.

    Returns:
        The images; None where there is nothing with labels.

    Raises:
        DataError: ``val_data`` cannot be read, or has no labels.
        InputError: a class of the images is not the model's.
        MismatchError: they have more classes than the model.
    """
    if val_data is not None:
        images = open_images(val_data, split="val", whole=True)
        images.require_labels("to validate on")
    else:
        try:
            images = open_images(data, split="val")
        except DataError as exc:
            notes.append(f"There is nothing to validate on: {exc}")
            return None
        if images.labels is None:
            notes.append(f"There is nothing to validate on: the val split of {images.name} has no labels.")
            return None
    return numbered(images, class_names, num_classes)


def shared_accuracy(
    model: nn.Module,
    images: ImageSet,
    ranks: Ranks,
    *,
    size: int,
    preprocessing: Preprocessing,
    compute: Compute,
    threads: Workers,
) -> Accuracy:
    """``scoring.score``, each process a run of the images; the same in all of them.

    Raises:
        DataError: a label is no class of the model.
        NonFiniteError: a logit is NaN.
    """
    ranks.buffers_from_main(model)
    part = range(*(len(images) * rank // ranks.world for rank in (ranks.rank, ranks.rank + 1)))
    with ranks.agreed():
        found = score(
            model, images, size=size, preprocessing=preprocessing, compute=compute, threads=threads, samples=part
        )
        counts = (found.images, found.top1, found.top5)
    total, top1, top5 = (int(column.sum()) for column in ranks.gathered(counts).T)
    return Accuracy(images=total, top1=top1, top5=top5, split=images.split)
