"""Sparse soft targets, and the cross-entropy of logits against them in its plainest form.

The target of a row is q_c = r + (p_c - r) [c kept], with r = tail / (C - k): the tail spread evenly over the classes
that were not kept (TinyViT, eq. 2). The plain form is what the one-pass forms are tested against, and it takes every
type and device.

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from logitstore.losses.plain import precision


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseTarget:
    """The targets of a batch: q_c = prob where a class was kept, else residual."""

    kept_BK: Tensor
    """Whether an entry is no padding."""
    index_BK: Tensor
    """Kept classes; 0 at padding."""
    prob_BK: Tensor
    """Their probabilities; 0 at padding."""
    unkept_B: Tensor
    """Classes that were not kept."""
    residual_B: Tensor
    """Probability of each of these; 0 where there are none."""

    @classmethod
    def of(cls, logits_BC: Tensor, index_BK: Tensor, prob_BK: Tensor, tail_B: Tensor) -> SparseTarget:
        """The target of records, in the precision that the logits' loss is computed in."""
        dtype = precision(logits_BC)
        num_classes = logits_BC.shape[1]
        index_BK = index_BK.long()
        kept_BK = index_BK < num_classes
        unkept_B = num_classes - kept_BK.sum(1)
        return cls(
            kept_BK=kept_BK,
            index_BK=torch.where(kept_BK, index_BK, 0),
            prob_BK=torch.where(kept_BK, prob_BK.to(dtype), 0.0),
            unkept_B=unkept_B,
            residual_B=torch.where(unkept_B > 0, tail_B.to(dtype) / unkept_B.clamp(min=1), 0.0),
        )

    @property
    def excess_BK(self) -> Tensor:
        """How far kept classes lie above the residual."""
        return torch.where(self.kept_BK, self.prob_BK - self.residual_B[:, None], 0.0)

    @property
    def tail_B(self) -> Tensor:
        """The mass of all classes that were not kept."""
        return self.unkept_B * self.residual_B

    @property
    def mass_B(self) -> Tensor:
        """All of the mass: 1 but for rounding, or 0 for a skipped sample."""
        return self.prob_BK.sum(1) + self.tail_B

    @property
    def entropy_B(self) -> Tensor:
        """Entropy of the targets in nat."""
        kept_B = torch.xlogy(self.prob_BK, self.prob_BK).sum(1)
        return -kept_B - self.unkept_B * torch.xlogy(self.residual_B, self.residual_B)

    def tempered(self, temperature: float) -> SparseTarget:
        """The targets to the power of 1 / temperature, normalised; a target without any mass stays without."""
        log_prob_BK, log_residual_B = self.prob_BK.log() / temperature, self.residual_B.log() / temperature
        largest_B = torch.maximum(log_prob_BK.amax(1), log_residual_B)
        largest_B = torch.where(largest_B.isfinite(), largest_B, 0.0)
        prob_BK = (log_prob_BK - largest_B[:, None]).exp()
        residual_B = (log_residual_B - largest_B).exp()
        total_B = prob_BK.sum(1) + self.unkept_B * residual_B
        total_B = torch.where(total_B > 0, total_B, 1.0)
        return replace(self, prob_BK=prob_BK / total_B[:, None], residual_B=residual_B / total_B)


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
    weight_B: Tensor
    """Weights in the mean, float32; a row of weight 0 is not read at all."""
    temperature: float
    """T: logits are divided by it, the loss is multiplied by its square."""


def plain_rows(logits_BC: Tensor, target: SparseTarget, *, entropy_B: Tensor | None = None) -> Tensor:
    """Cross-entropy of each row of logits, less the entropy it is given, differentiable by the logits; [B]."""
    log_softmax_BC = torch.log_softmax(logits_BC, dim=1, dtype=precision(logits_BC))
    rows: Tensor = _PlainRows.apply(log_softmax_BC, target.index_BK, target.excess_BK, target.residual_B, entropy_B)
    return rows


class _PlainRows(torch.autograd.Function):
    """Cross-entropy of log-probabilities l against a sparse target.

        L = -sum_kept (p_k - r) l_k - r sum_c l_c        dL/dl_c = -q_c

    so nothing of size [B, C] is kept for the backward pass beside the log-softmax, as in an ordinary cross-entropy.
    Autograd on the same formula would build two more.
    """

    @staticmethod
    def forward(
        ctx: Any,
        log_softmax_BC: Tensor,
        index_BK: Tensor,
        excess_BK: Tensor,
        residual_B: Tensor,
        entropy_B: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(index_BK, excess_BK, residual_B)
        ctx.num_classes = log_softmax_BC.shape[1]
        loss_B = -(log_softmax_BC.gather(1, index_BK) * excess_BK).sum(1) - residual_B * log_softmax_BC.sum(1)
        if entropy_B is None:
            return loss_B
        # Rounding alone can make a divergence negative. Clamped here, its gradient stays what it is.
        return (loss_B - entropy_B).clamp_(min=0)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor, None, None, None, None]:
        index_BK, excess_BK, residual_B = ctx.saved_tensors
        grad_BC = (-grad_B * residual_B)[:, None].repeat(1, ctx.num_classes)
        grad_BC.scatter_add_(1, index_BK, -grad_B[:, None] * excess_BK)
        return grad_BC, None, None, None, None
