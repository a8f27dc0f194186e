"""One loss out of two: a distillation loss L_d and a loss on hard labels L_s, both scalars of at least 0.

Every joint loss is c_d L_d + c_s L_s, with coefficients that depend on the step or on the two losses. They carry no
gradient, and need not: see ``harmonic_coefficients``. So a batch that is cut into pieces, or shared among processes,
needs only the two numbers of the whole batch to have its exact gradient.

Source: Amria et al., Distillation-based model compression framework for Swin transformer (2024), named "the Swin
framework" below.
"""

from __future__ import annotations

import torch
from torch import Tensor


def joint_loss(
    distillation: Tensor, labels: Tensor, coefficients: tuple[float, float] | tuple[Tensor, Tensor]
) -> Tensor:
    """c_d L_d + c_s L_s, once differentiable by both losses.

    Args:
        distillation: L_d.
        labels: L_s.
        coefficients: c_d and c_s, from one of the functions below.
    """
    for_distillation, for_labels = coefficients
    return for_distillation * distillation + for_labels * labels


def alpha_coefficients(alpha: tuple[float, float], progress: float = 0.0) -> tuple[float, float]:
    """1 - alpha and alpha at a point of the run: alpha weights the loss on HARD LABELS.

    Args:
        alpha: its values at the first and at the last step, linear between; equal ones are a fixed weight.
        progress: 0 at the first step, 1 at the last.

    Source:
        The Swin framework, eq. 1; section IV-C and table VI for linear schedules.
    """
    first, last = alpha
    now = first + (last - first) * progress
    return 1 - now, now


def ratio_coefficients(distillation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """1 - alpha and alpha for the alpha that balances two losses, L_d / (L_s + L_d); 1/2 and 1/2 where both are 0.

    The joint loss then has the value of the harmonic mean with equal weights, but not its gradient, because alpha has
    none: each loss's gradient is multiplied by the other loss's share, not by the square of it.

    Source:
        The Swin framework, eq. 3. There, alpha comes from curves fitted to whole runs, because a batch's own losses are
        noisy; here it comes from the batch.
    """
    distillation, labels = _scaled(distillation, labels)
    total = labels + distillation
    return labels / total, distillation / total


def harmonic_coefficients(distillation: Tensor, labels: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Derivatives of the weighted harmonic mean (w_d + w_s) / (w_d / L_d + w_s / L_s) by its two losses.

    The mean is homogeneous of degree one, so it equals c_d L_d + c_s L_s (Euler), and holding c_d and c_s constant
    leaves its gradient as it is. With the shares s_d = w_d L_s / D and s_s = w_s L_d / D, D = w_d L_s + w_s L_d,

        c_d = (w_d + w_s) / w_d * s_d^2        c_s = (w_d + w_s) / w_s * s_s^2

    which depend on the ratio of the losses only: nothing is divided by a loss, so value and gradient are finite and
    right at every scale, and at exact 0. Where both losses are 0, they are those of two equal losses.

    The mean follows the smaller loss. As L_d goes to 0 so does the mean, and the gradient of the loss on hard labels
    vanishes with the square of L_d: labels teach nothing to a student that equals its teacher. The same holds the other
    way round.

    Args:
        distillation: L_d.
        labels: L_s.
        weights: w_d and w_s, above 0.

    Source:
        The Swin framework, eq. 2 (equal weights) and eq. 4; its best weights are 13 and 1.
    """
    distillation, labels = _scaled(distillation, labels)
    weight_d, weight_s = weights
    both, total = weight_d + weight_s, weight_d * labels + weight_s * distillation
    share_d, share_s = weight_d * labels / total, weight_s * distillation / total
    return both / weight_d * share_d**2, both / weight_s * share_s**2


def _scaled(distillation: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Two losses divided by the larger one, without a gradient; 1 and 1 where both are 0."""
    distillation, labels = distillation.detach(), labels.detach()
    larger = torch.maximum(distillation, labels)
    one = torch.ones_like(larger)
    return torch.where(larger > 0, distillation / larger, one), torch.where(larger > 0, labels / larger, one)
