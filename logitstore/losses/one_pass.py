"""Cross-entropy against sparse targets with its gradient made in the same pass over the logits.

A loss that is a mean over rows is multiplied by one number in the backward pass, which is nearly always 1. So the
gradient is made where the logits are at hand, and multiplied only where that number is not 1. Between the two passes
it is all there is of size [B, C], and it may even lie where the logits were.

    L = mass lse(z) - sum_kept (p_k - r) z_k - r sum_c z_c        dL/dz_c = mass softmax(z)_c - q_c

On a CPU that is done by blocks of rows that stay in its caches, on a GPU by a Triton kernel (``kernels``). Not for
float64, whose gradient may be asked for many times, and not for float16, whose gradients are too small to be written
down before the loss is scaled: these take the plain form (``sparse``).

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from logitstore.losses.plain import weighted_mean
from logitstore.losses.sparse import Rows, SparseTarget, plain_rows

_BLOCK = 1 << 21
"""Logits worked on at a time on a CPU: 8 MiB of float32, so that the last cache holds them, and each operation has
enough to do for waking up the threads that share it."""
_CLEAR = 1e-30
"""A probability from which a logarithm can be taken: far above where float32 runs out of digits."""


def takes(logits_BC: Tensor) -> bool:
    """Whether there is a one-pass form for logits of this type on this device."""
    if logits_BC.dtype not in (torch.float32, torch.bfloat16):
        return False
    return logits_BC.device.type == "cpu" or (logits_BC.device.type == "cuda" and kernels_work(logits_BC.device))


def one_pass_loss(
    logits_BC: Tensor,
    index_BK: Tensor,
    prob_BK: Tensor,
    tail_B: Tensor,
    *,
    entropy_B: Tensor | None = None,
    temperature: float = 1.0,
    weight_B: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Mean over the rows' weights of T^2 (cross-entropy of logits / T - entropy); scalar, float32.

    Args:
        logits_BC: what ``takes`` takes.
        index_BK: kept classes; entries >= C are padding.
        prob_BK: their probabilities at the temperature.
        tail_B: mass outside the kept classes, at the temperature.
        entropy_B: the target's entropy, for a divergence; None for a cross-entropy.
        temperature: T.
        weight_B: weights of the rows; None means 1 each.
        overwrite: the gradient may take the place of the logits.
    """
    rows = Rows(
        index_BK=index_BK,
        prob_BK=prob_BK,
        tail_B=tail_B,
        entropy_B=entropy_B,
        weight_B=torch.ones(len(logits_BC), device=logits_BC.device) if weight_B is None else weight_B.float(),
        temperature=float(temperature),
    )
    if not (torch.is_grad_enabled() and logits_BC.requires_grad):
        return loss_and_gradient(logits_BC.detach(), rows, None)
    loss: Tensor = _OnePass.apply(logits_BC, rows, overwrite)
    return loss


class _OnePass(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BC: Tensor, rows: Rows, overwrite: bool) -> Tensor:
        if overwrite and logits_BC.is_contiguous():
            # Autograd then refuses to use the logits for anything else, rather than use what has become of them.
            increment_version(logits_BC)
            ctx.gradient_BC = logits_BC.detach()
        else:
            ctx.gradient_BC = torch.empty_like(logits_BC, memory_format=torch.contiguous_format)
        return loss_and_gradient(logits_BC.detach(), rows, ctx.gradient_BC)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        gradient_BC, ctx.gradient_BC = ctx.gradient_BC, None
        if gradient_BC is None:
            raise RuntimeError("The gradient of this loss was taken before; compute the loss again to take it again.")
        return scaled(gradient_BC, grad), None, None


def loss_and_gradient(logits_BC: Tensor, rows: Rows, gradient_BC: Tensor | None) -> Tensor:
    """The loss of all rows, a scalar; its gradient where there is a place for it, which may be that of the logits."""
    if logits_BC.device.type == "cpu":
        return _by_blocks(logits_BC, rows, gradient_BC)
    from logitstore.losses import kernels

    return kernels.loss_and_gradient(logits_BC, rows, gradient_BC)


def scaled(gradient_BC: Tensor, factor: Tensor) -> Tensor:
    """A gradient times a scalar, in place."""
    if gradient_BC.device.type == "cpu":
        number = factor.item()
        return gradient_BC if number == 1 else gradient_BC.mul_(number)
    from logitstore.losses import kernels

    return kernels.scale_(gradient_BC, factor)


def _by_blocks(logits_BC: Tensor, rows: Rows, gradient_BC: Tensor | None) -> Tensor:
    """Each block of rows is read, kept in the caches, and written once."""
    batch, num_classes = logits_BC.shape
    target = SparseTarget.of(logits_BC, rows.index_BK, rows.prob_BK, rows.tail_B)
    excess_BK, mass_B = target.excess_BK, target.mass_B
    all_count = bool((rows.weight_B > 0).all())
    total = rows.weight_B.sum()
    share_B = rows.weight_B / torch.where(total > 0, total, 1.0)
    loss = torch.zeros((), dtype=torch.float32)
    copied = logits_BC.dtype != torch.float32 or rows.temperature != 1  # which takes a second block
    size = max(1, _BLOCK // (2 if copied else 1) // num_classes)
    scratch_BC = torch.empty(min(size, batch), num_classes)
    copy_BC = torch.empty_like(scratch_BC) if copied else scratch_BC[:0]
    for part in (slice(start, start + size) for start in range(0, batch, size)):
        index_BK, residual_B, counts_B = target.index_BK[part], target.residual_B[part], rows.weight_B[part] > 0
        z_BC = logits_BC[part]
        if copied:
            z_BC = copy_BC[: len(z_BC)].copy_(z_BC)
        if rows.temperature != 1:
            z_BC /= rows.temperature
        softmax_BC = torch.softmax(z_BC, 1, out=scratch_BC[: len(z_BC)])
        z_BK = z_BC.gather(1, index_BK)
        lse_B = _log_sum_exp(z_BC, z_BK, softmax_BC, index_BK)
        loss_B = mass_B[part] * lse_B - (z_BK * excess_BK[part]).sum(1) - residual_B * z_BC.sum(1)
        if rows.entropy_B is not None:
            # Rounding alone can make a divergence negative. Its gradient stays what it is.
            loss_B = (loss_B - rows.entropy_B[part]).clamp_(min=0)
        # A row of weight 0 must not reach the sum at all: 0 * inf would be NaN.
        loss += torch.where(counts_B, loss_B * share_B[part], 0.0).sum() * rows.temperature**2
        if gradient_BC is not None:
            scale_B = share_B[part] * rows.temperature
            softmax_BC.mul_((mass_B[part] * scale_B)[:, None])
            softmax_BC.scatter_add_(1, index_BK, excess_BK[part] * -scale_B[:, None])
            if copied:  # ``out`` of another type would take one more block
                gradient_BC[part] = softmax_BC.sub_((residual_B * scale_B)[:, None])
            else:
                torch.sub(softmax_BC, (residual_B * scale_B)[:, None], out=gradient_BC[part])
            if not all_count:
                gradient_BC[part].masked_fill_(~counts_B[:, None], 0.0)
    return loss


def _log_sum_exp(z_BC: Tensor, z_BK: Tensor, softmax_BC: Tensor, index_BK: Tensor) -> Tensor:
    """log sum_c exp z_c = z_j - log softmax(z)_j for any class j, without a second exponential.

    The most probable of some classes will do, unless none of a row is probable at all: then the most probable of all.
    """
    probable_B, best_B = softmax_BC.gather(1, index_BK).max(1)
    if bool((probable_B > _CLEAR).all()):
        return z_BK.gather(1, best_B[:, None])[:, 0] - probable_B.log()
    return z_BC.amax(1) - softmax_BC.amax(1).log()


@cache
def kernels_work(device: torch.device) -> bool:
    """Whether Triton is installed and its kernels give the plain form's numbers on this device; tried out once."""
    try:
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
            _compare_forms(device, dtype, tolerance)
    except Exception as exc:  # a compiler may fail in any way on a machine it was not made for
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
        warnings.warn(
            f"The Triton kernels of the loss do not work on {device} ({reason}); the plain form is used, which gives "
            "the same numbers, more slowly and with more memory.",
            stacklevel=2,
        )
        return False
    return True


@torch.inference_mode(False)  # type: ignore[untyped-decorator]
@torch.enable_grad()  # type: ignore[untyped-decorator]
def _compare_forms(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    """Raise an AssertionError where kernels and plain form differ, over several tiles and in place."""
    from logitstore.losses import kernels

    plain_BC = torch.linspace(-4, 4, 4 * 9_000, device=device).reshape(9_000, 4).T.to(dtype).contiguous()
    kernels_BC = plain_BC.clone()
    rows = Rows(
        index_BK=torch.tensor([[3, 8_999, 65_535]] * 4, device=device),
        prob_BK=torch.tensor([[0.5, 0.25, 0.0]] * 4, device=device),
        tail_B=torch.full((4,), 0.25, device=device),
        entropy_B=None,
        weight_B=torch.tensor([1.0, 0.0, 2.0, 1.0], device=device),
        temperature=1.0,
    )
    target = SparseTarget.of(plain_BC, rows.index_BK, rows.prob_BK, rows.tail_B)
    expected = weighted_mean(plain_rows(plain_BC.requires_grad_(), target), rows.weight_B)
    (expected_BC,) = torch.autograd.grad(expected * 3, plain_BC)
    found = kernels.loss_and_gradient(kernels_BC, rows, kernels_BC)
    found_BC = kernels.scale_(kernels_BC, torch.tensor(3.0, device=device))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_BC, expected_BC, rtol=tolerance, atol=1e-9)
