"""Which layer of a student learns from which of its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from logitstore.errors import InputError
from logitstore.online.layers import Layer

Match = tuple[tuple[int, int], ...]
"""Pairs of layers: the student's, the teacher's; counted over all stages, from 0."""

_REFERENCE: dict[tuple[tuple[int, ...], tuple[int, ...]], Match] = {
    ((2, 2, 6, 2), (2, 2, 18, 2)): ((11, 23), (9, 21), (7, 15), (5, 9), (3, 3), (1, 1)),
    ((2, 2, 18, 2), (2, 2, 18, 2)): ((23, 23), (21, 21), (15, 15), (9, 9), (3, 3), (1, 1)),
}
"""The layers that MiniViT's reference matches, by the layers in each stage of student and teacher."""


def parse_match(texts: Sequence[str]) -> Match:
    """Pairs of layers, each written ``student:teacher``.

    Raises:
        InputError: a text is no such pair, or stands there twice.
    """
    pairs: list[tuple[int, int]] = []
    for text in texts:
        sides = text.split(":")
        if len(sides) != 2 or not all(side.strip().isdecimal() for side in sides):
            raise InputError(f"--match takes pairs of layers, student:teacher, as 11:23,9:21; got {text}.")
        pair = int(sides[0]), int(sides[1])
        if pair in pairs:
            raise InputError(f"--match names the pair {text} twice: leave one out.")
        pairs.append(pair)
    return tuple(pairs)


def written(match: Match) -> tuple[str, ...]:
    """Pairs as ``parse_match`` takes them."""
    return tuple(f"{own}:{theirs}" for own, theirs in match)


def choose_match(student: Sequence[Layer], teacher: Sequence[Layer]) -> Match:
    """The reference's pairs where it has such models; of equally many layers every second one, from the last.

    Args:
        student: all layers of the student.
        teacher: all layers of the teacher.

    Raises:
        InputError: neither says what to match.
    """
    depths = _depths(student), _depths(teacher)
    if depths in _REFERENCE:
        return _REFERENCE[depths]
    if len(student) == len(teacher):
        return tuple((number, number) for number in range(len(student) - 1, -1, -2))
    example = f"--match {','.join(written(_last_of_stages(*depths)))}"
    raise InputError(
        f"The student has {len(student)} layers and the teacher {len(teacher)}, counted from 0: say which learns from "
        f"which, as in {example}."
    )


def _depths(layers: Sequence[Layer]) -> tuple[int, ...]:
    """The number of layers of each stage."""
    return tuple(len(list(stage)) for _, stage in groupby(layers, lambda layer: layer.stage))


def _last_of_stages(student: tuple[int, ...], teacher: tuple[int, ...]) -> Match:
    """The last layers of the last stages, as far as both have such."""
    common = min(len(student), len(teacher))
    ends = ([sum(depths[:stage]) - 1 for stage in range(1, len(depths) + 1)][-common:] for depths in (student, teacher))
    return tuple(zip(*ends, strict=True))[::-1]


def require_comparable(student: Sequence[Layer], teacher: Sequence[Layer], match: Match, *, attention: bool) -> None:
    """Refuse pairs whose tokens are not the same parts of the image.

    Args:
        student: all layers of the student.
        teacher: all layers of the teacher.
        match: pairs of them.
        attention: whether their attention is to be compared, not hidden states alone.

    Raises:
        InputError: a layer does not exist, or two that are matched have other tokens or other windows.
    """
    for own, theirs in match:
        for number, layers, whose in ((own, student, "student"), (theirs, teacher, "teacher")):
            if number >= len(layers):
                last = len(layers) - 1
                raise InputError(f"--match {own}:{theirs} names layer {number} of the {whose}, which has 0 to {last}.")
        one, other = student[own], teacher[theirs]
        if one.map_tokens != other.map_tokens:
            raise InputError(
                f"The map of layer {own} of the student has {one.map_tokens} tokens, that of layer {theirs} of the "
                f"teacher {other.map_tokens}, so they cannot be compared: match layers of one map with --match, or "
                "take models with patches of one size."
            )
        if attention and _windows(one) != _windows(other):
            raise InputError(
                f"The windows of layer {own} of the student ({_describe(one)}) are not those of layer {theirs} of the "
                f"teacher ({_describe(other)}), so their attention cannot be compared: match others with --match, or "
                "compare hidden states alone with --attention-weight 0."
            )


def _windows(layer: Layer) -> object:
    return layer.windows, layer.tokens - layer.prefix, layer.window


def _describe(layer: Layer) -> str:
    if layer.window is None:
        return f"none, {layer.map_tokens} tokens"
    (height, width), (down, right) = layer.window
    return f"{layer.windows} of {height}x{width}, shifted by {down} and {right}"
