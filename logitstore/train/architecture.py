"""The student of a run before its first step, and its architecture where that is another than its name says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from logitstore.errors import InputError
from logitstore.models import build_model, model_name
from students import build_arguments, parse_arguments
from students.names import Argument

if TYPE_CHECKING:
    from logitstore.train.config import TrainConfig


def make_student(config: TrainConfig, *, num_classes: int, size: int) -> nn.Module:
    """The student that a configuration asks for, with random weights that depend on its seed alone.

    Args:
        config: which student.
        num_classes: C.
        size: side of the views in pixels.

    Raises:
        ModelError: no such model, or it cannot be made this way.
    """
    return build_model(
        config.student,
        num_classes=num_classes,
        size=size,
        drop_path=config.effective_recipe().drop_path_of(model_name(config.student)),
        seed=config.seed,
        model_args=build_arguments(config.student, size, config.architecture),
    )


def read_architecture(student_args: Sequence[str] | None, share: int | str | None) -> dict[str, Argument]:
    """Arguments of a student's architecture by name, as ``students.build_arguments`` takes them.

    Args:
        student_args: as ``students.parse_arguments`` takes them.
        share: how many consecutive blocks share their weights, or ``all``, which is 0.

    Raises:
        InputError: one of them is no argument, or is there twice.
    """
    try:
        given = parse_arguments(student_args or ())
    except ValueError as exc:
        raise InputError(f"--student-arg: {exc}") from exc
    if share is None:
        return given
    if "share" in given:
        raise InputError("--share and --student-arg share say the same: leave one out.")
    if share != "all" and not (str(share).isdecimal() and int(share) > 0):
        raise InputError(f"--share must be a number of blocks, at least 1, or all; got {share}.")
    return {**given, "share": 0 if share == "all" else int(share)}
