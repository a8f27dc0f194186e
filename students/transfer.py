"""Weights of a teacher for a student of its family: where the models correspond, what is copied, what is not.

The Swin compression framework (algorithm 1) makes a student of a teacher's first blocks T[:p1] and last blocks T[p2:],
copies the weights of T[:p1] and leaves the rest at random. p1, the cut, counts blocks over all stages. Where both
architectures are the same the whole model is taken over instead: fine-tuning on other classes, at another resolution.

A downsampling layer belongs to the block after it, as in timm, where a stage begins with it: the patch merging before
the first block that is not copied is not copied either. Masks of shifted windows and indices of relative positions
follow from the resolution and are never copied.

Works on state dicts by timm's names, and on reference layouts that ``swin``, ``tinyvit`` and ``minivit`` rename. Blocks
are told by their names: ``layers.i.blocks.j`` (Swin), ``stages.i.blocks.j`` (TinyViT), ``blocks.j`` (ViT, DeiT). A
MiniViT takes weights of a model with less sharing, too; what it leaves and adds is decided in ``minivit.starting``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from students import swin, tinyvit
from students.heads import Head, classifiers, fit_head
from students.minivit import checkpoints
from students.minivit.starting import start_from
from students.resizing import resized
from students.transfer_map import COPIED, INITIALISED, RESIZED, Part, TransferMap

__all__ = [
    "Part",
    "TransferMap",
    "arguments_in",
    "block_names",
    "by_timm_names",
    "freeze",
    "frozen_modules",
    "transfer",
]

State = Mapping[str, Tensor]

_BLOCK = re.compile(r"(?:(?:layers|stages)\.(\d+)\.)?blocks\.(\d+)(?=\.)")
_STAGE_PART = re.compile(r"(?:layers|stages)\.\d+\.[^.]+(?=\.)")
_COMPUTED = ("relative_position_index", "attn_mask", "attention_bias_idxs")


def by_timm_names(state: State) -> dict[str, Tensor]:
    """The tensors of a checkpoint under timm's names. Values are not touched."""
    plain = dict(state)
    for layout in (checkpoints, swin, tinyvit):
        if layout.is_reference_checkpoint(plain):
            plain = layout.from_reference(plain)
    return plain


def arguments_in(state: State, model: str) -> dict[str, Any]:
    """Arguments without which a model of this name is not the one of a reference checkpoint, by the file's layout."""
    known = model.startswith("mini_") and checkpoints.is_reference_checkpoint(state)
    return dict(checkpoints.arguments_of(state)) if known else {}


def block_names(names: Iterable[str]) -> list[str]:
    """The blocks of a model, first to last, by the names of its tensors: ``["layers.0.blocks.0", ...]``."""
    found = {match[0]: match for match in map(_BLOCK.match, names) if match}
    return sorted(found, key=lambda block: (int(found[block][1] or 0), int(found[block][2])))


def transfer(
    teacher_state: State,
    student: nn.Module,
    *,
    cut: int | None = None,
    teacher_classes: Sequence[str] | None = None,
    student_classes: Sequence[str] | None = None,
) -> tuple[dict[str, Tensor], TransferMap]:
    """A student's weights with a teacher's in all parts that correspond. Neither argument is changed.

    Args:
        teacher_state: the teacher's state dict, by timm's names or in a reference layout.
        student: the student with its initial weights.
        cut: how many leading blocks are copied, with the stem and the downsampling layers between them; None copies
            as many as lie at the same place in both (6 from Swin-T to Swin-N, 8 to Swin-M), and the whole model where
            both have the same blocks.
        teacher_classes: names of the teacher's classes, where known.
        student_classes: names of the student's classes, where known.

    Returns:
        A state dict for the student, and what became of each tensor.

    Raises:
        ValueError: another family, another width, or a cut that does not exist.
    """
    theirs = {name: tensor for name, tensor in by_timm_names(teacher_state).items() if not name.endswith(_COMPUTED)}
    own = student.state_dict()
    start = start_from(theirs, student)
    theirs = theirs if start is None else start.state
    added = {} if start is None else start.own
    their_blocks, own_blocks = block_names(theirs), block_names(own)
    heads = classifiers(student, own)
    whole = cut is None and their_blocks == own_blocks
    cut = len(own_blocks) if whole else _checked_cut(cut, their_blocks, own_blocks)
    positions = _positions(own, own_blocks)
    in_heads = tuple(f"{head}." for head in heads)
    body = [name for name in own if not name.startswith(in_heads) and not name.endswith(_COMPUTED)]
    copied = [name for name in body if whole or positions[name] < cut]
    _require_same_names(theirs, [name for name in copied if name not in added], heads, whole=whole)

    state = dict(own)
    parts = _Parts(student, heads)
    same = "the same architecture" if start is None else "the same place"
    for name in body:
        if name not in copied:
            parts.add(name, INITIALISED, "after the cut: random initial weights")
            continue
        if name in added:
            state[name] = added[name].to(own[name].dtype)
            parts.add(name, INITIALISED, "a transformation that the weights have not")
            continue
        state[name] = resized(name, theirs[name], own[name], student).to(own[name].dtype)
        if theirs[name].shape == own[name].shape:
            parts.add(name, COPIED, same if whole else "before the cut")
        else:
            was, now = (list(tensor.shape) for tensor in (theirs[name], own[name]))
            parts.add(name, RESIZED, f"to this resolution, {name.rpartition('.')[2]} {was} to {now}")
    for head in heads:
        fitted = Head(kind=INITIALISED, reason="after the cut: random initial weights", tensors={})
        if whole:
            fitted = fit_head(theirs, own, head, teacher_classes=teacher_classes, student_classes=student_classes)
        state.update(fitted.tensors)
        for name in (name for name in own if name.startswith(f"{head}.")):
            parts.add(name, fitted.kind, fitted.reason)
    return state, TransferMap(
        cut=None if whole else cut,
        teacher_blocks=len(their_blocks),
        student_blocks=len(own_blocks),
        merging=None if whole else _merging(own_blocks, positions, cut),
        sharing=() if start is None else start.words,
        masks=_masks(teacher_state, student),
        parts=parts.in_order(own),
    )


def freeze(student: nn.Module, taken: TransferMap) -> None:
    """Take the gradient from all that came from the teacher as it was, or resized; a mapped classifier is trained.

    Raises:
        ValueError: nothing would be left to train.
    """
    frozen = taken.tensors(COPIED, RESIZED)
    if all(name in frozen for name, _ in student.named_parameters()):
        raise ValueError("All of the student's weights are copied, so nothing would be left to train: do not freeze.")
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name not in frozen)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest modules with parameters none of which has a gradient.

    They belong into eval mode while the rest trains: then BatchNorm keeps its statistics and no path is dropped.
    """
    parameters = list(model.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return [model]
    return [found for child in model.children() for found in frozen_modules(child)] if parameters else []


def _checked_cut(cut: int | None, their_blocks: Sequence[str], own_blocks: Sequence[str]) -> int:
    shared = 0
    while shared < min(len(their_blocks), len(own_blocks)) and their_blocks[shared] == own_blocks[shared]:
        shared += 1
    if not own_blocks:
        raise ValueError("The student has no blocks to cut between: take over a whole model of the same architecture.")
    if shared == 0:
        theirs = f"begin with {their_blocks[0]}" if their_blocks else "have no blocks"
        raise ValueError(
            f"The weights are of another family: they {theirs}, the student begins with {own_blocks[0]}; take weights "
            "of its own family."
        )
    if cut is None:
        return shared
    if not 1 <= cut <= shared:
        raise ValueError(
            f"The cut must lie between 1 and {shared}, got {cut}: the first {shared} of the teacher's "
            f"{len(their_blocks)} blocks lie where the student has them, too."
        )
    return cut


def _positions(names: Iterable[str], blocks: Sequence[str]) -> dict[str, int]:
    """The block that each tensor belongs to: its own, else the next in the model's order; ``len(blocks)`` after all."""
    number = {block: i for i, block in enumerate(blocks)}
    positions: dict[str, int] = {}
    following = 0
    for name in names:
        if match := _BLOCK.match(name):
            following = number[match[0]] + 1
        positions[name] = number[match[0]] if match else following
    return positions


def _module(name: str, heads: Sequence[str]) -> str:
    """The module that stands for a tensor in the map."""
    if match := _BLOCK.match(name) or _STAGE_PART.match(name):
        return match[0]
    for head in heads:
        if name.startswith(f"{head}."):
            return head
    first, _, rest = name.partition(".")
    beside_head = any(head.startswith(f"{first}.") for head in heads)
    return f"{first}.{rest.partition('.')[0]}" if beside_head else first


def _require_same_names(theirs: State, copied: Sequence[str], heads: Sequence[str], *, whole: bool) -> None:
    """Refuse parts that are built of other tensors."""
    wanted = set(copied)
    modules = {_module(name, heads) for name in copied}
    modules_of = {name: _module(name, heads) for name in theirs}
    present = {name for name, module in modules_of.items() if module in modules or (whole and module not in heads)}
    if missing := sorted(wanted - present):
        raise ValueError(f"The weights are of another family: they have no {_shown(missing)}, as the student has.")
    if unknown := sorted(present - wanted):
        raise ValueError(f"The weights are of another family: they have {_shown(unknown)}, which the student has not.")


def _shown(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _masks(teacher_state: State, student: nn.Module) -> str | None:
    others = [module for module in student.modules() if getattr(module, "reference_mask", True) is False]
    if not others or "reference_mask" not in arguments_in(teacher_state, "mini_swin"):
        return None
    return (
        "The weights were trained with the masks of shifted windows in all blocks: make the student with "
        "reference_mask=true to compute as they did."
    )


def _merging(blocks: Sequence[str], positions: Mapping[str, int], cut: int) -> str | None:
    last = blocks[-1].partition(".blocks.")[0] if blocks else ""
    name = f"{last}.downsample"
    block = next((at for tensor, at in positions.items() if tensor.startswith(f"{name}.")), None)
    if block is None:
        return None
    side, fate = ("before", "copied") if block < cut else ("after", "initialised")
    return (
        f"The patch merging before the last stage, {name}, belongs to the block after it (block {block + 1} of "
        f"{len(blocks)}): it lies {side} the cut and is {fate}."
    )


class _Parts:
    """Collects what became of each tensor, and groups it by module."""

    def __init__(self, student: nn.Module, heads: Sequence[str]) -> None:
        self._sizes = {name: parameter.numel() for name, parameter in student.named_parameters()}
        self._heads = heads
        self._fates: dict[str, tuple[str, str]] = {}

    def add(self, name: str, kind: str, reason: str) -> None:
        """A tensor met this fate for this reason."""
        self._fates[name] = (kind, reason)

    def in_order(self, names: Iterable[str]) -> tuple[Part, ...]:
        """The parts, in the order of these names of tensors."""
        groups: dict[tuple[str, str, str], list[str]] = {}
        for name in names:
            if name in self._fates:  # what is computed has none
                groups.setdefault((_module(name, self._heads), *self._fates[name]), []).append(name)
        return tuple(
            Part(
                module=module,
                kind=kind,
                reason=reason,
                tensors=tuple(tensors),
                parameters=sum(self._sizes.get(name, 0) for name in tensors),
            )
            for (module, kind, reason), tensors in groups.items()
        )
