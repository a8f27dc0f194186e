"""The optimiser and schedule of a training run: AdamW groups with layer-wise learning rates, cosine per step.

Which parameters decay and how their learning rates are scaled is decided here; the optimiser, the scheduler and the
clipping are timm's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn

from logitstore.errors import InputError

if TYPE_CHECKING:
    from students.recipes import Recipe

# "stages.2.blocks.5.attn..." (TinyViT), "layers.2.blocks.5.attn..." (Swin), "blocks.5.attn..." (ViT, DeiT).
_BLOCK = re.compile(r"^(?P<block>(?:.*\.)?blocks\.\d+)\.")
_NEVER_DECAYED = ("attention_biases", "relative_position_bias_table")


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Scale of the learning rate of each parameter: layer_decay ** (last block - its block).

    A parameter belongs to the last block met so far in the model's own order. So the stem is block 0, a downsampling
    layer is the block before it, the last block, the last norm and the head have scale 1. This is the scale of
    TinyViT's reference; timm's own layer decay is one step lower.

    Args:
        model: a model whose repeated layers are called ``blocks.<i>``, as in all of timm's transformers.
        layer_decay: factor from each block to the one before it, in (0, 1].

    Returns:
        Scales by parameter name.

    Raises:
        InputError: the model has no blocks, and ``layer_decay`` is not 1.
    """
    blocks: list[str] = []
    block_of: dict[str, int] = {}
    for name, _ in model.named_parameters():
        match = _BLOCK.match(name)
        if match and match["block"] not in blocks[-1:]:
            blocks.append(match["block"])
        block_of[name] = max(0, len(blocks) - 1)
    if not blocks and layer_decay != 1:
        raise InputError(
            f"{type(model).__name__} has no parameters named blocks.<i>, so a layer decay of {layer_decay} has no "
            "meaning; train it with a layer decay of 1."
        )
    return {name: layer_decay ** (max(0, len(blocks) - 1) - block) for name, block in block_of.items()}


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: 1-D ones, biases, attention biases, and what the model names."""
    declared = set(getattr(model, "no_weight_decay", set)())
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim <= 1 or name.endswith((".bias", *_NEVER_DECAYED)) or name in declared
    }


def parameter_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """AdamW's groups: one for each pair (weight decay, scale), in the model's order; frozen parameters are left out.

    Returns:
        Dictionaries with ``params``, ``weight_decay`` and ``lr_scale``, which timm's schedulers multiply in.
    """
    scales = layer_scales(model, layer_decay)
    without = undecayed(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (0.0 if name in without else weight_decay, scales[name])
            groups.setdefault(key, []).append(parameter)
    return [{"params": params, "weight_decay": decay, "lr_scale": scale} for (decay, scale), params in groups.items()]


def create_optimizer(model: nn.Module, recipe: Recipe, *, global_batch: int) -> torch.optim.Optimizer:
    """timm's AdamW with the recipe's rates at a global batch."""
    rate = recipe.learning_rates(global_batch).peak
    optimizer = create_optimizer_v2(
        model,
        opt="adamw",
        lr=rate,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        eps=recipe.eps,
        param_group_fn=lambda owner: parameter_groups(
            owner, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
        ),
    )
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def create_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, *, global_batch: int, steps_per_epoch: int
) -> CosineLRScheduler:
    """timm's cosine schedule over all steps of the run, with its linear warm-up; call ``step_update(steps done)``.

    It is a function of the number of steps done, so it has no state to save.
    """
    rates = recipe.learning_rates(global_batch)
    total = recipe.epochs * steps_per_epoch
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=max(total, 2),  # timm warns about a cosine of a single step
        lr_min=rates.minimum,
        warmup_t=min(round(recipe.warmup_epochs * steps_per_epoch), total),
        warmup_lr_init=rates.warmup_start,
        t_in_epochs=False,
    )
    schedule.step_update(0)
    return schedule


def peak_rate(optimizer: torch.optim.Optimizer) -> float:
    """The present learning rate of the parameters with the largest scale."""
    return max(float(group["lr"]) for group in optimizer.param_groups)
