"""The optimiser that a recipe makes: layer-wise learning rates, groups, schedule, against hand-computed numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from logitstore.errors import InputError
from logitstore.optim import create_optimizer, create_schedule, layer_scales, parameter_groups, peak_rate, undecayed
from students.recipes import digits, tinyvit_21k_to_1k


@pytest.fixture(scope="module")
def tinyvit() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return timm.create_model("tiny_vit_5m_224", num_classes=10)


# 0.8 ** (11 - i) for block i of 12, rounded to 9 places.
SCALES = [0.085899346, 0.107374182, 0.134217728, 0.16777216, 0.2097152, 0.262144]
SCALES += [0.32768, 0.4096, 0.512, 0.64, 0.8, 1.0]


def test_layer_scales_of_tinyvit(tinyvit):
    by_prefix = {
        "patch_embed": SCALES[0],
        "stages.0.blocks.0": SCALES[0],
        "stages.0.blocks.1": SCALES[1],
        "stages.1.downsample": SCALES[1],
        "stages.1.blocks.0": SCALES[2],
        "stages.1.blocks.1": SCALES[3],
        "stages.2.downsample": SCALES[3],
        "stages.2.blocks.0": SCALES[4],
        "stages.2.blocks.1": SCALES[5],
        "stages.2.blocks.2": SCALES[6],
        "stages.2.blocks.3": SCALES[7],
        "stages.2.blocks.4": SCALES[8],
        "stages.2.blocks.5": SCALES[9],
        "stages.3.downsample": SCALES[9],
        "stages.3.blocks.0": SCALES[10],
        "stages.3.blocks.1": SCALES[11],
        "head": 1.0,
    }
    seen = set()
    for name, scale in layer_scales(tinyvit, 0.8).items():
        (prefix,) = [prefix for prefix in by_prefix if name.startswith(prefix + ".")]
        assert scale == pytest.approx(by_prefix[prefix], abs=1e-9), name
        seen.add(prefix)
    assert seen == set(by_prefix)


def test_layer_scales_of_swin_and_deit():
    with torch.random.fork_rng(devices=[]):
        swin = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2, depths=(1, 1, 2, 1), embed_dim=24)
        deit = timm.create_model("deit_tiny_patch16_224", num_classes=2, depth=3)
    scales = layer_scales(swin, 0.5)
    assert scales["patch_embed.proj.weight"] == scales["layers.0.blocks.0.norm1.weight"] == 0.5**4
    assert scales["layers.2.downsample.reduction.weight"] == scales["layers.1.blocks.0.mlp.fc1.bias"] == 0.5**3
    assert scales["layers.2.blocks.0.norm1.weight"] == 0.5**2
    assert scales["layers.3.blocks.0.norm1.weight"] == scales["norm.weight"] == scales["head.fc.weight"] == 1.0
    scales = layer_scales(deit, 0.5)
    assert scales["cls_token"] == scales["pos_embed"] == scales["blocks.0.attn.qkv.weight"] == 0.25
    assert scales["blocks.2.attn.qkv.weight"] == scales["norm.weight"] == scales["head.weight"] == 1.0


def test_rates_of_the_fine_tuning_recipe(tinyvit):
    """The last block and the head at the peak of 5e-4, the stem and the first block at 5e-4 * 0.8 ** 11."""
    recipe = tinyvit_21k_to_1k()
    optimizer = create_optimizer(tinyvit, recipe, global_batch=recipe.batch_size)
    schedule = create_schedule(optimizer, recipe, global_batch=recipe.batch_size, steps_per_epoch=1)
    schedule.step_update(recipe.warmup_epochs)
    # The cosine has gone on during the warm-up: 5 of 30 epochs.
    now = 2e-5 + (5e-4 - 2e-5) * (1 + math.cos(math.pi * 5 / 30)) / 2
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    by_name = {name: rates[id(parameter)] / now for name, parameter in tinyvit.named_parameters()}
    assert by_name["head.fc.weight"] == pytest.approx(1.0)
    assert by_name["stages.3.blocks.1.mlp.fc1.weight"] == pytest.approx(1.0)
    assert by_name["stages.3.downsample.conv1.conv.weight"] == pytest.approx(SCALES[9])
    assert by_name["patch_embed.conv1.conv.weight"] == pytest.approx(SCALES[0])
    assert {round(rate, 9) for rate in by_name.values()} == {round(scale, 9) for scale in SCALES}
    assert all(group["weight_decay"] in (0.0, 1e-8) for group in optimizer.param_groups)


def test_layer_decay_needs_blocks():
    assert set(layer_scales(nn.Linear(2, 2), 1.0).values()) == {1.0}
    with pytest.raises(InputError, match="Linear has no parameters named blocks"):
        layer_scales(nn.Linear(2, 2), 0.8)


def test_groups_decay_matrices_and_kernels_only(tinyvit):
    without = undecayed(tinyvit)
    assert "stages.1.blocks.0.attn.attention_biases" in without
    assert "patch_embed.conv1.bn.weight" in without
    assert "head.fc.bias" in without
    assert "head.fc.weight" not in without
    groups = parameter_groups(tinyvit, weight_decay=0.05)
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.05]
    assert sum(len(group["params"]) for group in groups) == len(list(tinyvit.parameters()))
    decayed = next(group["params"] for group in groups if group["weight_decay"])
    assert all(parameter.ndim >= 2 for parameter in decayed)


def test_frozen_parameters_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, weight_decay=0.1)) == 2


def test_schedule_is_a_warm_up_and_a_cosine_of_the_steps_done(tinyvit):
    recipe = replace(digits(), epochs=10, warmup_epochs=2, batch_size=512, layer_decay=0.8, base_lr=1.0)
    recipe = replace(recipe, base_min_lr=0.1, base_warmup_lr=0.01)
    optimizer = create_optimizer(tinyvit, recipe, global_batch=512)
    assert isinstance(optimizer, torch.optim.AdamW)
    schedule = create_schedule(optimizer, recipe, global_batch=512, steps_per_epoch=5)
    assert peak_rate(optimizer) == pytest.approx(0.01)
    schedule.step_update(5)
    assert peak_rate(optimizer) == pytest.approx(0.505)
    schedule.step_update(25)
    assert peak_rate(optimizer) == pytest.approx(0.55)
    assert min(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.55 * SCALES[0])
    schedule.step_update(50)
    assert peak_rate(optimizer) == pytest.approx(0.1)
    schedule.step_update(5)
    assert peak_rate(optimizer) == pytest.approx(0.505)
