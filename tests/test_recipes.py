"""Recipes, their learning rates, and the optimiser they make: tables computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from logitstore.errors import InputError
from logitstore.optim import create_optimizer, create_schedule, layer_scales, parameter_groups, peak_rate, undecayed
from students.recipes import RECIPES, LearningRates, Recipe, digits, select_recipe, tinyvit_1k_distill


@pytest.fixture(scope="module")
def tinyvit() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return timm.create_model("tiny_vit_5m_224", num_classes=10)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_a_recipe_goes_through_plain_values(make):
    recipe = make()
    assert recipe.name == make.__name__
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="no field 'lr'"):
        Recipe.from_dict(recipe.to_dict() | {"lr": 1})


def test_learning_rates_scale_with_batch_world_and_accumulation():
    recipe = tinyvit_1k_distill()
    # Published effective values at a batch of 1024: 1e-3, 1e-5, 1e-6.
    expected = LearningRates(peak=1e-3, minimum=1e-5, warmup_start=1e-6)
    assert recipe.learning_rates(128 * 8 * 1).__dict__ == pytest.approx(expected.__dict__)
    assert recipe.learning_rates(512).peak == pytest.approx(5e-4)
    batch, world, accumulate = 64, 4, 8
    assert recipe.learning_rates(batch * world * accumulate).peak == pytest.approx(5e-4 * 2048 / 512)


@pytest.mark.parametrize(
    ("student", "rate"),
    [
        ("tinyvit_5m", 0.0),
        ("tiny_vit_11m_224", 0.1),
        ("tinyvit_21m_384", 0.2),
        ("swin_n", 0.2),
        ("swin_small_patch4_window7_224", 0.3),
        ("resnet18", 0.1),
    ],
)
def test_drop_path_by_student(student, rate):
    assert tinyvit_1k_distill().drop_path_of(student) == rate
    assert replace(tinyvit_1k_distill(), drop_path=(("", 0.4),)).drop_path_of(student) == 0.4


def test_select_and_override():
    assert select_recipe() == digits()
    assert select_recipe(data="torch/cifar10") == tinyvit_1k_distill()
    assert select_recipe("digits", data="torch/cifar10", epochs=2, base_lr=None).epochs == 2
    assert select_recipe(tinyvit_1k_distill(), data="digits", epochs=30).warmup_epochs == 2
    assert select_recipe("digits", epochs=8, warmup_epochs=1).warmup_epochs == 1
    with pytest.raises(ValueError, match=r"no recipe 'imagenet'.*digits, tinyvit_1k_distill"):
        select_recipe("imagenet")
    with pytest.raises(ValueError, match="no field 'speed'"):
        select_recipe(speed=1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be above 0"),
        ("epochs", 1.5, "epochs must be a whole number"),
        ("base_lr", -1.0, "base_lr must be above 0"),
        ("label_smoothing", 1.0, r"label_smoothing must lie in \[0, 1\)"),
        ("ema_decay", 1.0, "ema_decay must lie"),
        ("layer_decay", 0.0, "layer_decay must lie"),
        ("warmup_epochs", 9.0, r"warmup_epochs \(9.0\) must not exceed epochs \(4\)"),
        ("clip_grad", 0.0, "clip_grad must be above 0, or None"),
    ],
)
def test_values_out_of_range(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(digits(), **{field: value})


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
