"""Losses on sparse soft targets and on hard labels, computed in float32 without a dense target.

Shapes: B batch, K kept classes, C classes. Losses are means over the rows' weights; rows of weight 0 (skipped samples)
count for nothing. How losses are combined is the trainer's business, and what the targets mean the store's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _SparseSoftTarget(torch.autograd.Function):
    """Cross-entropy of each row against a sparse target, with the gradient in closed form.

    The target is q_c = r + (p_c - r) [c kept], with r = tail / (C - k): the tail spread evenly over the classes that
    were not kept (TinyViT, eq. 2). Then, with l = log_softmax(z) and m = sum_c q_c (1 but for rounding),

        L = -sum_kept (p_k - r) l_k - r sum_c l_c        dL/dz = m softmax(z) - r - scatter(p_k - r)

    Only l is kept for the backward pass, as in an ordinary cross-entropy; autograd on the same formula would keep l and
    build two more [B, C] tensors.
    """

    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, index_BK: Tensor, excess_BK: Tensor, residual_B: Tensor) -> Tensor:
        log_softmax_BC = torch.log_softmax(logits_BC, dim=1, dtype=excess_BK.dtype)
        loss_B = -(log_softmax_BC.gather(1, index_BK) * excess_BK).sum(1) - residual_B * log_softmax_BC.sum(1)
        ctx.save_for_backward(log_softmax_BC, index_BK, excess_BK, residual_B)
        ctx.logits_dtype = logits_BC.dtype
        return loss_B

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_B: Tensor) -> tuple[Tensor, None, None, None]:
        log_softmax_BC, index_BK, excess_BK, residual_B = ctx.saved_tensors
        mass_B = excess_BK.sum(1) + residual_B * log_softmax_BC.shape[1]
        grad_BC = log_softmax_BC.exp()
        torch.addcmul(-(grad_B * residual_B)[:, None], grad_BC, (grad_B * mass_B)[:, None], out=grad_BC)
        grad_BC.scatter_add_(1, index_BK, -grad_B[:, None] * excess_BK)
        return grad_BC.to(ctx.logits_dtype), None, None, None


def soft_target_cross_entropy(
    logits_BC: Tensor, index_BK: Tensor, prob_BK: Tensor, tail_B: Tensor, *, weight_B: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of the student's logits against sparse soft targets at temperature 1.

    The tail's mass is spread evenly over the C - k classes that a record did not keep; with k = C there is none. No
    [B, C] target is made. float64 logits are computed in float64, all others in float32, also under autocast.

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
    dtype = torch.float64 if logits_BC.dtype == torch.float64 else torch.float32
    num_classes = logits_BC.shape[1]
    index_BK = index_BK.long()
    kept_BK = index_BK < num_classes
    unkept_B = num_classes - kept_BK.sum(1)
    residual_B = torch.where(unkept_B > 0, tail_B.to(dtype) / unkept_B.clamp(min=1), 0.0)
    excess_BK = torch.where(kept_BK, prob_BK.to(dtype) - residual_B[:, None], 0.0)
    loss_B = _SparseSoftTarget.apply(logits_BC, torch.where(kept_BK, index_BK, 0), excess_BK, residual_B)
    return weighted_mean(loss_B, weight_B)


def hard_label_cross_entropy(
    logits_BC: Tensor,
    label_B: Tensor,
    *,
    partner_label_B: Tensor | None = None,
    own_B: Tensor | None = None,
    smoothing: float = 0.0,
    weight_B: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy against labels, mixed as the views were mixed, with label smoothing.

    A row's target is own * onehot(label) + (1 - own) * onehot(partner's label), of which ``smoothing`` is spread evenly
    over all C classes.

    Args:
        logits_BC: the student's logits, any floating type.
        label_B: labels of the samples themselves, integers in [0, C).
        partner_label_B: labels of the mixing partners; read only where ``own_B`` is below 1. None: nothing is mixed.
        own_B: weight of the sample itself in its view, 1 where it is not mixed (CutMix: by the real area).
        smoothing: label smoothing, in [0, 1).
        weight_B: weights of the rows; None means 1 each.

    Returns:
        Scalar of type float32 (float64 for float64 logits); 0 when all weights are 0.
    """
    dtype = torch.float64 if logits_BC.dtype == torch.float64 else torch.float32
    log_softmax_BC = torch.log_softmax(logits_BC, dim=1, dtype=dtype)
    loss_B = functional.nll_loss(log_softmax_BC, label_B, reduction="none")
    if partner_label_B is not None and own_B is not None:
        own_B = own_B.to(dtype)
        partner_B = torch.where(own_B < 1, partner_label_B, label_B)
        partner_loss_B = functional.nll_loss(log_softmax_BC, partner_B, reduction="none")
        loss_B = own_B * loss_B + (1 - own_B) * partner_loss_B
    if smoothing:
        loss_B = (1 - smoothing) * loss_B - smoothing * log_softmax_BC.mean(1)
    return weighted_mean(loss_B, weight_B)


def weighted_mean(value_B: Tensor, weight_B: Tensor | None) -> Tensor:
    """Mean of values over their weights; 0 (with a zero gradient) when all weights are 0."""
    if weight_B is None:
        return value_B.mean()
    weight_B = weight_B.to(value_B.dtype)
    total = weight_B.sum()
    # A row of weight 0 must not reach the sum at all: 0 * inf would be NaN.
    weighted_B = torch.where(weight_B > 0, value_B * weight_B, 0.0)
    return weighted_B.sum() / torch.where(total > 0, total, 1.0)
