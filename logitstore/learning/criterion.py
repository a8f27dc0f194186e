"""What a model is trained on: the targets of a batch, its losses, and how they become one.

A joint loss is c_d L_d + c_s L_s (see ``losses.joint``). The coefficients are functions of the step, or of the two
losses of the whole batch; so a batch in pieces, or spread over processes, first has its losses added up where
``needs_losses`` says so, and then each piece its gradient with the same coefficients.

Shape suffixes: B batch, K kept classes, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from logitstore.loader import Batch
from logitstore.losses import (
    alpha_coefficients,
    hard_label_cross_entropy,
    harmonic_coefficients,
    joint_loss,
    logit_mse,
    ratio_coefficients,
    soft_target_cross_entropy,
    tempered_kl,
)
from students.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the rows of a batch are trained towards, on the model's device."""

    weight_B: Tensor
    """Weights of the rows."""
    label_B: Tensor
    """Classes; -1 where there are no labels."""
    partner_label_B: Tensor
    """Classes of the mixing partners."""
    own_B: Tensor
    """Weight of the sample itself in its view."""
    index_BK: Tensor | None = None
    """Kept classes in the store's own type; None without records, and where logits take their place; as are the next
    two."""
    prob_BK: Tensor | None = None
    """Their probabilities."""
    tail_B: Tensor | None = None
    """Probability outside the kept classes."""
    teacher_BC: Tensor | None = None
    """The teacher's logits; None where the loader was not asked for them."""

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Targets:
        """The targets of a batch."""

        def move(array: Any) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        targets = {name: move(getattr(batch, name)) for name in ("weight_B", "label_B", "partner_label_B", "own_B")}
        if batch.logits_BC is not None:
            targets["teacher_BC"] = move(batch.logits_BC)
        elif batch.records is not None:
            targets["index_BK"] = move(batch.records.index)
            targets["prob_BK"] = move(batch.records.prob)
            targets["tail_B"] = move(batch.records.tail)
        return cls(**targets)

    def rows(self, rows: slice) -> Targets:
        """A run of rows."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return Targets(**{name: value[rows] for name, value in present.items() if value is not None})


Loss = Callable[[Tensor, Targets], Tensor]
"""From logits [B, C] and targets to the mean loss over the rows' weights."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The losses of a batch or of a piece of it, scalars on the device; at least one of the first two."""

    distillation: Tensor | None = None
    """L_d, against the teacher."""
    labels: Tensor | None = None
    """L_s, against hard labels."""
    attention: Tensor | None = None
    """On attention, against a teacher in memory."""
    hidden: Tensor | None = None
    """On hidden states, likewise."""

    def __add__(self, other: Parts) -> Parts:
        return Parts(**{name: _added(value, getattr(other, name)) for name, value in vars(self).items()})

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """L_d and L_s, of a joint loss."""
        assert self.distillation is not None and self.labels is not None
        return self.distillation, self.labels

    def each(self, function: Callable[[Tensor], Tensor]) -> Parts:
        """A function of each loss that there is."""
        return Parts(**{name: None if value is None else function(value) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """How two losses are joined, with one there is nothing to join; and what is added to the joint loss."""

    values: tuple[float, float] | tuple[Tensor, Tensor] | None = None
    """c_d and c_s: numbers, or scalars on the device without a gradient."""
    alpha: float | Tensor | None = None
    """The weight of the loss on hard labels, where the joint loss is written with one."""
    attention: float = 0.0
    """Of the loss on attention."""
    hidden: float = 0.0
    """Of the loss on hidden states."""

    def join(self, parts: Parts) -> Tensor:
        """c_d L_d + c_s L_s, or the one loss there is; and the weighted losses on attention and hidden states."""
        total = self._joint(parts)
        for weight, value in ((self.attention, parts.attention), (self.hidden, parts.hidden)):
            if value is not None:
                total = total + weight * value
        return total

    def _joint(self, parts: Parts) -> Tensor:
        if self.values is not None:
            return joint_loss(*parts.both, self.values)
        single = parts.labels if parts.distillation is None else parts.distillation
        assert single is not None
        return single


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One loss, or two and how they are joined."""

    distillation: Loss | None = None
    """L_d; None trains on labels alone."""
    labels: Loss | None = None
    """L_s; None trains on the teacher alone."""
    joint: str = "none"
    """``none`` with one loss; with two ``alpha``, ``ratio`` or ``harmonic``, as in ``Recipe``."""
    alpha: tuple[float, float] = (0.0, 0.0)
    """Weight of L_s at the first and the last step."""
    harmonic_weights: tuple[float, float] = (13.0, 1.0)
    """Weights w_d and w_s of the harmonic mean."""
    attention_weight: float = 0.0
    """Of the loss on attention, which is added to what the others come to; 0 where there is none."""
    hidden_weight: float = 0.0
    """Of the loss on hidden states, likewise."""

    def __post_init__(self) -> None:
        losses = (self.distillation is not None) + (self.labels is not None)
        assert losses == (1 if self.joint == "none" else 2), f"{losses} losses and joint {self.joint}"

    @property
    def needs_losses(self) -> bool:
        """Whether the coefficients depend on the losses, which must then be those of the whole batch."""
        return self.joint in ("ratio", "harmonic")

    def parts(self, logits_BC: Tensor, targets: Targets) -> Parts:
        """The losses of some rows, means over their weights. The logits are used up: they may be overwritten."""
        # The loss on labels first: the other one may put its gradient where the logits are.
        labels = None if self.labels is None else self.labels(logits_BC, targets)
        distillation = None if self.distillation is None else self.distillation(logits_BC, targets)
        return Parts(distillation=distillation, labels=labels)

    def coefficients(self, parts: Parts, progress: float) -> Coefficients:
        """How to join the losses at this step.

        Args:
            parts: the losses of the whole batch; read only where ``needs_losses`` says so.
            progress: 0 at the first step of the run, 1 at the last.
        """
        joint = self._joint_coefficients(parts, progress)
        return replace(joint, attention=self.attention_weight, hidden=self.hidden_weight)

    def _joint_coefficients(self, parts: Parts, progress: float) -> Coefficients:
        if self.joint == "none":
            return Coefficients()
        if self.joint == "alpha":
            values = alpha_coefficients(self.alpha, progress)
            return Coefficients(values=values, alpha=values[1])
        if self.joint == "ratio":
            balanced = ratio_coefficients(*parts.both)
            return Coefficients(values=balanced, alpha=balanced[1])
        return Coefficients(values=harmonic_coefficients(*parts.both, self.harmonic_weights))


def make_criterion(recipe: Recipe) -> Criterion:
    """The losses that a recipe asks for.

    A joint loss whose alpha is 0 throughout is the distillation loss alone, and reads no labels.
    """
    hard_labels = partial(hard_label_loss, smoothing=recipe.label_smoothing)
    if recipe.distillation == "none":
        return Criterion(labels=hard_labels)
    against_teacher: dict[str, Loss] = {
        "cross_entropy": soft_target_loss,
        "mse": logit_loss,
        "kl": partial(tempered_loss, temperature=recipe.temperature),
    }
    distillation = against_teacher[recipe.distillation]
    if not recipe.uses_labels:
        return Criterion(distillation=distillation)
    return Criterion(
        distillation=distillation,
        labels=hard_labels,
        joint=recipe.joint,
        alpha=recipe.alpha,
        harmonic_weights=recipe.harmonic_weights,
    )


def soft_target_loss(logits_BC: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy against the records of a store."""
    return soft_target_cross_entropy(
        logits_BC, *_records(targets), weight_B=targets.weight_B, overwrite=_disposable(logits_BC)
    )


def tempered_loss(logits_BC: Tensor, targets: Targets, *, temperature: float) -> Tensor:
    """Divergence from the records of a store at a temperature."""
    return tempered_kl(
        logits_BC,
        *_records(targets),
        temperature=temperature,
        weight_B=targets.weight_B,
        overwrite=_disposable(logits_BC),
    )


def logit_loss(logits_BC: Tensor, targets: Targets) -> Tensor:
    """Mean squared error against the teacher's logits."""
    assert targets.teacher_BC is not None
    return logit_mse(logits_BC, targets.teacher_BC, weight_B=targets.weight_B)


def hard_label_loss(logits_BC: Tensor, targets: Targets, *, smoothing: float) -> Tensor:
    """Cross-entropy against labels, mixed as the views are."""
    return hard_label_cross_entropy(
        logits_BC,
        targets.label_B,
        partner_label_B=targets.partner_label_B,
        own_B=targets.own_B,
        smoothing=smoothing,
        weight_B=targets.weight_B,
    )


def _disposable(logits_BC: Tensor) -> bool:
    """Whether the logits come from an operation whose own gradient needs its output no more: they may be overwritten.

    So they do nearly always; a head that ends in an activation is one that does need it.
    """
    made_by = logits_BC.grad_fn
    return made_by is not None and made_by.name() in ("AddmmBackward0", "MmBackward0", "MeanBackward1")


def _records(targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
    assert targets.index_BK is not None and targets.prob_BK is not None and targets.tail_B is not None
    return targets.index_BK, targets.prob_BK, targets.tail_B


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return None if one is None or other is None else one + other
