"""Training recipes: functions, named as the recipe, that return a frozen configuration.

Values come from TinyViT (Wu et al., 2022) and its published configurations, from the Swin compression framework and
from MiniViT (Zhang et al., 2022) where a recipe bears their name; what these leave open and we chose stands in the
recipe's docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from students.recipe import DEFAULTS, LearningRates, Recipe

__all__ = ["RECIPES", "LearningRates", "Recipe", "select_recipe"]

_DROP_PATH_1K = (
    ("tinyvit_5m", 0.0),
    ("tinyvit_11m", 0.1),
    ("tinyvit_21m", 0.2),
    # Published rates of Swin-T, S and B from scratch on ImageNet-1k; the smaller Swin-N and Swin-M take Swin-T's.
    ("swin", 0.2),
    ("swin_s", 0.3),
    ("swin_b", 0.5),
    ("", 0.1),
)
# On much data, and in fine-tuning; other students take the rate of the largest TinyViT.
_DROP_PATH_21K = (("tinyvit_5m", 0.0), ("tinyvit_11m", 0.0), ("", 0.1))


def tinyvit_21k_distill() -> Recipe:
    """Pre-training by distillation on ImageNet-21k: 90 epochs in batches of 4,096."""
    return Recipe(
        name="tinyvit_21k_distill",
        epochs=90,
        warmup_epochs=5,
        batch_size=4096,
        base_lr=2.5e-4,
        base_min_lr=5e-6,
        base_warmup_lr=5e-7,
        weight_decay=0.01,
        drop_path=_DROP_PATH_21K,
    )


def tinyvit_21k_to_1k() -> Recipe:
    """Fine-tuning on ImageNet-1k of what was pre-trained on ImageNet-21k, on labels.

    Early blocks learn more slowly, and BatchNorm keeps the statistics of the weights that the run starts from.
    """
    return Recipe(
        name="tinyvit_21k_to_1k",
        epochs=30,
        warmup_epochs=5,
        batch_size=1024,
        base_lr=2.5e-4,
        base_min_lr=1e-5,
        base_warmup_lr=5e-7,
        weight_decay=1e-8,
        label_smoothing=0.1,
        drop_path=_DROP_PATH_21K,
        layer_decay=0.8,
        bn_eval=True,
        distillation="none",
    )


def tinyvit_384() -> Recipe:
    """Fine-tuning at 384 px, on labels, of what was trained at 224 px. Windows of 12/24/12 belong to the model."""
    return Recipe(
        name="tinyvit_384",
        epochs=30,
        warmup_epochs=5,
        batch_size=1024,
        base_lr=2e-5,
        base_min_lr=2e-7,
        base_warmup_lr=2e-8,
        weight_decay=1e-8,
        label_smoothing=0.1,
        drop_path=_DROP_PATH_21K,
        bn_eval=True,
        distillation="none",
        size=384,
    )


def tinyvit_512() -> Recipe:
    """The same at 512 px, from what was fine-tuned at 384 px. Windows of 16/32/16 belong to the model."""
    return replace(tinyvit_384(), name="tinyvit_512", size=512)


def tinyvit_1k_scratch() -> Recipe:
    """ImageNet-1k from scratch on labels, with label smoothing, Mixup and CutMix: the strong hard-label baseline."""
    return Recipe(
        name="tinyvit_1k_scratch",
        epochs=300,
        warmup_epochs=20,
        batch_size=1024,
        base_lr=5e-4,
        base_min_lr=5e-6,
        base_warmup_lr=5e-7,
        weight_decay=0.05,
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        drop_path=_DROP_PATH_1K,
        distillation="none",
    )


def tinyvit_1k_distill() -> Recipe:
    """Distillation on ImageNet-1k size data: TinyViT's schedule from scratch, without what only hard labels need.

    The papers give no distillation from scratch on ImageNet-1k; this one is ``tinyvit_1k_scratch`` without label
    smoothing, Mixup and CutMix, which TinyViT's own distillation on ImageNet-21k leaves out too.
    """
    return replace(
        tinyvit_1k_scratch(),
        name="tinyvit_1k_distill",
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        distillation="cross_entropy",
    )


def swin_framework() -> Recipe:
    """The Swin compression framework on CIFAR-100: mean squared error of logits and hard labels in a harmonic mean.

    AdamW, its weight decay, the cosine, 5 warm-up epochs of 60, the peak rate of 2e-4 and the weights 13:1 are the
    paper's. It gives neither batch, views, stochastic depth, clipping nor where warm-up and cosine begin and end: a
    batch of 128, crop and flip, Swin's published 0.2 and 5, and 0 are our choice.
    """
    return Recipe(
        name="swin_framework",
        epochs=60,
        warmup_epochs=5,
        batch_size=128,
        base_lr=8e-4,
        weight_decay=0.01,
        drop_path=(("", 0.2),),
        distillation="mse",
        joint="harmonic",
        harmonic_weights=(13.0, 1.0),
        view="crop_flip",
    )


def minivit_swin() -> Recipe:
    """Mini-Swin on ImageNet-1k: Swin's schedule, the teacher's answers alone, 20 warm-up epochs, no labels.

    Peak rate 1e-3 at the batch of 1,024. Mixup and CutMix are those that the teacher's views are to be mixed with, so
    they belong into the view spec of the dump. Where warm-up and cosine begin and end are Swin's published 5e-7 and
    5e-6 per 512 images.
    """
    return Recipe(
        name="minivit_swin",
        epochs=300,
        warmup_epochs=20,
        batch_size=1024,
        base_lr=5e-4,
        base_min_lr=5e-6,
        base_warmup_lr=5e-7,
        weight_decay=0.05,
        mixup=0.8,
        cutmix=1.0,
        drop_path=(("mini_swin_s", 0.1), ("mini_swin_b", 0.2), ("", 0.0)),
    )


def minivit_deit() -> Recipe:
    """Mini-DeiT on ImageNet-1k: DeiT's schedule with 5 warm-up epochs and no clipping.

    The paper repeats augmentations: an epoch shows a third of the images, each in three views. Here an epoch shows
    every image once, as the store has it. Where warm-up and cosine begin and end are DeiT's published 1e-6 and 1e-5,
    which do not grow with the batch there; here they are those at 1,024 images.
    """
    return replace(
        minivit_swin(),
        name="minivit_deit",
        warmup_epochs=5,
        clip_grad=None,
        drop_path=(("mini_deit_b", 0.1), ("", 0.0)),
    )


def minivit_swin_384() -> Recipe:
    """Fine-tuning of a Mini-Swin at 384 px of what was trained at 224 px: 30 epochs, 1e-5 at a batch of 256.

    Windows of 12 belong to the model, see ``mini_swin_b_384``. The paper gives neither losses nor stochastic depth:
    the teacher's answers and those of the training at 224 px are our choice. Warm-up and cosine begin and end at the
    same shares of the peak as there.
    """
    return replace(
        minivit_swin(),
        name="minivit_swin_384",
        epochs=30,
        warmup_epochs=5,
        batch_size=256,
        base_lr=2e-5,
        base_min_lr=2e-7,
        base_warmup_lr=2e-8,
        weight_decay=1e-8,
        size=384,
    )


def minivit_deit_384() -> Recipe:
    """The same of a Mini-DeiT: 2.5e-6 at a batch of 256, without clipping."""
    return replace(
        minivit_swin_384(),
        name="minivit_deit_384",
        base_lr=5e-6,
        base_min_lr=5e-8,
        base_warmup_lr=5e-9,
        clip_grad=None,
        drop_path=minivit_deit().drop_path,
    )


def digits() -> Recipe:
    """A few epochs on 1,437 small images, for the demo and for trying things on a CPU: ours.

    The learning rate is the highest tried (2.5e-4, 5e-4, 7e-4, 1e-3 at a batch of 64) at which hard labels alone still
    train Swin-N; distilled students bear twice as much, and TinyViT-5M gains from it.
    """
    return Recipe(
        name="digits",
        epochs=4,
        warmup_epochs=1,
        batch_size=64,
        base_lr=4e-3,
        base_min_lr=4e-5,
        base_warmup_lr=4e-5,
        weight_decay=0.05,
    )


_NAMED = (
    tinyvit_21k_distill,
    tinyvit_21k_to_1k,
    tinyvit_1k_scratch,
    tinyvit_1k_distill,
    tinyvit_384,
    tinyvit_512,
    swin_framework,
    minivit_swin,
    minivit_deit,
    minivit_swin_384,
    minivit_deit_384,
    digits,
)
RECIPES: dict[str, Callable[[], Recipe]] = {maker.__name__: maker for maker in _NAMED}


def select_recipe(recipe: Recipe | str | None = None, *, data: str = "digits", **overrides: Any) -> Recipe:
    """The recipe of a run: given, named, or the default for the data set, with single fields overridden.

    Args:
        recipe: a recipe, or one of ``RECIPES``; None takes ``digits`` on the embedded data set and
            ``tinyvit_1k_distill`` elsewhere.
        data: the data set's name, read only when ``recipe`` is None.
        overrides: fields of ``Recipe``; those that are None keep the recipe's value, but the warm-up keeps its share
            of the epochs, and what only the overridden ``distillation`` or ``joint`` gave a meaning goes back to its
            default.

    Raises:
        ValueError: an unknown recipe or field, or a value out of range.
    """
    if not isinstance(recipe, Recipe):
        name = recipe or ("digits" if data == "digits" else "tinyvit_1k_distill")
        if name not in RECIPES:
            raise ValueError(f"There is no recipe {name!r}; choose one of {', '.join(RECIPES)}.")
        recipe = RECIPES[name]()
    given = {field: value for field, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - {field.name for field in fields(Recipe)})
    if unknown:
        raise ValueError(f"A recipe has no field {unknown[0]!r}.")
    if "epochs" in given and "warmup_epochs" not in given:
        given["warmup_epochs"] = recipe.warmup_epochs * given["epochs"] / recipe.epochs
    if given.get("distillation", "kl") != "kl":
        given.setdefault("temperature", 1.0)
    if given.get("distillation") == "none":
        given.setdefault("joint", "none")
    if "joint" in given:
        for joint, field in (("alpha", "alpha"), ("harmonic", "harmonic_weights")):
            if given["joint"] != joint:
                given.setdefault(field, DEFAULTS[field])
    return replace(recipe, **given)
