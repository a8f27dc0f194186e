"""The teacher in training: model, optimiser, schedule, average of the weights; one step of it.

What layers draw in a step (drop path, dropout) comes from a private generator seeded by run seed and step. Shape
suffixes: B batch, C classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from logitstore.cards import Preprocessing
from logitstore.device import autocast, normalise, seeded
from logitstore.errors import NonFiniteError
from logitstore.loader import Batch
from logitstore.losses import hard_label_cross_entropy
from logitstore.models import classifier_prefixes
from logitstore.optim import create_optimizer, create_schedule
from students.recipes import Recipe


class Learner:
    """A model and all that changes while it learns.

    Args:
        model: with its initial weights.
        recipe: how it is trained.
        preprocessing: how views are normalised.
        steps_per_epoch: optimiser steps in one pass, for the schedule.
        seed: run seed, for what layers draw.
        device: where to train.
        dtype: autocast type; float16 scales the loss.
        freeze_backbone: train the classifier alone.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        preprocessing: Preprocessing,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        freeze_backbone: bool,
    ) -> None:
        self._model = model.to(device)
        if device.type == "cuda":  # as ``normalise`` lays out the images there
            self._model.to(memory_format=torch.channels_last)
        self._trained = [self._model]
        if freeze_backbone:
            self._trained = _freeze_all_but_classifier(self._model)
        self._recipe, self._preprocessing, self._seed = recipe, preprocessing, seed
        self._device, self._dtype = device, dtype
        self._optimizer = create_optimizer(self._model, recipe, global_batch=recipe.batch_size)
        self._schedule = create_schedule(
            self._optimizer, recipe, global_batch=recipe.batch_size, steps_per_epoch=steps_per_epoch
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._average = ModelEmaV3(self._model, decay=recipe.ema_decay or 0.0, use_warmup=True)
        self.step = 0

    @property
    def average(self) -> nn.Module:
        """The average of the weights: what is measured and saved."""
        module = self._average.module
        assert isinstance(module, nn.Module)
        return module

    def epoch(self, batches: Iterable[Batch]) -> Iterable[tuple[int, Tensor]]:
        """One step per batch; gives the number of images and the mean loss, on the device, of each."""
        self._model.eval()
        for part in self._trained:
            part.train()
        for batch in batches:
            yield len(batch), self._train_step(batch)

    def _train_step(self, batch: Batch) -> Tensor:
        views_BCHW = torch.from_numpy(batch.views_BCHW)
        images_BCHW = normalise(views_BCHW, self._preprocessing.mean, self._preprocessing.std, self._device)
        label_B, partner_label_B, own_B, weight_B = (
            torch.from_numpy(array).to(self._device, non_blocking=True)
            for array in (batch.label_B, batch.partner_label_B, batch.own_B, batch.weight_B)
        )
        with seeded(self._device, self._seed, self.step), autocast(self._device, self._dtype):
            logits_BC = self._model(images_BCHW)
            if isinstance(logits_BC, tuple):  # distilled DeiTs train two classifiers
                logits_BC = torch.stack(logits_BC).mean(0)
            loss = hard_label_cross_entropy(
                logits_BC,
                label_B,
                partner_label_B=partner_label_B,
                own_B=own_B,
                smoothing=self._recipe.label_smoothing,
                weight_B=weight_B,
            )
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.unscale_(self._optimizer)
        if self._recipe.clip_grad is not None:
            dispatch_clip_grad(self._model.parameters(), self._recipe.clip_grad)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        self._schedule.step_update(self.step)
        self._average.update(self._model, step=self.step)
        return loss.detach()


def check_loss(loss: float, step: int) -> float:
    """The same loss.

    Raises:
        NonFiniteError: it is NaN or infinite.
    """
    if loss - loss != 0:
        raise NonFiniteError(
            f"The loss is {loss} in the epoch that ends at step {step}: lower --lr, lengthen --warmup-epochs, or train "
            "in --dtype float32. Nothing was saved."
        )
    return loss


def _freeze_all_but_classifier(model: nn.Module) -> list[nn.Module]:
    """The classifier's modules, the only ones that still have gradients."""
    prefixes = classifier_prefixes(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    return [model.get_submodule(prefix.removesuffix(".")) for prefix in prefixes]
