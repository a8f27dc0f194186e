"""The model that is exported: whole, on the CPU, in float32; and what its file says of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from logitstore.cards import Card, weights_sha256
from logitstore.device import Compute
from logitstore.trained import TrainedModel, load_trained

INPUT, OUTPUT = "images", "logits"


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A model to export."""

    model: nn.Module
    """In eval mode, without gradients, on the CPU."""
    card: Card
    """Of the file to come: ``size`` and ``model_args`` are those of ``model``."""
    measured_size: int | None
    """Side of the images that the card's accuracy was measured on; None where there is no accuracy."""

    @property
    def architecture(self) -> str:
        """timm's name without a tag."""
        known = getattr(self.model, "pretrained_cfg", None) or {}
        return str(known.get("architecture") or self.card.model.partition(".")[0])

    @property
    def package(self) -> str:
        """The package that must be imported before timm knows the architecture; ``timm`` where it does anyway."""
        return str(model_entrypoint(self.architecture).__module__).partition(".")[0]

    def images(self, count: int, seed: int = 0) -> Tensor:
        """Random images as the model takes them, float32 [count, 3, size, size]: unit noise, always the same."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, self.card.size, self.card.size, generator=generator)

    def metadata(self) -> dict[str, str]:
        """What the file says of itself, all that a reader needs; values other than text as JSON."""
        card, wants = self.card, self.card.preprocessing
        values = {
            "architecture": self.architecture,
            "model_args": card.model_args,
            "num_classes": card.num_classes,
            "class_names": card.class_names,
            "input": f"{INPUT}: float32 [batch, 3, {card.size}, {card.size}], RGB, (pixel / 255 - mean) / std",
            "output": f"{OUTPUT}: float32 [batch, {card.num_classes}]",
            "size": card.size,
            **wants.to_dict(),
            "weights_sha256": card.sha256,
            "teachers": card.training.get("teachers"),
            "store": card.training.get("store"),
        }
        told = {name: value for name, value in values.items() if value is not None}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}


def load_subject(checkpoint: str, *, model: str | None, size: int | None) -> Subject:
    """Make the model of a checkpoint, and the card of what is exported.

    Args:
        checkpoint: file of weights, or the folder of a run.
        model: which model the weights are of; None takes the card's word.
        size: side of the images in pixels; None is the card's, else 224.

    Raises:
        ModelError: the weights cannot be read, what they are of is not known, or they do not run at this size.
    """
    found = load_trained(
        checkpoint, option="--checkpoint", compute=Compute(device=torch.device("cpu")), model=model, size=size
    )
    return Subject(model=found.model, card=_card(found), measured_size=_measured_size(found.card))


def _measured_size(card: Card | None) -> int | None:
    """As ``Subject.measured_size``; what was exported before may have been made for another size than it was."""
    if card is None or card.accuracy is None:
        return None
    return int(card.export.get("accuracy_size") or card.size)


def _card(found: TrainedModel) -> Card:
    card = found.card or Card(
        model=found.name, num_classes=found.num_classes, size=found.size, preprocessing=found.preprocessing
    )
    sha256 = weights_sha256(found.model.state_dict())
    return replace(
        card, model=found.name, model_args=found.model_args, size=found.size, sha256=sha256, export={}
    )
