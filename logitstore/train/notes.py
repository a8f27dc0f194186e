"""What of a recipe does not fit the run it is used in: said, not refused, since the run may be meant so."""

from __future__ import annotations

from torch import nn

from logitstore.views import ViewSpec
from students.recipes import Recipe
from students.tinyvit import fitted_windows, published_windows


def misfits(
    recipe: Recipe, student: str, model: nn.Module, view: ViewSpec, *, size: int, stored: bool, initialised: bool
) -> tuple[str, ...]:
    """Notes for the user, a sentence each.

    Args:
        recipe: the effective recipe.
        student: timm's name of the student.
        model: the student.
        view: the spec of the run's views, a store's as it was dumped.
        size: side of the views in pixels.
        stored: views come from a store.
        initialised: the whole run starts from given weights, without a cut.
    """
    notes: list[str] = []
    mixing = recipe.mixup, recipe.cutmix
    mixed_so = mixing == (view.mixup, view.cutmix)
    if any(mixing) and stored and not mixed_so:
        notes.append(
            f"{_mixing(*mixing)} of the recipe have no effect with a store, whose views are mixed as they were dumped: "
            "dump with a view spec that mixes."
        )
    elif any(mixing) and not mixed_so:
        notes.append(
            f"{_mixing(*mixing)} of the recipe have no effect: the view spec has its own, "
            f"{_mixing(view.mixup, view.cutmix)}."
        )
    if recipe.label_smoothing and not recipe.uses_labels:
        notes.append(
            f"Label smoothing ({recipe.label_smoothing:g}) of the recipe has no effect on a store's targets: it is for "
            "hard labels."
        )
    if recipe.joint == "alpha" and not recipe.uses_labels:
        notes.append("Labels have no part in the loss, for alpha is 0: give --alpha for the weight of their loss.")
    if recipe.bn_eval and not initialised and any(_is_batchnorm(module) for module in model.modules()):
        notes.append(
            "BatchNorm stays in eval mode although the run starts from random weights, at least in part, so statistics "
            "are never learnt there: take over a whole model with --init-from, or give --no-bn-eval."
        )
    if recipe.size is not None and (unmet := _unmet_size(recipe.size, student, size)):
        notes.append(f"The recipe {recipe.name} asks for {recipe.size} px; {'; '.join(unmet)}.")
    return tuple(notes)


def _unmet_size(wanted: int, student: str, size: int) -> list[str]:
    """What a run at ``size`` pixels has otherwise than a recipe that asks for ``wanted``."""
    unmet = [] if size == wanted else [f"the views have {size} px"]
    own, fitted = published_windows(student), fitted_windows(student, size)
    if own is not None and own[0] != size:
        windows = f"the windows of {own[0]} px, {'/'.join(map(str, own[1]))}"
        kept = "and keeps them" if fitted is None else f"cut to its maps: {'/'.join(map(str, fitted[1:]))}"
        unmet.append(f"{student} has {windows}, {kept}")
    return unmet


def _mixing(mixup: float, cutmix: float) -> str:
    return f"Mixup ({mixup:g}) and CutMix ({cutmix:g})"


def _is_batchnorm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
