"""What a run file gives to a run, and what options beside it leave of that."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from logitstore.errors import InputError
from logitstore.learning.runfile import read_options
from logitstore.teacher import is_custom
from logitstore.views.spec import names_transform
from students.recipes import RECIPES, Recipe

TEACHER_LOSS = ("distillation", "temperature", "joint", "alpha", "harmonic_weights")
"""Options about the loss against the teacher."""
STORE_FLAGS = ("store", "weights", "topk", "shuffle", "teacher_online")
"""Options that have a meaning only where there is a store."""
ONLINE = ("teacher_online", "teacher_checkpoint", "attention_weight", "hidden_weight", "match")
"""Options about a teacher in memory."""


def repeated_options(
    path: str | PathLike[str], hints: Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a run file that others leave in force.

    Args:
        path: the file.
        hints: the declared type of each option.
        overrides: the options beside it.

    Raises:
        InputError: the file cannot be read, a value is of another type, or it names code that ``overrides`` do not.
    """
    options = read_options(path, hints)
    of_a_teacher = {*STORE_FLAGS, *TEACHER_LOSS, *ONLINE}
    if _leaves_labels_alone(overrides, options):
        options = {name: value for name, value in options.items() if name not in of_a_teacher}
    elif any(overrides.get(name) is not None for name in of_a_teacher):
        options.pop("hard_labels_only", None)
    _refuse_code(path, options, overrides)
    if isinstance(overrides.get("store"), str):
        options.pop("weights", None)
    if overrides.get("teacher_online") is not None:
        options.pop("teacher_checkpoint", None)  # of the one that the file names
    return options


def _refuse_code(path: str | PathLike[str], options: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Refuse to import a user's code on a file's word."""
    refusal = "code is never imported on a file's word, so name it yourself"
    recipe, teacher = options.get("recipe"), options.get("teacher_online")
    if overrides.get("view") is None:
        for view in (options.get("view"), recipe.view if isinstance(recipe, Recipe) else None):
            if view is not None and names_transform(view):
                raise InputError(f"{path} asks for views by the transform {view}; {refusal}: --view {view}")
    if teacher is not None and overrides.get("teacher_online") is None and is_custom(teacher):
        raise InputError(f"{path} asks for the teacher {teacher}; {refusal}: --teacher-online {teacher}")


def _leaves_labels_alone(overrides: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether overrides of a run file's options leave the teacher out."""
    if overrides.get("hard_labels_only") or overrides.get("distillation") == "none":
        return True
    if (overrides.get("distillation") or options.get("distillation")) is not None:
        return False
    recipe = overrides.get("recipe")
    if recipe in RECIPES:
        recipe = RECIPES[recipe]()
    return isinstance(recipe, Recipe) and recipe.distillation == "none"
