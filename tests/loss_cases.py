"""Records, logits and dense targets that the tests of the losses share."""

from __future__ import annotations

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
