"""The losses of a training run for loops elsewhere. Shapes: B batch, C classes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, distributed

from logitstore.errors import InputError
from logitstore.learning.criterion import make_criterion
from logitstore.replay.columns import as_targets
from logitstore.train import TrainConfig


class TrainLoss:
    """The loss of a run, of a student's logits and a batch of ``TrainBatches``.

    By default that is the cross-entropy against the teacher's records (TinyViT, eq. 2); whatever else a ``TrainConfig``
    can ask for is computed as ``train`` would: ``kl``, ``mse``, label losses and how they are joined.

    Where ``torch.distributed`` is initialised, every process gets its part of the whole batch's loss times the number
    of processes, so that the mean of their gradients, which DistributedDataParallel and all that is built on it take,
    is the gradient of the whole batch, however samples of weight 0 are spread. So all must call it at each step.

    Args:
        config: what to learn.

    Raises:
        InputError: the configuration asks for a teacher in memory.
    """

    def __init__(self, config: TrainConfig) -> None:
        if config.online is not None:
            raise InputError(
                "TrainLoss sees logits alone, and teacher_online compares attention and hidden states: leave it out, "
                "or train with logitstore train."
            )
        self._criterion = make_criterion(config.effective_recipe())

    def __call__(self, logits_BC: Tensor, batch: dict[str, Tensor], *, progress: float = 0.0) -> Tensor:
        """A scalar with a gradient, which can be asked for once.

        Args:
            logits_BC: what the student says of ``batch["views"]``; left as they are.
            batch: of ``TrainBatches``, on the device of the logits.
            progress: 0 at the first step of the run, 1 at the last: read where ``alpha`` changes on the way.
        """
        # Of a view nobody knows that a linear layer made it, so the loss does not put its gradient in its place.
        parts = self._criterion.parts(logits_BC.view_as(logits_BC), as_targets(batch))
        world = _world()
        if world > 1:
            weight = batch["weight"].sum()
            share = weight / torch.clamp(_added(weight), min=torch.finfo(weight.dtype).tiny)
            parts = parts.each(partial(torch.mul, other=share))
        whole = parts.each(lambda part: _added(part.detach())) if self._criterion.needs_losses else parts
        loss = self._criterion.coefficients(whole, progress).join(parts)
        return loss * world if world > 1 else loss


def _world() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _added(value: Tensor) -> Tensor:
    """The sum over all processes."""
    if _world() > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value
