"""Losses whose targets are logits or labels, and the mean over the rows of a batch.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def logit_mse(logits_BC: Tensor, teacher_BC: Tensor, *, weight_B: Tensor | None = None) -> Tensor:
    """Mean squared difference between the student's and the teacher's logits, over classes and rows.

    Args:
        logits_BC: the student's logits, any floating type; the only argument with a gradient.
        teacher_BC: the teacher's logits; rows of weight 0 may hold anything, NaN included.
        weight_B: weights of the rows; None means 1 each.

    Returns:
        Scalar of type float32 (float64 for float64 logits); 0 when all weights are 0.

    Source:
        The distillation loss of the Swin framework (see ``joint``); it needs no temperature.
    """
    dtype = precision(logits_BC)
    difference_BC = logits_BC.to(dtype) - teacher_BC.to(dtype)
    if weight_B is not None:
        # Before the square: its gradient at NaN is NaN, whatever it is multiplied by.
        difference_BC = torch.where(weight_B[:, None] > 0, difference_BC, 0.0)
    return weighted_mean(difference_BC.square().mean(1), weight_B)


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
    dtype = precision(logits_BC)
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


def precision(logits_BC: Tensor) -> torch.dtype:
    """The type that a loss of these logits is computed in: float64 for float64, else float32."""
    return torch.float64 if logits_BC.dtype == torch.float64 else torch.float32
