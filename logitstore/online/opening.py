"""From what is asked for to a teacher beside the student, checked before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from logitstore.device import require_runs
from logitstore.errors import InputError, ModelError
from logitstore.models import build_model
from logitstore.online.layers import Layer, find_layers, require_attention
from logitstore.online.matching import choose_match, require_comparable
from logitstore.online.options import OnlineOptions
from logitstore.online.teacher import OnlineTeacher, Pair
from logitstore.teacher import Teacher, is_custom, load_teacher

if TYPE_CHECKING:
    from logitstore.images import ImageSet

_OTHER_TEACHER = (
    "of another teacher, a convolutional one say, the logits are all there is to learn from, and these the store "
    "serves; leave out --teacher-online."
)
_OTHER_STUDENT = "train a student that is one of these, or leave out --teacher-online."


def open_online(
    options: OnlineOptions,
    student: nn.Module,
    *,
    name: str,
    images: ImageSet,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> OnlineTeacher:
    """Load a teacher, and match its layers with the student's.

    Args:
        options: what is asked for.
        student: the student, on any device.
        name: what to call it.
        images: what is trained on; decides which earlier ``finetune`` counts.
        size: side of the views in pixels.
        device: where the teacher runs.
        dtype: its precision.

    Raises:
        ModelError: there is no such teacher, or no weights of it.
        InputError: the two cannot be compared.
    """
    if not isinstance(getattr(student, "patch_drop", nn.Identity()), nn.Identity):
        raise InputError(
            f"{name} drops patches in training, so its tokens are not those of its teacher: leave out "
            "--student-arg patch_drop_rate, or --teacher-online."
        )
    own = find_layers(student, lambda: require_runs(student, size, name=name), name=name, remedy=_OTHER_STUDENT)
    _require_kind(options.teacher, size)
    teacher = load_teacher(
        options.teacher, checkpoint=options.checkpoint, images=images, size=size, device=device, dtype=dtype
    )
    theirs = _layers_of(teacher)
    match = options.pairs or choose_match(own, theirs)
    require_comparable(own, theirs, match, attention=options.attention_weight > 0)
    return OnlineTeacher(
        teacher,
        student,
        [Pair(student=own[one], teacher=theirs[other]) for one, other in match],
        attention_weight=options.attention_weight,
        hidden_weight=options.hidden_weight,
    )


def _require_kind(name: str, size: int) -> None:
    """Refuse a teacher by its architecture, before its weights are looked for: they may not be there."""
    if is_custom(name):
        return
    try:
        with torch.device("meta"):
            model = build_model(name, num_classes=None, size=size)
    except ModelError:
        return  # no such model, or one that reads values while it is made: that shows when it is loaded
    require_attention(model, name=name, remedy=_OTHER_TEACHER)


def _layers_of(teacher: Teacher) -> list[Layer]:
    if not isinstance(teacher.model, nn.Module):
        raise InputError(
            f"{teacher.name} is no torch module, so nothing inside of it can be compared: {_OTHER_TEACHER}"
        )
    view = torch.zeros(1, 3, teacher.size, teacher.size, dtype=torch.uint8)
    return find_layers(teacher.model, lambda: teacher.logits(view), name=teacher.name, remedy=_OTHER_TEACHER)
