"""The student in training: model, optimiser, schedule, average of the weights; one step of it.

A step is a function of the state, the batch and the run seed: what layers draw (drop path, dropout) comes from a
private generator seeded by run seed and step. So the state to save is weights, moments and the number of steps done.

Shape suffixes: B batch, K kept classes, C classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from logitstore.cards import Preprocessing
from logitstore.device import autocast, normalise, seeded
from logitstore.errors import NonFiniteError
from logitstore.loader import Batch
from logitstore.losses import hard_label_cross_entropy, soft_target_cross_entropy
from logitstore.optim import create_optimizer, create_schedule, peak_rate
from students.recipes import Recipe
from students.transfer import frozen_modules


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the rows of a batch are trained towards, on the student's device."""

    weight_B: Tensor
    """Weights of the rows."""
    label_B: Tensor
    """Classes; -1 where there are no labels."""
    partner_label_B: Tensor
    """Classes of the mixing partners."""
    own_B: Tensor
    """Weight of the sample itself in its view."""
    index_BK: Tensor | None = None
    """Kept classes; None without a store, as are the next two."""
    prob_BK: Tensor | None = None
    """Their probabilities."""
    tail_B: Tensor | None = None
    """Probability outside the kept classes."""

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Targets:
        """The targets of a batch."""

        def move(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        targets = {name: move(getattr(batch, name)) for name in ("weight_B", "label_B", "partner_label_B", "own_B")}
        if batch.records is not None:
            targets["index_BK"] = move(batch.records.index.astype(np.int64))
            targets["prob_BK"] = move(batch.records.prob)
            targets["tail_B"] = move(batch.records.tail)
        return cls(**targets)

    def rows(self, rows: slice) -> Targets:
        """A run of rows."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return Targets(**{name: value[rows] for name, value in present.items() if value is not None})


Criterion = Callable[[Tensor, Targets], Tensor]
"""From logits [B, C] and targets to the mean loss over the rows' weights."""


def soft_target_loss(logits_BC: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy against the records of a store."""
    assert targets.index_BK is not None and targets.prob_BK is not None and targets.tail_B is not None
    return soft_target_cross_entropy(
        logits_BC, targets.index_BK, targets.prob_BK, targets.tail_B, weight_B=targets.weight_B
    )


def hard_label_loss(smoothing: float) -> Criterion:
    """Cross-entropy against labels, mixed as the views are."""

    def loss(logits_BC: Tensor, targets: Targets) -> Tensor:
        return hard_label_cross_entropy(
            logits_BC,
            targets.label_B,
            partner_label_B=targets.partner_label_B,
            own_B=targets.own_B,
            smoothing=smoothing,
            weight_B=targets.weight_B,
        )

    return loss


class Learner:
    """A student and all that changes while it learns.

    Args:
        model: the student with its initial weights.
        criterion: its loss.
        recipe: how it is trained.
        preprocessing: how views are normalised.
        steps_per_epoch: optimiser steps in one pass, for the schedule.
        seed: run seed, for what layers draw.
        device: where to train.
        dtype: autocast type; float16 scales the loss.
        accumulate: pieces that a batch is cut into.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        recipe: Recipe,
        *,
        preprocessing: Preprocessing,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        accumulate: int = 1,
    ) -> None:
        self.model = model.to(device)
        if device.type == "cuda":  # as ``normalise`` lays out the images there
            self.model.to(memory_format=torch.channels_last)
        self.preprocessing, self.device, self.dtype = preprocessing, device, dtype
        self.step = 0
        self._criterion, self._recipe, self._seed, self._accumulate = criterion, recipe, seed, accumulate
        self._frozen = frozen_modules(self.model)
        self._optimizer = create_optimizer(self.model, recipe, global_batch=recipe.batch_size)
        self._schedule = create_schedule(
            self._optimizer, recipe, global_batch=recipe.batch_size, steps_per_epoch=steps_per_epoch
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._ema = None
        if recipe.ema_decay is not None:
            self._ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
        self._last_loss: Tensor | None = None

    @property
    def student(self) -> nn.Module:
        """The model to validate and to save: the average of the weights where the recipe keeps one."""
        average: nn.Module | None = None if self._ema is None else self._ema.module
        return self.model if average is None else average

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return peak_rate(self._optimizer)

    def train_step(self, batch: Batch) -> Tensor:
        """One optimiser step on a batch.

        Returns:
            The mean loss of the batch before the step, on the device, detached. It is checked one step later, so that
            a GPU need not be waited for; ``require_finite`` checks the last one.

        Raises:
            NonFiniteError: the loss of the step before is NaN or infinite.
        """
        self._train_mode()
        targets = Targets.of(batch, self.device)
        total = targets.weight_B.sum().clamp(min=1e-12)
        loss = torch.zeros((), device=self.device)
        self._optimizer.zero_grad(set_to_none=True)
        for piece, rows in enumerate(_pieces(len(batch), self._accumulate)):
            views_BCHW = torch.from_numpy(batch.views_BCHW[rows])
            images_BCHW = normalise(views_BCHW, self.preprocessing.mean, self.preprocessing.std, self.device)
            part = targets.rows(rows)
            with seeded(self.device, self._seed, self.step, piece), autocast(self.device, self.dtype):
                piece_loss = self._criterion(self.model(images_BCHW), part) * (part.weight_B.sum() / total)
            self._scaler.scale(piece_loss).backward()  # type: ignore[no-untyped-call]
            loss += piece_loss.detach()
        self._update()
        self.require_finite()
        self._last_loss = loss
        return loss

    def _train_mode(self) -> None:
        self.model.train()
        for module in self._frozen:
            module.eval()
        if self._recipe.bn_eval:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _update(self) -> None:
        self._scaler.unscale_(self._optimizer)
        if self._recipe.clip_grad is not None:
            dispatch_clip_grad(self.model.parameters(), self._recipe.clip_grad)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        self._schedule.step_update(self.step)
        if self._ema is not None:
            self._ema.update(self.model, step=self.step)

    def require_finite(self) -> None:
        """Refuse to go on from a loss that is NaN or infinite.

        Raises:
            NonFiniteError: the last loss that ``train_step`` returned is one.
        """
        if self._last_loss is not None and not bool(torch.isfinite(self._last_loss)):
            raise NonFiniteError(
                f"The loss is {float(self._last_loss)} at step {self.step}: lower --base-lr, lengthen --warmup-epochs, "
                "or train in --dtype float32. Checkpoints are from before."
            )

    def require_finite_weights(self) -> None:
        """Refuse to save weights that are NaN or infinite: a step may spoil them although its loss was finite.

        Raises:
            NonFiniteError: a weight of the model or of the average is one.
        """
        for module in {self.model, self.student}:
            tensors = (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
                raise NonFiniteError(
                    f"Weights of the student are NaN or infinite at step {self.step}: lower --base-lr, lengthen "
                    "--warmup-epochs, or train in --dtype float32. Checkpoints are from before."
                )

    def state_dict(self) -> dict[str, Any]:
        """All that a later call needs to go on exactly: tensors and plain values."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._schedule.step_update(self.step)


def _pieces(length: int, count: int) -> list[slice]:
    """``length`` rows cut into ``count`` runs, as even as can be; none is empty."""
    edges = [length * piece // count for piece in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(edges) if high > low]
