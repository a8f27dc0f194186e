"""One loss out of two: a distillation loss L_d and a loss on hard labels L_s, both scalars.

Every joint loss is c_d L_d + c_s L_s, with coefficients that depend on the step or on the two losses. They carry no
gradient, and need not: see ``harmonic_coefficients``. So a batch that is cut into pieces, or shared among processes,
needs only the two numbers of the whole batch to have its exact gradient.

Source: Amria et al., Distillation-based model compression framework for Swin transformer (2024), named "the Swin
framework" below.
"""

from __future__ import annotations

import torch
from torch import Tensor


def linear_alpha(alpha: tuple[float, float], progress: float) -> float:
    """Weight of the loss on hard labels at a point of the run.

    Args:
        alpha: the weights at the first and at the last step; equal ones are a fixed weight.
        progress: 0 at the first step, 1 at the last.

    Source:
        The Swin framework, section IV-C and its table VI.
    """
    first, last = alpha
    return first + (last - first) * progress


def alpha_loss(distillation: Tensor, labels: Tensor, alpha: float | Tensor) -> Tensor:
    """Joint loss (1 - alpha) L_d + alpha L_s: alpha weights the loss on HARD LABELS.

    Source:
        The Swin framework, eq. 1.
    """
    return (1 - alpha) * distillation + alpha * labels


def ratio_alpha(distillation: Tensor, labels: Tensor) -> Tensor:
    """The weight of the loss on hard labels that balances two losses: L_d / (L_s + L_d), without a gradient.

    With it ``alpha_loss`` has the value of the harmonic mean with equal weights, but not its gradient: each loss's
    gradient is multiplied by the other loss, not by its square. 1/2 where both losses are 0.

    Source:
        The Swin framework, eq. 3. There, alpha comes from curves fitted to whole runs, because a batch's
        own losses are noisy; here it comes from the batch.
    """
    distillation, labels = _scaled(distillation, labels)
    return distillation / (labels + distillation)


def harmonic_mean(distillation: Tensor, labels: Tensor, weights: tuple[float, float]) -> Tensor:
    """Weighted harmonic mean (w_d + w_s) / (w_d / L_d + w_s / L_s) of two losses that are at least 0.

    It follows the smaller loss. As L_d goes to 0 so does the mean, and the gradient of the loss on hard labels vanishes
    with L_d squared: labels stop teaching a student that equals its teacher. The same holds the other way round.
    Value and gradient are finite and right at every scale, at exact 0 too; where both losses are 0 and the gradient is
    not defined, it is that of two equal losses.

    Args:
        distillation: L_d, scalar.
        labels: L_s, scalar.
        weights: (w_d, w_s), above 0.

    Returns:
        The mean, once differentiable.

    Source:
        The Swin framework, eq. 2 (w_d = w_s = 1) and eq. 4; its best weights are 13 and 1.
    """
    for_distillation, for_labels = harmonic_coefficients(distillation, labels, weights)
    return for_distillation * distillation + for_labels * labels


def harmonic_coefficients(distillation: Tensor, labels: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Derivatives c_d, c_s of the weighted harmonic mean by its two losses, without a gradient of their own.

    The mean is homogeneous of degree one, so it equals c_d L_d + c_s L_s (Euler), and holding c_d and c_s constant
    leaves its gradient as it is. With the shares s_d = w_d L_s / D and s_s = w_s L_d / D, D = w_d L_s + w_s L_d,

        c_d = (w_d + w_s) / w_d * s_d^2        c_s = (w_d + w_s) / w_s * s_s^2

    which depend on the ratio of the losses only; nothing is divided by a loss.
    """
    distillation, labels = _scaled(distillation, labels)
    weight_d, weight_s = weights
    total = weight_d * labels + weight_s * distillation
    share_d, share_s = weight_d * labels / total, weight_s * distillation / total
    both = weight_d + weight_s
    return both / weight_d * share_d**2, both / weight_s * share_s**2


def _scaled(distillation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Two losses divided by the larger one, without a gradient; 1 and 1 where both are 0."""
    distillation, labels = distillation.detach(), labels.detach()
    larger = torch.maximum(distillation, labels)
    one = torch.ones_like(larger)
    return torch.where(larger > 0, distillation / larger, one), torch.where(larger > 0, labels / larger, one)
