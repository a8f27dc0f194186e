"""Cross-entropy against sparse targets with its gradient made in the same pass over the logits.

A loss that is a mean over rows is multiplied by one number in the backward pass, which is nearly always 1. So the
gradient is made where the logits are at hand, and multiplied only where that number is not 1. Between the two passes
it is all there is of size [B, C], and it may even lie where the logits were.

    L = mass lse(z) - sum_kept (p_k - r) z_k - r sum_c z_c        dL/dz_c = mass softmax(z)_c - q_c

Not for float64, whose gradient may be asked for many times, and not for float16, whose gradients are too small to be
written down before the loss is scaled: these take the plain form (``sparse``).

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from logitstore.losses.sparse import SparseTarget

_BLOCK = 1 << 19
"""Logits worked on at a time on a CPU: two such blocks of float32 stay in its caches."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """What each row of logits is compared with, and how it counts."""

    index_BK: Tensor
    """Kept classes as the store has them; entries >= C are padding."""
    prob_BK: Tensor
    """Their probabilities; what stands at padding is ignored."""
    tail_B: Tensor
    """Mass outside the kept classes."""
    entropy_B: Tensor | None
    """Subtracted from the cross-entropy, which is then at least 0."""
    scale_B: Tensor
    """Share of the row in the mean, float32; a row of 0 is not read at all."""
    temperature: float
    """T: logits are divided by it, the loss is multiplied by its square."""


def takes(logits_BC: Tensor) -> bool:
    """Whether there is a one-pass form for logits of this type on this device."""
    return logits_BC.dtype in (torch.float32, torch.bfloat16) and logits_BC.device.type == "cpu"


def one_pass_loss(
    logits_BC: Tensor,
    index_BK: Tensor,
    prob_BK: Tensor,
    tail_B: Tensor,
    *,
    entropy_B: Tensor | None = None,
    temperature: float = 1.0,
    weight_B: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Mean over the rows' weights of T^2 (cross-entropy of logits / T - entropy); scalar, float32.

    Args:
        logits_BC: what ``takes`` takes.
        index_BK: kept classes; entries >= C are padding.
        prob_BK: their probabilities at the temperature.
        tail_B: mass outside the kept classes, at the temperature.
        entropy_B: the target's entropy, for a divergence; None for a cross-entropy.
        temperature: T.
        weight_B: weights of the rows; None means 1 each.
        overwrite: the gradient may take the place of the logits.
    """
    rows = Rows(
        index_BK=index_BK,
        prob_BK=prob_BK,
        tail_B=tail_B,
        entropy_B=entropy_B,
        scale_B=_shares(logits_BC, weight_B),
        temperature=temperature,
    )
    if not (torch.is_grad_enabled() and logits_BC.requires_grad):
        return _loss_and_gradient(logits_BC, rows, None)
    loss: Tensor = _OnePass.apply(logits_BC, rows, overwrite)
    return loss


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, rows: Rows, overwrite: bool) -> Tensor:
        if overwrite:
            # Autograd then refuses to use the logits for anything else, rather than use what has become of them.
            increment_version(logits_BC)
        ctx.gradient_BC = logits_BC.detach() if overwrite else torch.empty_like(logits_BC)
        return _loss_and_gradient(logits_BC.detach(), rows, ctx.gradient_BC)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        gradient_BC, ctx.gradient_BC = ctx.gradient_BC, None
        if gradient_BC is None:
            raise RuntimeError("The gradient of this loss was taken before; compute the loss again to take it again.")
        factor = grad.item()
        return gradient_BC if factor == 1 else gradient_BC.mul_(factor), None, None


def _shares(logits_BC: Tensor, weight_B: Tensor | None) -> Tensor:
    """Each row's weight over that of all; zeros where all weights are 0."""
    if weight_B is None:
        return torch.full((len(logits_BC),), 1 / max(1, len(logits_BC)), device=logits_BC.device)
    weight_B = weight_B.float()
    total = weight_B.sum()
    return torch.where(weight_B > 0, weight_B / torch.where(total > 0, total, 1.0), 0.0)


def _loss_and_gradient(logits_BC: Tensor, rows: Rows, gradient_BC: Tensor | None) -> Tensor:
    """The loss, block by block of rows that stay in the caches; the gradient where there is a place for it.

    ``gradient_BC`` may be ``logits_BC``: a block is read before it is written.
    """
    batch, num_classes = logits_BC.shape
    target = SparseTarget.of(logits_BC, rows.index_BK, rows.prob_BK, rows.tail_B)
    excess_BK, mass_B = target.excess_BK, target.mass_B
    counts = bool((rows.scale_B > 0).all())
    loss = torch.zeros((), dtype=torch.float32)
    size = max(1, _BLOCK // num_classes)
    scratch_BC = torch.empty(min(size, batch), num_classes)
    for part in (slice(start, start + size) for start in range(0, batch, size)):
        scale_B, index_BK, residual_B = rows.scale_B[part], target.index_BK[part], target.residual_B[part]
        z_BC = logits_BC[part].float()
        if rows.temperature != 1:
            z_BC = z_BC / rows.temperature
        softmax_BC = torch.softmax(z_BC, 1, out=scratch_BC[: len(z_BC)])
        # lse(z) - max(z), from the softmax at the maximum: no second exponential.
        largest_B, log_sum_B = z_BC.amax(1), -softmax_BC.amax(1).log()
        loss_B = mass_B[part] * (largest_B + log_sum_B)
        loss_B -= (z_BC.gather(1, index_BK) * excess_BK[part]).sum(1) + residual_B * z_BC.sum(1)
        if rows.entropy_B is not None:
            # Rounding alone can make a divergence negative. Its gradient stays what it is.
            loss_B = (loss_B - rows.entropy_B[part]).clamp_(min=0)
        # A row of share 0 must not reach the sum at all: 0 * inf would be NaN.
        loss += torch.where(scale_B > 0, loss_B * scale_B, 0.0).sum() * rows.temperature**2
        if gradient_BC is not None:
            scale_B = scale_B * rows.temperature
            softmax_BC.mul_((mass_B[part] * scale_B)[:, None])
            softmax_BC.scatter_add_(1, index_BK, excess_BK[part] * -scale_B[:, None])
            torch.sub(softmax_BC, (residual_B * scale_B)[:, None], out=gradient_BC[part])
            if not counts:
                gradient_BC[part].masked_fill_((scale_B == 0)[:, None], 0.0)
    return loss
