"""Trained models as files hold them: weights and card, made ready to look at images.

For the commands that measure and compare. What a teacher needs besides (pretrained tags, a user's own function, the
hash of its weights) lives in ``teacher``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from logitstore.cards import Card, Preprocessing, load_model, weights_path
from logitstore.device import Compute, require_runs
from logitstore.errors import InputError, ModelError
from logitstore.images import ImageSet, match_classes, named_by_number
from logitstore.models import default_preprocessing, model_name, restore_made
from logitstore.scoring import check_labels, eval_logits

_NAMED = 3  # classes of each side in a message


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """A model with the weights of a file, ready to run."""

    model: nn.Module
    """From normalised images [B, 3, size, size] to logits [B, C]."""
    name: str
    """timm's name."""
    model_args: dict[str, Any]
    """Further arguments of ``timm.create_model`` that it was made with."""
    path: str
    """The file of weights."""
    card: Card | None
    """Of the file, if it has one."""
    num_classes: int
    """C."""
    class_names: tuple[str, ...] | None
    """One name per class, where they are known."""
    preprocessing: Preprocessing
    """What the model wants to be fed."""
    size: int
    """Side of its images in pixels."""
    compute: Compute
    """Where and how it runs."""

    def logits(
        self, images: ImageSet, advance: Callable[[int], object] | None = None
    ) -> closing[Generator[tuple[slice, Tensor], None, None]]:
        """The logits of all samples in order, as ``scoring.eval_logits`` gives them, to be used in a ``with``."""
        found = eval_logits(
            self.model,
            images,
            size=self.size,
            preprocessing=self.preprocessing,
            compute=self.compute,
            advance=advance,
        )
        return closing(found)

    def numbering(self, images: ImageSet, say: Callable[[str], object]) -> ImageSet:
        """The images with labels, where they have any, that number this model's classes.

        Args:
            images: with labels of the data set's own.
            say: is told where folders that are named by numbers are taken for class numbers.

        Raises:
            InputError: a class of the data set is unknown to the model.
            DataError: a label is no class of the model.
        """
        if images.labels is None:
            return images
        if named_by_number(self.class_names, images.class_names):
            say(f"The classes of {images.name} are named by numbers: they are taken for the model's class numbers.")
        numbered = images.relabelled(self.class_names, num_classes=self.num_classes)
        check_labels(numbered, self.num_classes)
        return numbered

    def columns_of(self, other: TrainedModel, *, who: str, others: str) -> NDArray[np.int64]:
        """Where the classes of another model are among this model's logits, by name where both have names.

        This model may know more classes.

        Args:
            other: the other model.
            who: what to call this model in a message, with its option ("--teacher").
            others: what to call the other one.

        Returns:
            int64, one entry per class of the other model.

        Raises:
            InputError: a class of the other model is unknown to this one, or without names their numbers differ.
        """
        mine, theirs = self.class_names, other.class_names
        try:
            columns = None if mine == theirs else match_classes(mine, theirs)
        except InputError as exc:
            raise self._foreign(other, who, others) from exc
        if columns is None and self.num_classes != other.num_classes:
            raise self._foreign(other, who, others)
        return np.arange(other.num_classes) if columns is None else columns

    def _foreign(self, other: TrainedModel, who: str, others: str) -> InputError:
        return InputError(
            f"{who} and {others} tell different classes apart, so their answers cannot be compared: {self.path} knows "
            f"{_classes(self)}, {other.path} knows {_classes(other)}; give models of the same classes."
        )


def _classes(model: TrainedModel) -> str:
    names = model.class_names
    if names is None:
        return f"{model.num_classes} without names"
    return f"{model.num_classes} ({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"


def load_trained(
    path: str,
    *,
    option: str,
    compute: Compute,
    model: str | None = None,
    size: int | None = None,
    default_size: int = 224,
) -> TrainedModel:
    """Make a model with the weights of a file.

    Args:
        path: file of weights, or the folder of a run.
        option: that it was given with, for messages ("--teacher").
        compute: where and how it is to run.
        model: which model the weights are of; None takes the card's word.
        size: side of the images in pixels; None is the card's.
        default_size: where there is neither.

    Raises:
        ModelError: the weights cannot be read, or what they are of is not known, or they do not run at this size.
    """
    state, card = load_model(path)
    weights = str(weights_path(path))
    if model is None and card is None:
        remedy = "name it with --model" if option == "--checkpoint" else "give a file that finetune or train wrote"
        raise ModelError(f"There is no card beside {weights}, so what model it is of is not known: {remedy}.")
    name = model_name(model or (card.model if card is not None else ""))
    side = size or (card.size if card is not None else default_size)
    restored, model_args = restore_made(name, state, size=side, card=card)
    restored = restored.to(compute.device).eval().requires_grad_(False)
    require_runs(restored, side, name=name)
    return TrainedModel(
        model=restored,
        name=name,
        model_args=model_args,
        path=weights,
        card=card,
        num_classes=cast("int", restored.num_classes),
        class_names=card.class_names if card is not None else None,
        preprocessing=card.preprocessing if card is not None else default_preprocessing(restored),
        size=side,
        compute=compute,
    )
