"""Pearson's correlation between classes, gathered batch by batch. Numbers only: no models, no pictures.

Shape suffixes: B batch, N images, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 1 << 22  # entries of a map that are worked on at a time


class ClassCorrelation:
    """Sums of products of centred logits, from which the correlations come.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979), in float64: a class whose logit never changes has a variance of exactly 0.

    Args:
        num_classes: C.
        device: where the sums, 8 C^2 bytes, live.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.images = 0
        self._mean_C = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self._products_CC = torch.zeros(num_classes, num_classes, dtype=torch.float64, device=device)

    def add(self, logits_BC: Tensor) -> None:
        """Take in the logits of further images, on the sums' device."""
        logits_BC = logits_BC.double()
        before, count = self.images, len(logits_BC)
        self.images += count
        mean_C = logits_BC.mean(0)
        centred_BC = logits_BC - mean_C
        apart_C = mean_C - self._mean_C
        self._products_CC.addmm_(centred_BC.T, centred_BC)
        self._products_CC.addr_(apart_C, apart_C, alpha=before * count / self.images)
        self._mean_C += apart_C * (count / self.images)

    @property
    def constant_classes(self) -> int:
        """Classes whose logit was the same for all images."""
        return int((self._products_CC.diagonal() == 0).sum())

    def matrix(self) -> NDArray[np.float32]:
        """The correlation coefficients, float32 [C, C], within [-1, 1].

        A class whose logit was the same for all images is uncorrelated with every other (0, not 0/0); the diagonal
        is 1.
        """
        num_classes = len(self._mean_C)
        inverse_C = self._products_CC.diagonal().rsqrt()
        inverse_C = torch.where(inverse_C.isinf(), 0.0, inverse_C)
        map_CC = np.empty((num_classes, num_classes), np.float32)
        rows = max(1, _BLOCK // num_classes)
        for top in range(0, num_classes, rows):
            block = self._products_CC[top : top + rows] * inverse_C[top : top + rows, None] * inverse_C
            map_CC[top : top + rows] = block.clamp_(-1, 1).float().cpu().numpy()
        np.fill_diagonal(map_CC, 1.0)
        return map_CC


def off_diagonal_mean(map_CC: NDArray[np.float32], other_CC: NDArray[np.float32] | None = None) -> float:
    """Mean absolute difference of two maps over the entries off the diagonal; mean absolute value of one alone.

    Args:
        map_CC: a map, C at least 2.
        other_CC: another one of the same classes.
    """
    num_classes = len(map_CC)
    rows, total = max(1, _BLOCK // num_classes), 0.0
    for top in range(0, num_classes, rows):
        block = map_CC[top : top + rows].astype(np.float64)
        if other_CC is not None:
            block -= other_CC[top : top + rows]
        np.fill_diagonal(block[:, top:], 0.0)
        total += float(np.abs(block).sum())
    return total / (num_classes * (num_classes - 1))


def averaged_down(map_CC: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A map of at most ``side`` rows and columns: means over blocks of neighbours, as equal as they divide."""
    num_classes = len(map_CC)
    if num_classes <= side:
        return map_CC
    starts = np.arange(side) * num_classes // side
    width = np.diff(starts, append=num_classes)
    summed = np.add.reduceat(np.add.reduceat(map_CC, starts, axis=0, dtype=np.float64), starts, axis=1)
    return (summed / width[:, None] / width).astype(np.float32)
