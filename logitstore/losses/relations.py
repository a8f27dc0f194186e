"""Losses on the relations among tokens inside a student and its teacher: of attention, and of hidden states.

Relations have the shape of the tokens alone, so widths and numbers of heads may differ between the two models. Nothing
of the size of all relations is ever kept: they are made by chunks, and the gradient with them, as in ``one_pass``.

Shapes: B batch, W windows of an image, G = B W of a batch, S states, N tokens of a window (or of the image), C width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from logitstore.losses.plain import precision

_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Relations worked on at a time: on a CPU what its caches hold, on a GPU enough to keep it busy."""


def attention_relation_loss(student_GSNC: Tensor, teacher_GSNC: Tensor, *, weight_B: Tensor | None = None) -> Tensor:
    """Mean cross-entropy between the relations of queries, keys and values in a layer of student and teacher.

    Of the three states S_1, S_2, S_3 (queries, keys, values), with the heads side by side, each of the nine ordered
    pairs has relations R_ij = softmax(S_i S_j^T / sqrt(C)). The loss is -sum R_ij(teacher) log R_ij(student), summed
    over a row and averaged over rows, pairs, windows, and images by their weights. At its least it is the teacher's
    entropy.

    Args:
        student_GSNC: its three states, any floating type; the only argument with a gradient, once differentiable.
        teacher_GSNC: the teacher's, of any width; the windows of an image follow one another in both.
        weight_B: weights of the images; None means 1 each. What is in images of weight 0 does not count.

    Returns:
        Scalar of type float32 (float64 for float64 states); 0 when all weights are 0.

    Raises:
        ValueError: windows, states or tokens are not as many in both, or no whole number of windows has each weight.

    Source:
        MiniViT (Zhang et al., 2022), eq. 10.
    """
    return _relation_loss(student_GSNC, teacher_GSNC, weight_B)


def hidden_relation_loss(student_BNC: Tensor, teacher_BNC: Tensor, *, weight_B: Tensor | None = None) -> Tensor:
    """Mean cross-entropy between the relations of hidden states behind a layer of student and teacher.

    With R = softmax(H H^T / sqrt(C)) over all tokens of the image. This is the paper's form. The reference
    implementation compares cosines instead, by 49 times their mean squared difference. 49 is the size of a window,
    although the tokens of the whole map are related, so large maps count for less there. A cross-entropy needs no
    factor: each row is a distribution, however many tokens there are.

    Args:
        student_BNC: its hidden states, any floating type; the only argument with a gradient, once differentiable.
        teacher_BNC: the teacher's, of any width.
        weight_B: as in ``attention_relation_loss``, as are the result and what is raised.

    Source:
        MiniViT (Zhang et al., 2022), eq. 11.
    """
    return _relation_loss(student_BNC[:, None], teacher_BNC[:, None], weight_B)


def _relation_loss(student_GSNC: Tensor, teacher_GSNC: Tensor, weight_B: Tensor | None) -> Tensor:
    if student_GSNC.shape[:3] != teacher_GSNC.shape[:3]:
        raise ValueError(
            f"The student has {tuple(student_GSNC.shape[:3])} windows, states and tokens, the teacher "
            f"{tuple(teacher_GSNC.shape[:3])}: only equal ones have relations to compare."
        )
    groups, states = student_GSNC.shape[:2]
    if weight_B is not None and groups % len(weight_B):
        raise ValueError(f"{groups} windows are no whole number for each of {len(weight_B)} weights.")
    with torch.autocast(student_GSNC.device.type, enabled=False):
        dtype = precision(student_GSNC)
        student_GRC, teacher_GRC = _scaled(student_GSNC, dtype), _scaled(teacher_GSNC.detach(), dtype)
        if weight_B is None:
            weight_B = student_GRC.new_ones(groups)
        share_G = _shares(weight_B.to(student_GRC), groups)
        if torch.is_grad_enabled() and student_GRC.requires_grad:
            loss: Tensor = _Relations.apply(student_GRC, teacher_GRC, share_G, states)
            return loss
        return _by_chunks(student_GRC.detach(), teacher_GRC, share_G, states, None)


def _scaled(states_GSNC: Tensor, dtype: torch.dtype) -> Tensor:
    """States one below the other, [G, S N, C], whose products are scaled by 1 / sqrt(C)."""
    states_GRC = states_GSNC.to(dtype).flatten(1, 2)
    scaled_GRC: Tensor = states_GRC * states_GRC.shape[2] ** -0.25
    return scaled_GRC


def _shares(weight_B: Tensor, groups: int) -> Tensor:
    """Of each window in the mean; they add up to 1, or are all 0."""
    windows = groups // len(weight_B)
    total = weight_B.sum() * windows
    return (weight_B / torch.where(total > 0, total, 1.0)).repeat_interleave(windows)


class _Relations(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student_GRC: Tensor, teacher_GRC: Tensor, share_G: Tensor, states: int) -> Tensor:
        gradient_GRC = torch.zeros_like(student_GRC)
        loss = _by_chunks(student_GRC, teacher_GRC, share_G, states, gradient_GRC)
        ctx.save_for_backward(gradient_GRC)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_GRC,) = ctx.saved_tensors
        return gradient_GRC * grad, None, None, None


def _by_chunks(
    student_GRC: Tensor, teacher_GRC: Tensor, share_G: Tensor, states: int, gradient_GRC: Tensor | None
) -> Tensor:
    """The loss, and its gradient where there is a place for it, which holds zeros."""
    groups, rows = student_GRC.shape[:2]
    share_G = share_G / (rows * states)
    loss = student_GRC.new_zeros(())
    for some, part in _chunks(groups, rows, _CHUNK["cpu" if student_GRC.device.type == "cpu" else "cuda"]):
        own_GRC = student_GRC[some]
        target = _products(teacher_GRC[some], part, states).softmax(3)
        log_relation = _products(own_GRC, part, states).log_softmax(3)
        loss_G = -torch.einsum("gqsn,gqsn->g", target, log_relation)
        # An image of weight 0 must not reach the sum at all: 0 * inf would be NaN.
        loss += torch.where(share_G[some] > 0, loss_G * share_G[some], 0.0).sum()
        if gradient_GRC is not None:
            excess_GQR = log_relation.exp_().sub_(target).flatten(2)
            gradient_GRC[some, part].baddbmm_(excess_GQR, own_GRC)
            gradient_GRC[some].baddbmm_(excess_GQR.mT, own_GRC[:, part])
    if gradient_GRC is not None:
        gradient_GRC.mul_(share_G[:, None, None]).masked_fill_(share_G[:, None, None] == 0, 0.0)
    return loss


def _products(states_GRC: Tensor, part: slice, states: int) -> Tensor:
    """Of some rows with all of their window: [G, rows, S, N]."""
    products_GQR: Tensor = states_GRC[:, part] @ states_GRC.mT
    return products_GQR.view(*products_GQR.shape[:2], states, -1)


def _chunks(groups: int, rows: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Runs of windows and of their rows with about ``size`` relations each."""
    at_once, lines = max(1, size // rows**2), max(1, min(rows, size // rows))
    for first in range(0, groups, at_once):
        for line in range(0, rows, lines):
            yield slice(first, first + at_once), slice(line, line + lines)
