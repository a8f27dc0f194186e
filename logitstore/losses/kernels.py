"""Triton kernels of the one-pass loss: one program a row, tiles over its classes.

A row is read for its log-sum-exp (kept up to date as tiles come in) and its sum, then, from the cache, for its
gradient, which is written at once. Its kept classes are read before anything is written, and their gradients are
written last.

Imported only where a GPU is used and Triton is installed.

Shapes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from logitstore.losses.sparse import Rows

LOWEST = tl.constexpr(-3.4028234663852886e38)
"""Smaller than any finite logit; unlike -inf, it may be subtracted from itself."""


_TILE_C, _TILE_K, _TILE = 4096, 256, 4096
"""Largest tiles: of classes (16 a thread, without spilling), of kept classes, of values to scale."""
_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}


def loss_and_gradient(logits_BC: Tensor, rows: Rows, gradient_BC: Tensor | None) -> Tensor:
    """The loss of all rows, and its gradient where there is a place for it.

    Args:
        logits_BC: float32 or bfloat16.
        rows: their targets and weights.
        gradient_BC: contiguous, of the logits' type; may be the logits themselves.

    Returns:
        Scalar, float32.
    """
    batch, num_classes = logits_BC.shape
    index_BK, prob_BK = rows.index_BK.contiguous(), rows.prob_BK.contiguous()
    topk = index_BK.shape[1]
    device = logits_BC.device
    loss_B = torch.empty(batch, device=device)
    kept_logit_BK = torch.empty(batch, topk, device=device)
    tile_C = min(_TILE_C, triton.next_power_of_2(num_classes))
    with torch.cuda.device_of(logits_BC):
        loss_kernel[(batch,)](
            logits_BC.contiguous(),
            loss_B if gradient_BC is None else gradient_BC,
            index_BK,
            prob_BK,
            rows.tail_B.contiguous(),
            loss_B if rows.entropy_B is None else rows.entropy_B.contiguous(),
            rows.weight_B.contiguous(),
            rows.weight_B.sum(),
            kept_logit_BK,
            loss_B,
            num_classes,
            topk,
            1 / rows.temperature,
            rows.temperature**2,
            rows.temperature,
            WITH_GRADIENT=gradient_BC is not None,
            WITH_ENTROPY=rows.entropy_B is not None,
            BLOCK_C=tile_C,
            BLOCK_K=min(_TILE_K, triton.next_power_of_2(topk)),
            num_warps=max(1, tile_C // 512),
            **_OPTIONS,
        )
    return loss_B.sum()


def scale_(values: Tensor, factor: Tensor) -> Tensor:
    """Multiply contiguous values by a scalar, in place; where it is 1, that is no pass over them, nor any waiting."""
    with torch.cuda.device_of(values):
        scale_kernel[(triton.cdiv(values.numel(), _TILE),)](values, factor, values.numel(), BLOCK=_TILE, **_OPTIONS)
    return values


@triton.jit
def loss_kernel(
    logits_ptr,
    gradient_ptr,
    index_ptr,
    prob_ptr,
    tail_ptr,
    entropy_ptr,
    weight_ptr,
    total_ptr,
    kept_logit_ptr,
    loss_ptr,
    num_classes,
    topk,
    inverse_temperature,
    value_factor,
    gradient_factor,
    WITH_GRADIENT: tl.constexpr,
    WITH_ENTROPY: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Loss of a row times its share of the mean, and the gradient of that; see ``loss_and_gradient``."""
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * num_classes
    gradient_ptr += row * num_classes
    index_ptr += row * topk
    prob_ptr += row * topk
    kept_logit_ptr += row * topk
    weight = tl.load(weight_ptr + row)
    lanes_C = tl.arange(0, BLOCK_C)
    lanes_K = tl.arange(0, BLOCK_K)

    if weight <= 0.0:  # not read at all: 0 * inf would be NaN
        tl.store(loss_ptr + row, 0.0)
        if WITH_GRADIENT:
            nothing_C = tl.zeros([BLOCK_C], tl.float32).to(gradient_ptr.dtype.element_ty)
            for start in range(0, num_classes, BLOCK_C):
                tl.store(gradient_ptr + start + lanes_C, nothing_C, mask=start + lanes_C < num_classes)
    else:
        # Sums are taken from the first logit on, so that a shift common to all costs no precision.
        first = tl.load(logits_ptr).to(tl.float32) * inverse_temperature
        largest = tl.zeros([], tl.float32) + LOWEST
        exponentials = tl.zeros([], tl.float32)
        sum_all = tl.zeros([], tl.float32)
        for start in range(0, num_classes, BLOCK_C):
            inside_C = start + lanes_C < num_classes
            z_C = tl.load(logits_ptr + start + lanes_C, mask=inside_C, other=float("-inf")).to(tl.float32)
            z_C *= inverse_temperature
            now = tl.maximum(largest, tl.max(z_C, 0))
            exponentials = exponentials * tl.exp(largest - now) + tl.sum(tl.exp(z_C - now), 0)
            largest = now
            sum_all += tl.sum(tl.where(inside_C, z_C - first, 0.0), 0)
        sum_all += num_classes * (first - largest)

        num_kept = tl.zeros([], tl.int32)
        mass = tl.zeros([], tl.float32)
        product = tl.zeros([], tl.float32)
        sum_kept = tl.zeros([], tl.float32)
        for start in range(0, topk, BLOCK_K):
            inside_K = start + lanes_K < topk
            class_K = tl.load(index_ptr + start + lanes_K, mask=inside_K, other=0).to(tl.int64)
            kept_K = inside_K & (class_K < num_classes)
            z_K = tl.load(logits_ptr + class_K, mask=kept_K, other=0.0).to(tl.float32) * inverse_temperature - largest
            tl.store(kept_logit_ptr + start + lanes_K, z_K, mask=kept_K)
            prob_K = tl.load(prob_ptr + start + lanes_K, mask=kept_K, other=0.0).to(tl.float32)
            num_kept += tl.sum(kept_K.to(tl.int32), 0)
            mass += tl.sum(prob_K, 0)
            product += tl.sum(tl.where(kept_K, prob_K * z_K, 0.0), 0)
            sum_kept += tl.sum(tl.where(kept_K, z_K, 0.0), 0)

        num_unkept = num_classes - num_kept
        residual = tl.zeros([], tl.float32)
        if num_unkept > 0:
            residual += tl.load(tail_ptr + row).to(tl.float32) / num_unkept
        mass += residual * num_unkept
        value = mass * tl.log(exponentials) - product
        if num_unkept > 0:
            value -= residual * (sum_all - sum_kept)
        if WITH_ENTROPY:  # rounding alone can make a divergence negative; its gradient stays what it is
            value -= tl.load(entropy_ptr + row)
            value = tl.where(value < 0.0, 0.0, value)
        share = weight / tl.load(total_ptr)
        tl.store(loss_ptr + row, value * share * value_factor)

        if WITH_GRADIENT:
            scale = share * gradient_factor
            factor = mass / exponentials * scale
            tl.debug_barrier()  # every thread has read its kept logits
            for start in range(0, num_classes, BLOCK_C):
                inside_C = start + lanes_C < num_classes
                z_C = tl.load(logits_ptr + start + lanes_C, mask=inside_C, other=0.0).to(tl.float32)
                gradient_C = tl.exp(z_C * inverse_temperature - largest) * factor - residual * scale
                tl.store(gradient_ptr + start + lanes_C, gradient_C.to(gradient_ptr.dtype.element_ty), mask=inside_C)
            tl.debug_barrier()  # every thread has written its tiles
            for start in range(0, topk, BLOCK_K):
                inside_K = start + lanes_K < topk
                class_K = tl.load(index_ptr + start + lanes_K, mask=inside_K, other=0).to(tl.int64)
                kept_K = inside_K & (class_K < num_classes)
                z_K = tl.load(kept_logit_ptr + start + lanes_K, mask=kept_K, other=0.0)
                prob_K = tl.load(prob_ptr + start + lanes_K, mask=kept_K, other=0.0).to(tl.float32)
                gradient_K = tl.exp(z_K) * factor - prob_K * scale
                tl.store(gradient_ptr + class_K, gradient_K.to(gradient_ptr.dtype.element_ty), mask=kept_K)


@triton.jit
def scale_kernel(values_ptr, factor_ptr, count, BLOCK: tl.constexpr):
    """Values times a factor, in place; untouched where the factor is 1, which only the device knows."""
    factor = tl.load(factor_ptr)
    if factor != 1.0:
        lanes = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        values = tl.load(values_ptr + lanes, mask=lanes < count)
        tl.store(values_ptr + lanes, (values * factor).to(values_ptr.dtype.element_ty), mask=lanes < count)
