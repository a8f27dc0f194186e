"""Records, logits, dense targets and plain forms that the tests of the losses share."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PADDING = 65_535


def make_records(seed: int, batch: int, topk: int, classes: int, *, pad: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Random records: distinct kept classes, masses that sum to 1, each row with its own number kept."""
    rng = np.random.default_rng(seed)
    index_BK = np.full((batch, topk), PADDING, np.int64)
    prob_BK = np.zeros((batch, topk))
    tail_B = np.zeros(batch)
    for row in range(batch):
        kept = int(rng.integers(1, topk + 1)) if pad else topk
        mass = rng.dirichlet(np.full(kept + (kept < classes), 0.3))
        index_BK[row, :kept] = rng.permutation(classes)[:kept]
        prob_BK[row, :kept] = np.sort(mass[:kept])[::-1]
        tail_B[row] = mass[kept] if kept < classes else 0.0
    return torch.from_numpy(index_BK), torch.from_numpy(prob_BK), torch.from_numpy(tail_B)


def dense_target(index_BK: Tensor, prob_BK: Tensor, tail_B: Tensor, classes: int) -> Tensor:
    """The [B, C] target, written out row by row."""
    rows = []
    for index_K, prob_K, tail in zip(index_BK, prob_BK, tail_B, strict=True):
        kept = [k for k in range(len(index_K)) if index_K[k] != PADDING]
        residual = float(tail) / (classes - len(kept)) if len(kept) < classes else 0.0
        target_C = torch.full((classes,), residual, dtype=torch.float64)
        for k in kept:
            target_C[index_K[k]] = prob_K[k]
        rows.append(target_C)
    return torch.stack(rows)


def dense_cross_entropy(logits_BC: Tensor, target_BC: Tensor, weight_B: Tensor) -> Tensor:
    loss_B = -(target_BC * torch.log_softmax(logits_BC, 1)).sum(1)
    return (loss_B * weight_B).sum() / weight_B.sum()


def random_logits(seed: int, batch: int, classes: int, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(batch, classes, generator=generator, dtype=torch.float64)).requires_grad_()


def _of_a_window(student_SNC: Tensor, teacher_SNC: Tensor) -> Tensor:
    """Of one window, pair by pair and row by row, as the paper writes it."""
    total, pairs = torch.zeros((), dtype=torch.float64), 0
    for i in range(len(student_SNC)):
        for j in range(len(student_SNC)):
            own, theirs = (
                torch.softmax(of[i] @ of[j].T / math.sqrt(of.shape[2]), dim=1) for of in (student_SNC, teacher_SNC)
            )
            for row, target in zip(own, theirs, strict=True):
                total = total - (target * row.log()).sum() / len(own)
            pairs += 1
    return total / pairs


def plain_relation_loss(student_GSNC: Tensor, teacher_GSNC: Tensor, weight_B: Tensor) -> Tensor:
    """Of all windows: the mean over those of an image, then over images by their weights."""
    windows = len(student_GSNC) // len(weight_B)
    loss_G = [_of_a_window(own, theirs) for own, theirs in zip(student_GSNC, teacher_GSNC, strict=True)]
    loss_B = torch.stack(loss_G).view(len(weight_B), windows).mean(1)
    return (loss_B * weight_B).sum() / weight_B.sum()
