"""Accuracy of a model on labelled images: how often the label comes first, and among the first five.

Training and ``eval`` measure with this one function, on the loader's centre views. Shape
suffixes: B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from logitstore.cards import Accuracy, Preprocessing
from logitstore.device import autocast, normalise
from logitstore.errors import DataError, NonFiniteError
from logitstore.images import ImageSet
from logitstore.loader import eval_batches


def score(
    model: Callable[[Tensor], Tensor],
    images: ImageSet,
    *,
    size: int,
    preprocessing: Preprocessing,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 64,
    workers: int = 1,
    advance: Callable[[int], object] | None = None,
) -> Accuracy:
    """Measure a model on all samples of a labelled data set.

    A module is put into eval mode for it and back into the mode it was in.

    Args:
        model: from normalised images [B, 3, size, size] to logits [B, C].
        images: the data set, with labels that number the model's classes.
        size: height and width of the centre views, in pixels.
        preprocessing: what the model wants to be fed.
        device: where the model runs.
        dtype: autocast type; float32 for none.
        batch_size: images at a time; the last batch is smaller.
        workers: threads that decode and resize.
        advance: called with the number of images measured since the last call.

    Raises:
        DataError: the data set has no labels, or a label that is no class of the model.
        NonFiniteError: a logit is NaN.
    """
    images.require_labels("to measure accuracy")
    mean, std = preprocessing.mean, preprocessing.std
    top1 = top5 = 0
    was_training = isinstance(model, torch.nn.Module) and model.training
    if isinstance(model, torch.nn.Module):
        # Also in eval mode already: it drops what layers cached of older weights (timm's attention biases).
        model.eval()
    with torch.inference_mode():
        for batch in eval_batches(
            images, size=size, crop_pct=preprocessing.crop_pct, batch_size=batch_size, workers=workers
        ):
            with autocast(device, dtype):
                logits_BC = model(normalise(torch.from_numpy(batch.views_BCHW), mean, std, device)).float()
            rank_B = _ranks(logits_BC, torch.from_numpy(batch.label_B).to(device), images)
            top1 += int((rank_B < 1).sum())
            top5 += int((rank_B < 5).sum())
            if advance is not None:
                advance(len(batch))
    if was_training:
        assert isinstance(model, torch.nn.Module)
        model.train()
    return Accuracy(images=len(images), top1=top1, top5=top5, split=images.split)


def _ranks(logits_BC: Tensor, label_B: Tensor, images: ImageSet) -> Tensor:
    """Place of each label among the logits, from 0; among equal logits the lower class comes first."""
    num_classes = logits_BC.shape[1]
    if bool((label_B >= num_classes).any()) or bool((label_B < 0).any()):
        raise DataError(
            f"{images.name} ({images.split}) has a label outside the model's {num_classes} classes: "
            "evaluate on the data set whose classes the model was trained on."
        )
    if bool(logits_BC.isnan().any()):
        raise NonFiniteError("The model gave a NaN: its weights are unusable, or float16 overflows (--dtype float32).")
    own_B1 = logits_BC.gather(1, label_B[:, None])
    lower_BC = torch.arange(num_classes, device=logits_BC.device)[None, :] < label_B[:, None]
    return ((logits_BC > own_B1) | ((logits_BC == own_B1) & lower_BC)).sum(1)
