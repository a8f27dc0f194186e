"""Recipes: their values in force against a table written by hand, their plain form, what is refused."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import timm
import torch

from logitstore.models import own_preprocessing
from logitstore.train import TrainConfig
from students.recipes import (
    RECIPES,
    LearningRates,
    Recipe,
    digits,
    select_recipe,
    swin_framework,
    tinyvit_1k_distill,
    tinyvit_1k_scratch,
)


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_a_recipe_goes_through_plain_values(make):
    recipe = make()
    assert recipe.name == make.__name__
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="no field 'lr'"):
        Recipe.from_dict(recipe.to_dict() | {"lr": 1})


# Effective values at the recipe's own batch: as published, but for digits and what docs/training.md calls our choice.
# epochs, warm-up, batch | peak, least, first rate | weight decay, smoothing, layer decay, BatchNorm in eval mode |
# Mixup, CutMix | size | rates of stochastic depth of the recipe's three sizes
EFFECTIVE = {
    "tinyvit_21k_distill": (90, 5, 4096, 2e-3, 4e-5, 4e-6, 0.01, 0.0, 1.0, False, 0.0, 0.0, None, (0.0, 0.0, 0.1)),
    "tinyvit_21k_to_1k": (30, 5, 1024, 5e-4, 2e-5, 1e-6, 1e-8, 0.1, 0.8, True, 0.0, 0.0, None, (0.0, 0.0, 0.1)),
    "tinyvit_1k_scratch": (300, 20, 1024, 1e-3, 1e-5, 1e-6, 0.05, 0.1, 1.0, False, 0.8, 1.0, None, (0.0, 0.1, 0.2)),
    "tinyvit_1k_distill": (300, 20, 1024, 1e-3, 1e-5, 1e-6, 0.05, 0.0, 1.0, False, 0.0, 0.0, None, (0.0, 0.1, 0.2)),
    "tinyvit_384": (30, 5, 1024, 4e-5, 4e-7, 4e-8, 1e-8, 0.1, 1.0, True, 0.0, 0.0, 384, (0.0, 0.0, 0.1)),
    "tinyvit_512": (30, 5, 1024, 4e-5, 4e-7, 4e-8, 1e-8, 0.1, 1.0, True, 0.0, 0.0, 512, (0.0, 0.0, 0.1)),
    "swin_framework": (60, 5, 128, 2e-4, 0.0, 0.0, 0.01, 0.0, 1.0, False, 0.0, 0.0, None, (0.2, 0.2, 0.2)),
    "minivit_swin": (300, 20, 1024, 1e-3, 1e-5, 1e-6, 0.05, 0.0, 1.0, False, 0.8, 1.0, None, (0.0, 0.1, 0.2)),
    "minivit_deit": (300, 5, 1024, 1e-3, 1e-5, 1e-6, 0.05, 0.0, 1.0, False, 0.8, 1.0, None, (0.0, 0.0, 0.1)),
    "minivit_swin_384": (30, 5, 256, 1e-5, 1e-7, 1e-8, 1e-8, 0.0, 1.0, False, 0.8, 1.0, 384, (0.0, 0.1, 0.2)),
    "minivit_deit_384": (30, 5, 256, 2.5e-6, 2.5e-8, 2.5e-9, 1e-8, 0.0, 1.0, False, 0.8, 1.0, 384, (0.0, 0.0, 0.1)),
    "digits": (4, 1, 64, 5e-4, 5e-6, 5e-6, 0.05, 0.0, 1.0, False, 0.0, 0.0, None, (0.0, 0.0, 0.0)),
}
# Losses: against the teacher, joint, weights of the harmonic mean; views; whether labels are read.
LOSSES = dict.fromkeys(EFFECTIVE, ("cross_entropy", "none", (13.0, 1.0), "tinyvit", False))
LOSSES |= dict.fromkeys(
    ("tinyvit_21k_to_1k", "tinyvit_1k_scratch", "tinyvit_384", "tinyvit_512"),
    ("none", "none", (13.0, 1.0), "tinyvit", True),
)
LOSSES["swin_framework"] = ("mse", "harmonic", (13.0, 1.0), "crop_flip", True)


# The three sizes whose stochastic depth the table gives.
SIZES = dict.fromkeys(EFFECTIVE, ("tinyvit_5m", "tinyvit_11m", "tinyvit_21m"))
SIZES |= dict.fromkeys(("minivit_swin", "minivit_swin_384"), ("mini_swin_t", "mini_swin_s", "mini_swin_b"))
SIZES |= dict.fromkeys(("minivit_deit", "minivit_deit_384"), ("mini_deit_ti", "mini_deit_s", "mini_deit_b"))


def test_the_tables_hold_every_recipe():
    assert list(EFFECTIVE) and set(EFFECTIVE) == set(LOSSES) == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_effective_values(name):
    recipe = RECIPES[name]()
    rates = recipe.learning_rates(recipe.batch_size)
    drop_path = tuple(map(recipe.drop_path_of, SIZES[name]))
    values = (
        recipe.epochs, recipe.warmup_epochs, recipe.batch_size, rates.peak, rates.minimum, rates.warmup_start,
        recipe.weight_decay, recipe.label_smoothing, recipe.layer_decay, recipe.bn_eval, recipe.mixup, recipe.cutmix,
        recipe.size, drop_path,
    )  # fmt: skip
    numbers = [(one, other) for one, other in zip(values, EFFECTIVE[name], strict=True) if isinstance(one, float)]
    assert [one for one, _ in numbers] == pytest.approx([other for _, other in numbers], rel=1e-12)
    others = [(one, other) for one, other in zip(values, EFFECTIVE[name], strict=True) if not isinstance(one, float)]
    assert [one for one, _ in others] == [other for _, other in others]
    losses = (recipe.distillation, recipe.joint, recipe.harmonic_weights, recipe.view, recipe.uses_labels)
    assert losses == LOSSES[name]
    common = (recipe.betas, recipe.eps, recipe.temperature, recipe.alpha, recipe.ema_decay)
    assert common == ((0.9, 0.999), 1e-8, 1.0, (0.0, 0.0), None)
    assert recipe.clip_grad == (None if name.startswith("minivit_deit") else 5.0)


def documented(recipe: Recipe) -> str:
    """The recipe's line in the table of docs/training.md."""

    def number(value: float) -> str:
        return f"{value:g}".replace("e-0", "e-")

    losses = {"none": "labels", "cross_entropy": "soft targets", "mse": "MSE of logits"}
    weights = ":".join(map(number, recipe.harmonic_weights))
    rates = recipe.learning_rates(recipe.batch_size)
    cells = [
        f"`{recipe.name}`",
        losses[recipe.distillation] + f", labels in a harmonic mean {weights}" * (recipe.joint == "harmonic"),
        f"{recipe.epochs} / {number(recipe.warmup_epochs)}",
        str(recipe.batch_size),
        " / ".join(map(number, (rates.peak, rates.minimum, rates.warmup_start))),
        number(recipe.weight_decay),
        " / ".join(number(recipe.drop_path_of(size)) for size in SIZES[recipe.name]),
        number(recipe.label_smoothing),
        f"{number(recipe.mixup)} / {number(recipe.cutmix)}",
        number(recipe.layer_decay),
        "eval" if recipe.bn_eval else "train",
        str(recipe.size or "-"),
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)
def test_the_table_of_the_document(make):
    document = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    assert documented(make()) in document.splitlines()


def test_distilling_on_1k_is_scratch_without_what_only_labels_need():
    changed = {"name", "label_smoothing", "mixup", "cutmix", "distillation"}
    ours, published = tinyvit_1k_distill().to_dict(), tinyvit_1k_scratch().to_dict()
    assert {field for field in ours if ours[field] != published[field]} == changed


@pytest.mark.parametrize(
    ("name", "size", "crop"),
    [("tiny_vit_21m_224", 224, 0.875), ("tiny_vit_21m_224", 192, 0.875), ("tiny_vit_21m_224", 32, 1.0),
     ("tiny_vit_21m_384", 384, 1.0), ("tiny_vit_21m_512", 512, 1.0), ("test_vit", 224, 0.95)],
)
def test_the_crop_at_evaluation(name, size, crop):
    """TinyViT's is the published one; other models' are timm's; small images are never cropped."""
    small = {"depths": (1, 1, 1, 1)} if name.startswith("tiny") else {}
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, num_classes=2, **small)
    assert own_preprocessing(model, size).crop_pct == crop


def test_every_field_but_the_name_is_an_option():
    options = {field.name for field in fields(TrainConfig)}
    assert {field.name for field in fields(Recipe)} - options == {"name"}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"epochs": "three"}, "epochs must be a whole number, got 'three'"),
        ({"epochs": 2.0}, "epochs must be a whole number, got 2.0"),
        ({"bn_eval": 1}, "bn_eval must be true or false, got 1"),
        ({"clip_grad": "none"}, "clip_grad must be a number, got 'none'"),
        ({"alpha": 0.25}, "alpha must be a list of 2 numbers, got 0.25"),
        ({"betas": [0.9]}, r"betas must be a list of 2 numbers, got \[0.9\]"),
        ({"drop_path": 0.1}, "drop_path must map prefixes of names to rates, got 0.1"),
        ({"drop_path": {"any": "much"}}, "drop_path must be a list, got"),
        ({"view": 1}, "view must be text, got 1"),
    ],
)
def test_plain_values_of_other_types_are_refused(plain, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_dict(digits().to_dict() | plain)


def test_plain_values_that_are_absent():
    assert Recipe.from_dict({"name": "x", "epochs": 1, "batch_size": 2, "base_lr": 1}).weight_decay == 0.05
    with pytest.raises(ValueError, match="lacks epochs, base_lr: give all of its fields, or the name"):
        Recipe.from_dict({"name": "digits", "batch_size": 2})


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
    with pytest.raises(ValueError, match=r"no recipe 'imagenet'.*tinyvit_21k_distill, .*, digits"):
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
        ("size", 0, "size must be a whole number"),
        ("distillation", "cosine", "distillation must be one of cross_entropy, mse, kl, none, got 'cosine'"),
        ("joint", "sum", "joint must be one of none, alpha, ratio, harmonic, got 'sum'"),
        ("temperature", 0.0, "temperature must be above 0"),
        ("temperature", 2.0, r"temperature \(2\) has a meaning with distillation kl only"),
        ("alpha", (-0.1, 0.0), r"alpha must lie in \[0, 1\]"),
        ("alpha", (0.0, 1.1), r"alpha must lie in \[0, 1\]"),
        ("alpha", (0.0, 0.5), r"alpha \(0:0.5\) has a meaning with joint alpha only, and joint is none"),
        ("harmonic_weights", (5.0, 0.0), "harmonic_weights must be above 0"),
        ("betas", (-1.0, 0.5), r"betas must lie in \[0, 1\), got -1.0"),
        ("drop_path", (("", -0.1), ("swin", 0.2)), r"drop_path must lie in \[0, 1\), got -0.1"),
        ("alpha", (0.0, math.nan), "alpha must be finite, got nan"),
        ("harmonic_weights", (1.0, math.nan), "harmonic_weights must be finite, got nan"),
        ("temperature", math.inf, "temperature must be finite, got inf"),
        ("base_lr", math.inf, "base_lr must be finite, got inf"),
        ("epochs", math.inf, "epochs must be finite, got inf"),
        ("harmonic_weights", (5.0, 1.0), r"harmonic_weights \(5:1\) has a meaning with joint harmonic only"),
    ],
)
def test_values_out_of_range(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(digits(), **{field: value})


def test_labels_alone_leave_nothing_to_join():
    with pytest.raises(ValueError, match="joint ratio joins two losses, and distillation none leaves one"):
        replace(digits(), distillation="none", joint="ratio")


@pytest.mark.parametrize(
    ("values", "uses_labels"),
    [
        ({}, False),
        ({"distillation": "kl", "temperature": 4.0}, False),
        ({"distillation": "none"}, True),
        ({"joint": "alpha"}, False),
        ({"joint": "alpha", "alpha": (0.0, 0.5)}, True),
        ({"joint": "ratio"}, True),
        ({"joint": "harmonic"}, True),
    ],
)
def test_which_losses_read_labels(values, uses_labels):
    assert replace(digits(), **values).uses_labels == uses_labels


def test_what_an_override_leaves_without_a_meaning_goes_back_to_its_default():
    tempered = replace(digits(), distillation="kl", temperature=4.0)
    assert select_recipe(tempered, distillation="mse").temperature == 1.0
    assert select_recipe(tempered, distillation="kl").temperature == 4.0
    weighted = replace(swin_framework(), harmonic_weights=(5.0, 1.0))
    assert select_recipe(weighted, joint="alpha", alpha=(0.25, 0.25)).harmonic_weights == (13.0, 1.0)
    assert select_recipe(weighted, distillation="none") == replace(
        weighted, distillation="none", joint="none", harmonic_weights=(13.0, 1.0)
    )
    with pytest.raises(ValueError, match="joint ratio joins two losses"):
        select_recipe(weighted, distillation="none", joint="ratio")
