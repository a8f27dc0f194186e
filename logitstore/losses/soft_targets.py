"""Cross-entropy and divergence against the sparse soft targets of records, without a dense target.

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from logitstore.losses.plain import precision, weighted_mean


def soft_target_cross_entropy(
    logits_BC: Tensor, index_BK: Tensor, prob_BK: Tensor, tail_B: Tensor, *, weight_B: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the student's logits against sparse soft targets at temperature 1.

    The tail's mass is spread evenly over the C - k classes that a record did not keep; with k = C there is none. No
    [B, C] target is made.

    Args:
        logits_BC: the student's logits, any floating type; the only argument with a gradient.
        index_BK: kept classes, any integer type; entries >= C are padding (the store writes the type's maximum).
        prob_BK: their probabilities; what stands at padding is ignored.
        tail_B: probability mass outside the kept classes.
        weight_B: weights of the rows; None means 1 each.

    Returns:
        Scalar of type float32 (float64 for float64 logits); 0 when all weights are 0.

    Source:
        TinyViT (Wu et al., 2022), eq. 2.
    """
    target = _Sparse.of(logits_BC, index_BK, prob_BK, tail_B)
    log_softmax_BC = torch.log_softmax(logits_BC, dim=1, dtype=precision(logits_BC))
    loss_B = _SparseSoftTarget.apply(log_softmax_BC, target.index_BK, target.excess_BK, target.residual_B, None)
    return weighted_mean(loss_B, weight_B)


def tempered_kl(
    logits_BC: Tensor,
    index_BK: Tensor,
    prob_BK: Tensor,
    tail_B: Tensor,
    *,
    temperature: float,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Mean Kullback-Leibler divergence of the student from sparse soft targets at a temperature T, times T^2.

    The target is proportional to q^(1/T), where q is the target at temperature 1 with its tail spread evenly over the
    classes that a record did not keep: these are tempered as the kept ones are. No [B, C] target is made. At T = 1 the
    gradient is that of ``soft_target_cross_entropy``, and the value is less by the target's entropy: 0 for a student
    that equals its target.

    Args:
        logits_BC: the student's logits, any floating type; the only argument with a gradient.
        index_BK: kept classes, any integer type; entries >= C are padding.
        prob_BK: their probabilities at temperature 1; what stands at padding is ignored.
        tail_B: probability mass outside the kept classes, at temperature 1.
        temperature: T, above 0.
        weight_B: weights of the rows; None means 1 each.

    Returns:
        Scalar of type float32 (float64 for float64 logits), at least 0; 0 when all weights are 0.

    Source:
        Hinton et al., Distilling the knowledge in a neural network (2015), for the temperature and its square, which
        keeps gradients of one size whatever T is. TinyViT (Wu et al., 2022), eq. 2, for the spread tail.
    """
    target = _Sparse.of(logits_BC, index_BK, prob_BK, tail_B).tempered(temperature)
    scaled_BC = logits_BC.to(precision(logits_BC)) / temperature
    divergence_B = _SparseSoftTarget.apply(
        scaled_BC.log_softmax(1), target.index_BK, target.excess_BK, target.residual_B, target.entropy_B
    )
    return weighted_mean(divergence_B * temperature**2, weight_B)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sparse:
    """A batch of sparse targets: q_c = prob where a class was kept, else residual."""

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
    def of(cls, logits_BC: Tensor, index_BK: Tensor, prob_BK: Tensor, tail_B: Tensor) -> _Sparse:
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
    def entropy_B(self) -> Tensor:
        """Entropy of the targets in nat."""
        kept_B = torch.xlogy(self.prob_BK, self.prob_BK).sum(1)
        return -kept_B - self.unkept_B * torch.xlogy(self.residual_B, self.residual_B)

    def tempered(self, temperature: float) -> _Sparse:
        """The targets to the power of 1 / temperature, normalised; a target without any mass stays without."""
        log_prob_BK, log_residual_B = self.prob_BK.log() / temperature, self.residual_B.log() / temperature
        largest_B = torch.maximum(log_prob_BK.amax(1), log_residual_B)
        largest_B = torch.where(largest_B.isfinite(), largest_B, 0.0)
        prob_BK = (log_prob_BK - largest_B[:, None]).exp()
        residual_B = (log_residual_B - largest_B).exp()
        total_B = prob_BK.sum(1) + self.unkept_B * residual_B
        total_B = torch.where(total_B > 0, total_B, 1.0)
        return replace(self, prob_BK=prob_BK / total_B[:, None], residual_B=residual_B / total_B)


class _SparseSoftTarget(torch.autograd.Function):
    """Cross-entropy of log-probabilities l against a sparse target, each row less the entropy it is given.

    The target is q_c = r + (p_c - r) [c kept], with r = tail / (C - k): the tail spread evenly over the classes that
    were not kept (TinyViT, eq. 2). Then

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
