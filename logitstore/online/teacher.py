"""A teacher beside the student, on the very same views: what is compared of the two, and its losses.

Shapes: B batch, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from logitstore.learning.beside import InnerLoss, InnerLosses
from logitstore.learning.criterion import Criterion
from logitstore.losses import attention_relation_loss, hidden_relation_loss
from logitstore.online.layers import Layer, Seen, Tap
from logitstore.online.matching import Match, written
from logitstore.teacher import Teacher


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A layer of the student and the one of the teacher that it learns from."""

    student: Layer
    teacher: Layer

    @property
    def skips(self) -> tuple[int, int]:
        """Leading tokens of both that are not compared: class tokens and their like, where numbers differ."""
        alike = self.student.prefix == self.teacher.prefix
        return (0, 0) if alike else (self.student.prefix, self.teacher.prefix)

    @property
    def tokens(self) -> int:
        """Tokens of the image that are compared, and of what comes before it."""
        return self.student.map_tokens + self.student.prefix - self.skips[0]


class OnlineTeacher:
    """A teacher in memory: eval mode, no gradient, its own normalisation and precision.

    The losses are those of MiniViT (Zhang et al., 2022), eq. 10 and 11, means over the matched layers.

    Args:
        teacher: the teacher; its model must be a module.
        student: the student; the same module for as long as it is trained.
        pairs: the layers that are compared.
        attention_weight: of the loss on attention; with 0 there is none.
        hidden_weight: of the loss on hidden states, likewise.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: nn.Module,
        pairs: Sequence[Pair],
        *,
        attention_weight: float,
        hidden_weight: float,
    ) -> None:
        assert isinstance(teacher.model, nn.Module)
        self.teacher, self.pairs = teacher, tuple(pairs)
        self.attention_weight, self.hidden_weight = attention_weight, hidden_weight
        self._student_tap = Tap(student, [pair.student.block for pair in pairs])
        self._teacher_tap = Tap(teacher.model, [pair.teacher.block for pair in pairs])

    @contextmanager
    def watching(self) -> Iterator[InnerLoss]:
        """Watches one pass of the student within the context; see ``learning.beside``."""
        with self._student_tap.recording() as seen:
            yield partial(self._losses, seen)

    def _losses(self, own: dict[nn.Module, Seen], views_BCHW: Tensor, weight_B: Tensor) -> InnerLosses:
        with self._teacher_tap.recording() as theirs:
            self.teacher.logits(views_BCHW)
        layers = [(pair, own[pair.student.block], theirs[pair.teacher.block]) for pair in self.pairs]

        def mean(of_a_layer: Callable[[Pair, Seen, Seen, Tensor], Tensor]) -> Tensor:
            return torch.stack([of_a_layer(*layer, weight_B) for layer in layers]).mean()

        return InnerLosses(
            attention=mean(_attention) if self.attention_weight else None,
            hidden=mean(_hidden) if self.hidden_weight else None,
        )

    @property
    def match(self) -> Match:
        """The numbers of the layers that are compared."""
        return _numbers(self.pairs)

    def added_to(self, criterion: Criterion) -> Criterion:
        """A criterion that adds these losses by their weights to what its own come to."""
        return replace(criterion, attention_weight=self.attention_weight, hidden_weight=self.hidden_weight)

    def notes(self, told: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        """What the user should know before the first step, a sentence each.

        Args:
            told: ``name`` and ``sha256`` of the teachers whose answers the store holds.
        """
        teacher = self.teacher
        assert isinstance(teacher.model, nn.Module)
        millions = sum(parameter.numel() for parameter in teacher.model.parameters()) / 1e6
        said = [
            f"The teacher {teacher.name} is in memory and looks at every view: {millions:.1f} M parameters, weights "
            f"from {teacher.source}. Its attention counts with {self.attention_weight:g}, its hidden states with "
            f"{self.hidden_weight:g}; targets for logits come from the store.",
            f"Layers matched, student:teacher, counted from 0: {', '.join(written(self.match))}.",
        ]
        if lone := [pair for pair in self.pairs if pair.tokens == 1]:
            said.append(
                f"Layers matched as {', '.join(written(_numbers(lone)))} have a single token at {teacher.size} px, so "
                "there is nothing to relate, and they add 0 to the means: leave them out with --match."
            )
        if any(any(pair.skips) for pair in self.pairs):
            said.append("Class tokens and their like are not compared, for student and teacher have other ones.")
        if teacher.sha256 not in [store["sha256"] for store in told]:
            said.append("The store holds logits of other weights than this teacher's.")
        return tuple(said)

    def identity(self) -> dict[str, Any]:
        """What decides the losses, as JSON types; no paths."""
        return {
            **self.teacher.describe(),
            "attention_weight": self.attention_weight,
            "hidden_weight": self.hidden_weight,
            "match": list(written(self.match)),
        }


def _numbers(pairs: Sequence[Pair]) -> Match:
    return tuple((pair.student.number, pair.teacher.number) for pair in pairs)


def _attention(pair: Pair, own: Seen, theirs: Seen, weight_B: Tensor) -> Tensor:
    if pair.student.window is None:
        one, other = pair.skips
        return attention_relation_loss(own.states(skip=one), theirs.states(skip=other), weight_B=weight_B)
    size = pair.student.window[0]
    losses = [
        share * attention_relation_loss(one, other, weight_B=weight_B)
        for (one, share), (other, _) in zip(own.windows(size), theirs.windows(size), strict=True)
    ]
    return torch.stack(losses).sum()


def _hidden(pair: Pair, own: Seen, theirs: Seen, weight_B: Tensor) -> Tensor:
    one, other = pair.skips
    return hidden_relation_loss(own.tokens(skip=one), theirs.tokens(skip=other), weight_B=weight_B)
