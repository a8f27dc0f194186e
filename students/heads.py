"""A teacher's classifier for a student with other classes: rows found by class name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from students.transfer_map import COPIED, INITIALISED, MAPPED

_USUAL_NAMES = ("head.fc", "head", "fc", "classifier")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What becomes of a classifier."""

    kind: str
    """``copied``, ``mapped`` or ``initialised``."""
    reason: str
    """Why."""
    tensors: dict[str, Tensor]
    """The new weight and bias, under the student's names; empty where it stays as initialised."""


def classifiers(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of a model's classifiers, as timm or usage has them; two in a distilled DeiT, none in a model without."""
    return classifiers_in(state, (getattr(model, "pretrained_cfg", None) or {}).get("classifier"))


def classifiers_in(state: Mapping[str, Tensor], declared: str | Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classifiers in a state dict: those of timm's declared ones that are there, else a usual one."""
    names = (declared,) if isinstance(declared, str) else tuple(declared or ())
    present = tuple(name for name in names if f"{name}.weight" in state)
    return present or tuple(name for name in _USUAL_NAMES if f"{name}.weight" in state)[:1]


def fit_head(
    theirs: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    name: str,
    *,
    teacher_classes: Sequence[str] | None,
    student_classes: Sequence[str] | None,
) -> Head:
    """A teacher's classifier over the student's classes.

    Rows are found by class name; a class that the teacher does not know takes the mean of all its rows, weight and
    bias, as TinyViT's fine-tuning from ImageNet-21k to 1k does. Without names on both sides rows count as the same
    classes where there are as many.

    Args:
        theirs: the teacher's state dict.
        own: the student's.
        name: of the classifier in both.
        teacher_classes: names of the teacher's classes, where known.
        student_classes: names of the student's classes, where known.

    Raises:
        ValueError: as many names as classes are needed; the classifiers are of different width.
    """
    if f"{name}.weight" not in theirs:
        return Head(kind=INITIALISED, reason="the weights have no classifier", tensors={})
    keys = [key for key in own if key.startswith(f"{name}.")]
    _check(theirs, own, keys)
    rows, wanted = len(theirs[f"{name}.weight"]), len(own[f"{name}.weight"])
    for side, names, count in (("teacher", teacher_classes, rows), ("student", student_classes, wanted)):
        if names is not None and len(names) != count:
            raise ValueError(f"There are {len(names)} class names for the {count} classes of the {side}.")
    if teacher_classes is None or student_classes is None:
        if rows != wanted:
            reason = f"{rows:,} classes became {wanted:,}, and class names are not known on both sides"
            return Head(kind=INITIALISED, reason=reason, tensors={})
        copies = {key: theirs[key].to(own[key].dtype) for key in keys}
        return Head(kind=COPIED, reason="as many classes, not compared by name", tensors=copies)
    if tuple(teacher_classes) == tuple(student_classes):
        copies = {key: theirs[key].to(own[key].dtype) for key in keys}
        return Head(kind=COPIED, reason="the same classes", tensors=copies)
    return _by_name(theirs, own, keys, teacher_classes, student_classes)


def _by_name(
    theirs: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    keys: Sequence[str],
    teacher_classes: Sequence[str],
    student_classes: Sequence[str],
) -> Head:
    row_of = {label: row for row, label in reversed(list(enumerate(teacher_classes)))}
    unmapped = [label for label in student_classes if label not in row_of]
    if len(unmapped) == len(student_classes):
        reason = f"none of its {len(student_classes):,} classes is one of the teacher's {len(teacher_classes):,}"
        return Head(kind=INITIALISED, reason=reason, tensors={})
    mean_row = len(teacher_classes)
    rows = torch.tensor([row_of.get(label, mean_row) for label in student_classes])
    tensors = {}
    for key in keys:
        with_mean = torch.cat([theirs[key].float(), theirs[key].float().mean(0, keepdim=True)])
        tensors[key] = with_mean[rows].to(own[key].dtype)
    reason = f"{len(student_classes) - len(unmapped):,} rows by class name from {len(teacher_classes):,}"
    if unmapped:
        shown = ", ".join(unmapped[:3]) + (", ..." if len(unmapped) > 3 else "")
        reason += f"; {len(unmapped):,} without one take the mean of all rows: {shown}"
    return Head(kind=MAPPED, reason=reason, tensors=tensors)


def _check(theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], keys: Sequence[str]) -> None:
    for key in keys:
        if key not in theirs or theirs[key].shape[1:] != own[key].shape[1:]:
            was = list(theirs[key].shape) if key in theirs else "nothing"
            raise ValueError(f"The classifiers differ: {key} is {was} in the weights, {list(own[key].shape)} here.")
