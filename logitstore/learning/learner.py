"""A model in training: model, optimiser, schedule, average of the weights; one step of it.

A step is a function of the state, the batch and the run seed: what layers draw (drop path, dropout) comes from a
private generator seeded by run seed and step. So the state to save is weights, moments and the number of steps done.

Shape suffixes: B batch, C classes or colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial, reduce
from itertools import pairwise
from math import isfinite
from operator import add
from typing import Any

import torch
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from logitstore.cards import Preprocessing
from logitstore.device import Arriving, autocast, normalise, seeded
from logitstore.distributed import Ranks
from logitstore.errors import NonFiniteError
from logitstore.learning.beside import Beside
from logitstore.learning.criterion import Coefficients, Criterion, Parts, Targets
from logitstore.learning.step import Placed, StepLoss
from logitstore.loader import Batch
from logitstore.optim import create_optimizer, create_schedule, peak_rate
from students.recipes import Recipe
from students.transfer import frozen_modules


class Learner:
    """A model, student or teacher, and all that changes while it learns.

    Args:
        model: with its initial weights.
        criterion: its losses.
        recipe: how it is trained.
        preprocessing: how views are normalised.
        steps_per_epoch: optimiser steps in one pass, for the schedules of learning rate and alpha.
        seed: run seed, for what layers draw.
        device: where to train.
        dtype: autocast type; float16 scales the loss.
        accumulate: pieces that a batch is cut into.
        trained: the modules that work as in training, where all others are to stay in eval mode; None is the whole
            model but for ``frozen_modules``.
        rate_option: what the command calls the peak learning rate, for messages.
        beside: a model beside this one, for losses on what is inside of both, which are added to the others; None is
            none.
        ranks: the processes that train the model together. BatchNorm sees the images of all of them on GPUs; on CPUs,
            where torch has no such layer, each sees its own, and the statistics that are kept are the first one's.
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
        trained: Sequence[nn.Module] | None = None,
        rate_option: str = "--base-lr",
        beside: Beside | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        self.model = self._ranks.synchronised(model.to(device), device)
        if device.type == "cuda":  # as ``normalise`` lays out the images there
            self.model.to(memory_format=torch.channels_last)
        self.preprocessing, self.device, self.dtype = preprocessing, device, dtype
        self.step = 0
        self._criterion, self._recipe, self._seed, self._accumulate = criterion, recipe, seed, accumulate
        self._trained, self._frozen = trained, frozen_modules(self.model)
        self._rate_option, self._beside = rate_option, beside
        self._optimizer = create_optimizer(self.model, recipe, global_batch=recipe.batch_size)
        self._schedule = create_schedule(
            self._optimizer, recipe, global_batch=recipe.batch_size, steps_per_epoch=steps_per_epoch
        )
        self._last_step = max(1, recipe.epochs * steps_per_epoch - 1)
        self._scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
        self._ema = None
        if recipe.ema_decay is not None:
            self._ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
        self._last_loss: Arriving | None = None
        self._replica: nn.Module | None = None

    @property
    def result(self) -> nn.Module:
        """The model to validate and to save: the average of the weights where the recipe keeps one."""
        average: nn.Module | None = None if self._ema is None else self._ema.module
        return self.model if average is None else average

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the work is shared, a sentence each."""
        if self._ranks.world == 1:
            return ()
        notes = [f"{self._ranks.world} processes share each batch of {self._recipe.batch_size}."]
        normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules())
        if normalised and self.device.type != "cuda":
            notes.append("BatchNorm sees the images of its own process alone, for on a CPU torch has no other.")
        return tuple(notes)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return peak_rate(self._optimizer)

    def place(self, batch: Batch) -> Placed:
        """What a step needs of a batch, put on the device without waiting for it."""
        views_BCHW = torch.from_numpy(batch.views_BCHW).to(self.device, non_blocking=True)
        return Placed(batch=batch, views_BCHW=views_BCHW, targets=Targets.of(batch, self.device))

    def train_step(self, batch: Batch | Placed, *, weight: float | None = None) -> StepLoss:
        """One optimiser step on a batch, or on this process's part of one.

        Where the joint loss is no sum over rows, a batch in pieces goes through the model twice: first for the two
        losses of the whole batch, then for the gradient, which is therefore that of the batch in one piece.

        Args:
            batch: from the loader, or placed already.
            weight: sum of the weights of the whole batch, over all processes; None where this is the whole batch.

        Returns:
            The mean losses of the whole batch before the step, the same in each process. Their sum is checked one step
            later, so that a GPU need not be waited for; ``require_finite`` checks the last one.

        Raises:
            NonFiniteError: the loss of the step before is NaN or infinite; in all processes at once.
        """
        placed = batch if isinstance(batch, Placed) else self.place(batch)
        total = max(placed.weight if weight is None else weight, 1e-12)
        self._train_mode()
        progress = self.step / self._last_step
        pieces = _pieces(len(placed), self._accumulate)
        replica = self._shared_model()
        known: Coefficients | None = None
        if len(pieces) > 1 and self._criterion.needs_losses:
            known = self._criterion.coefficients(self._survey(placed, pieces, total), progress)
        self._optimizer.zero_grad(set_to_none=True)
        done: list[Parts] = []
        for piece, rows in enumerate(pieces):
            with self._ranks.gradients(replica, last=piece == len(pieces) - 1):
                parts = self._losses(replica, self._beside, placed, piece, rows, total)
                done.append(parts.each(Tensor.detach))
                if known is None:
                    whole = done[-1].each(self._ranks.added) if self._criterion.needs_losses else done[-1]
                    known = self._criterion.coefficients(whole, progress)
                # Gradients are averaged over the processes, and a loss is a sum over them.
                self._scaler.scale(known.join(parts) * self._ranks.world).backward()  # type: ignore[no-untyped-call]
        assert known is not None
        whole = reduce(add, done).each(self._ranks.added)
        loss = StepLoss(parts=whole, coefficients=known, total=known.join(whole))
        self._update()
        self.require_finite()
        self._last_loss = Arriving({"loss": loss.total})
        return loss

    def _shared_model(self) -> nn.Module:
        """The model as the processes share it; made at the first step, after weights were loaded."""
        if self._replica is None:
            self._replica = self._ranks.replicated(self.model, self.device)
        return self._replica

    def _losses(
        self, model: nn.Module, beside: Beside | None, placed: Placed, piece: int, rows: slice, total: float
    ) -> Parts:
        """The losses of a piece times its share of the whole batch's weight, so that they add up to the batch's.

        Twice the same for the same step: what layers draw depends on seed, step and piece.
        """
        images_BCHW = normalise(placed.views_BCHW[rows], self.preprocessing.mean, self.preprocessing.std, self.device)
        number = self._ranks.rank * self._accumulate + piece
        watching = nullcontext() if beside is None else beside.watching()
        with seeded(self.device, self._seed, self.step, number), autocast(self.device, self.dtype), watching as inner:
            logits_BC = _mean_logits(model(images_BCHW))
        targets = placed.targets.rows(rows)
        parts = self._criterion.parts(logits_BC, targets)
        if inner is not None:
            attention, hidden = inner(placed.views_BCHW[rows], targets.weight_B)
            parts = replace(parts, attention=attention, hidden=hidden)
        share = float(placed.batch.weight_B[rows].sum()) / total
        return parts.each(partial(torch.mul, other=share))

    @torch.no_grad()
    def _survey(self, placed: Placed, pieces: list[slice], total: float) -> Parts:
        """The losses of the whole batch that are joined, without a gradient; leaves the model as it is.

        Layers work as in training, so BatchNorm sees the batch here, too: its statistics are put back.
        """
        before = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        losses = (self._losses(self.model, None, placed, piece, rows, total) for piece, rows in enumerate(pieces))
        whole = reduce(add, losses).each(self._ranks.added)
        for buffer, value in before:
            buffer.copy_(value)
        return whole

    def _train_mode(self) -> None:
        self.model.train(self._trained is None)
        for module in self._trained or ():
            module.train()
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
        last = 0.0 if self._last_loss is None else float(self._last_loss.wait()["loss"])
        if not isfinite(last):
            raise NonFiniteError(
                f"The loss is {last} at step {self.step}: lower {self._rate_option}, lengthen "
                "--warmup-epochs, or train in --dtype float32. Checkpoints are from before."
            )

    def require_finite_weights(self) -> None:
        """Refuse to save weights that are NaN or infinite: a step may spoil them although its loss was finite.

        Raises:
            NonFiniteError: a weight of the model or of the average is one.
        """
        for module in {self.model, self.result}:
            tensors = (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
                raise NonFiniteError(
                    f"Weights of the model are NaN or infinite at step {self.step}: lower {self._rate_option}, "
                    "lengthen --warmup-epochs, or train in --dtype float32. Checkpoints are from before."
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


def _mean_logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits of a model, [B, C]: the mean over the two classifiers that a distilled DeiT may train."""
    return torch.stack(output).mean(0) if isinstance(output, tuple) else output


def _pieces(length: int, count: int) -> list[slice]:
    """``length`` rows cut into ``count`` runs, as even as can be; none is empty."""
    edges = [length * piece // count for piece in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(edges) if high > low]
