"""What a model says of the images of a data set: its logits, and where the right classes stand among them.

Training, ``eval`` and the class correlation see images through this one function, on the loader's centre views. Shape
suffixes: B batch, N images, C classes, L right classes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitstore.accuracy import Accuracy
from logitstore.cards import Preprocessing
from logitstore.device import Compute, autocast, normalise
from logitstore.errors import DataError, NonFiniteError
from logitstore.images import ImageSet
from logitstore.loader import EvalBatch, Workers, eval_batches, prefetched


def score(
    model: Callable[[Tensor], Tensor],
    images: ImageSet,
    *,
    size: int,
    preprocessing: Preprocessing,
    compute: Compute,
    advance: Callable[[int], object] | None = None,
    threads: Workers | None = None,
    samples: range | None = None,
) -> Accuracy:
    """Measure a model on samples of a labelled data set; the arguments are those of ``eval_logits``.

    Raises:
        DataError: the data set has no labels, or a label that is no class of the model.
        NonFiniteError: a logit is NaN.
    """
    label_N = images.require_labels("to measure accuracy")
    seen = top1 = top5 = 0
    with closing(
        eval_logits(
            model,
            images,
            size=size,
            preprocessing=preprocessing,
            compute=compute,
            advance=advance,
            threads=threads,
            samples=samples,
        )
    ) as found:
        for rows, logits_BC in found:
            if seen == 0:
                check_labels(images, logits_BC.shape[1])
            seen += len(logits_BC)
            rank_B = label_ranks(logits_BC, np.asarray(label_N[rows], np.int64)[:, None])
            top1, top5 = top1 + int((rank_B < 1).sum()), top5 + int((rank_B < 5).sum())
    return Accuracy(images=seen, top1=top1, top5=top5, split=images.split)


def eval_logits(
    model: Callable[[Tensor], Tensor],
    images: ImageSet,
    *,
    size: int,
    preprocessing: Preprocessing,
    compute: Compute,
    advance: Callable[[int], object] | None = None,
    threads: Workers | None = None,
    samples: range | None = None,
) -> Generator[tuple[slice, Tensor], None, None]:
    """The logits of all samples, or of a run of them, in order.

    A module is put into eval mode for it and back into the mode it was in.

    Args:
        model: from normalised images [B, 3, size, size] to logits [B, C].
        images: the data set; labels do not matter.
        size: height and width of the centre views, in pixels.
        preprocessing: what the model wants to be fed.
        compute: where and how the model runs; the last batch may be smaller than the others.
        advance: called with the number of images done since the last call.
        threads: lasting ones that decode and resize; None starts ``compute.workers`` for this call.
        samples: which ones, consecutive; None is all.

    Yields:
        Which samples, and their logits: float32 [B, C] on the device.

    Raises:
        NonFiniteError: a logit is NaN.
    """
    was_training = isinstance(model, torch.nn.Module) and model.training
    if isinstance(model, torch.nn.Module):
        # Also in eval mode already: it drops what layers cached of older weights (timm's attention biases).
        model.eval()

    def place(batch: EvalBatch) -> tuple[slice, Tensor]:
        with torch.inference_mode():
            views_BCHW = torch.from_numpy(batch.views_BCHW)
            images_BCHW = normalise(views_BCHW, preprocessing.mean, preprocessing.std, compute.device)
        return slice(batch.start, batch.start + len(batch)), images_BCHW

    samples = range(len(images)) if samples is None else samples
    batches = eval_batches(
        images,
        size=size,
        crop_pct=preprocessing.crop_pct,
        batch_size=compute.batch_size,
        workers=compute.workers if threads is None else threads,
        start=samples.start,
        stop=samples.stop,
        pinned=compute.device.type == "cuda",
    )
    placed = prefetched(batches, place, compute.device)
    try:
        for rows, images_BCHW in placed:
            # Entered anew for each batch: between two of them the caller's own code runs.
            with torch.inference_mode(), autocast(compute.device, compute.dtype):
                logits_BC = model(images_BCHW).float()
                if bool(logits_BC.isnan().any()):
                    raise NonFiniteError(
                        "The model gave a NaN: its weights are unusable, or float16 overflows (--dtype float32)."
                    )
            yield rows, logits_BC
            if advance is not None:
                advance(rows.stop - rows.start)
    finally:
        placed.close()
        if was_training:
            assert isinstance(model, torch.nn.Module)
            model.train()


def accuracy_of(rank_N: NDArray[np.int64], split: str) -> Accuracy:
    """How many images have a right class first, and among the first five, by ``label_ranks`` of all of them."""
    return Accuracy(images=len(rank_N), top1=int((rank_N < 1).sum()), top5=int((rank_N < 5).sum()), split=split)


def check_labels(images: ImageSet, num_classes: int) -> None:
    """Refuse labels that are no classes of a model.

    Raises:
        DataError: there is one; or there are no labels.
    """
    label_N = images.require_labels("to measure accuracy")
    if int(label_N.min()) < 0 or int(label_N.max()) >= num_classes:
        raise DataError(
            f"{images.name} ({images.split}) has a label outside the model's {num_classes} classes: "
            "evaluate on the data set whose classes the model was trained on."
        )


def label_ranks(logits_BC: Tensor, label_BL: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of an image's first right class among its logits, from 0; among equal logits the lower class comes first.

    Args:
        logits_BC: on any device.
        label_BL: the right classes of each image, -1 where it has fewer than L.

    Returns:
        int64 [B]; C where an image has no right class.
    """
    num_classes = logits_BC.shape[1]
    best_B = torch.full((len(logits_BC),), num_classes, dtype=torch.int64, device=logits_BC.device)
    class_1C = torch.arange(num_classes, device=logits_BC.device)[None, :]
    for label_B in torch.from_numpy(label_BL.T.copy()).to(logits_BC.device):
        own_B1 = logits_BC.gather(1, label_B[:, None].clamp(min=0))
        before_BC = (logits_BC > own_B1) | ((logits_BC == own_B1) & (class_1C < label_B[:, None]))
        best_B = torch.where(label_B < 0, best_B, torch.minimum(best_B, before_BC.sum(1)))
    return best_B.cpu().numpy()
