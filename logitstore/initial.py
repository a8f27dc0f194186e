"""A student's initial weights from a file: a teacher's, another student's, its own at another resolution.

What corresponds and what is copied is decided in ``students.transfer``; here files and cards are read, classes are
named, and what happened is put into the words of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.cards import Card, Preprocessing, load_model, weights_path, weights_sha256
from logitstore.errors import ModelError
from students.heads import classifiers
from students.transfer import TransferMap, by_timm_names, freeze, transfer


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a student started from."""

    sha256: str
    """Of the file's weights, as ``weights_sha256`` computes it."""
    model: str | None
    """timm's name of the model that they are of, where a card says so."""
    transfer: TransferMap
    """What became of each tensor."""
    frozen: bool
    """Whether the copied parameters are held fixed."""
    card: Card | None
    """Of the file, if it has one."""
    assumed: str | None
    """timm's name of the ImageNet subset that the classes of a file without a card are taken for."""

    def identity(self) -> dict[str, Any]:
        """What decides the start, as JSON types; no paths."""
        return {"sha256": self.sha256, "model": self.model, "freeze_copied": self.frozen, **self.transfer.to_dict()}

    def lines(self) -> list[str]:
        """The map for people."""
        held = ["  What was copied or resized is frozen: no gradient, eval mode."] if self.frozen else []
        of = f" of {self.model}" if self.model else ""
        order = [f"  The classes of the weights are taken for {self.assumed} in timm's order."] if self.assumed else []
        return [f"Initial weights{of}, SHA-256 {self.sha256[:16]}…", *self.transfer.lines(), *order, *held]

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """How a student's views are normalised: as those of the weights that it took over, where a card tells."""
        if self.card is None:
            return own
        return replace(own, mean=self.card.preprocessing.mean, std=self.card.preprocessing.std)


def take_over(
    path: str | Path,
    student: nn.Module,
    *,
    cut: int | None = None,
    freeze_copied: bool = False,
    class_names: Sequence[str] | None = None,
) -> InitialWeights:
    """Give a student the weights of a file where the two correspond; the others stay as they are.

    Args:
        path: of the weights, or the folder of a run.
        student: is changed in place.
        cut: see ``students.transfer.transfer``.
        freeze_copied: take the gradient from what was copied.
        class_names: of the student's classes, where known.

    Raises:
        ModelError: the file cannot be read, or is of another family, or nothing would be left to train.
    """
    path = weights_path(path)
    state, card = load_model(path)
    assumed = None if card is not None or class_names is None else _imagenet_subset(state, student, class_names)
    known = _names_of(assumed) if card is None else card.class_names
    try:
        new_state, taken = transfer(
            state,
            student,
            cut=cut,
            teacher_classes=known,
            student_classes=class_names,
        )
        student.load_state_dict(new_state, strict=True)
        if freeze_copied:
            freeze(student, taken)
    except ValueError as exc:
        of = f" ({card.model})" if card is not None else ""
        raise ModelError(f"{path}{of}: {exc}") from exc
    return InitialWeights(
        sha256=weights_sha256(state),
        model=None if card is None else card.model,
        transfer=taken,
        frozen=freeze_copied,
        card=card,
        assumed=assumed,
    )


def _imagenet_subset(
    state: Mapping[str, torch.Tensor], student: nn.Module, student_classes: Sequence[str]
) -> str | None:
    """The subset of ImageNet that the classes of weights without a card are, told by their number as timm does.

    Published weights of ImageNet-21k and 1k have no card; their classes are WordNet ids in timm's order. That is
    assumed only where some of the student's classes are ids of the same subset.
    """
    from timm.data import infer_imagenet_subset

    named = by_timm_names(state)
    heads = (f"{head}.weight" for head in classifiers(student, student.state_dict()))
    rows = {len(named[key]) for key in heads if key in named}
    subset: str | None = infer_imagenet_subset({"num_classes": rows.pop()}) if len(rows) == 1 else None
    return subset if set(student_classes) & set(_names_of(subset) or ()) else None


def _names_of(subset: str | None) -> tuple[str, ...] | None:
    from timm.data import ImageNetInfo

    return None if subset is None else tuple(ImageNetInfo(subset).label_names())
