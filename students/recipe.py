"""What a training recipe is: how a student is trained, never on what.

Learning rates are given per 512 images of a global batch, as TinyViT's reference gives them; ``Recipe.learning_rates``
scales all three. The recipes that have names are in ``recipes``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, get_type_hints

from students.plain import typed

REFERENCE_BATCH = 512
DISTILLATIONS = ("cross_entropy", "mse", "kl", "none")
JOINTS = ("none", "alpha", "ratio", "harmonic")
_ANY_STUDENT = "any"  # the empty prefix of drop_path, in plain values
_PAIRS = ("betas", "alpha", "harmonic_weights")  # lists in plain values


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """The three learning rates of a run, as the scheduler takes them."""

    peak: float
    """Reached at the end of the warm-up."""
    minimum: float
    """Where the cosine ends."""
    warmup_start: float
    """Where the warm-up begins."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student is trained. Values that a run needs but a recipe leaves open belong to the run."""

    name: str
    """The function that made it."""
    epochs: int
    """Passes over the data set."""
    warmup_epochs: float = 0.0
    """Length of the linear warm-up, at most ``epochs``; fractions are rounded to steps."""
    batch_size: int
    """Images per optimiser step, over all processes and pieces of an accumulated step."""
    base_lr: float
    """Peak learning rate per 512 images of the global batch."""
    base_min_lr: float = 0.0
    """Final learning rate per 512 images."""
    base_warmup_lr: float = 0.0
    """First learning rate of the warm-up per 512 images."""
    weight_decay: float = 0.05
    """AdamW's decoupled decay; never on 1-D parameters, biases and attention biases."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    eps: float = 1e-8
    """AdamW's term in the denominator."""
    clip_grad: float | None = 5.0
    """Largest norm of the gradient; None does not clip."""
    label_smoothing: float = 0.0
    """Mass spread evenly over all classes; hard labels only, stored targets stay as they are."""
    drop_path: tuple[tuple[str, float], ...] = (("", 0.0),)
    """Pairs (prefix of a student's name, rate of stochastic depth); the longest prefix that fits counts."""
    mixup: float = 0.0
    """Alpha of Mixup in runs that make their own views; stored views are mixed as they were dumped."""
    cutmix: float = 0.0
    """Alpha of CutMix, likewise."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one before it; 1 treats all alike."""
    bn_eval: bool = False
    """Keep BatchNorm in eval mode: its statistics stay as the initial weights have them."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights that is validated and saved; None keeps no average."""
    distillation: str = "cross_entropy"
    """Loss L_d against the teacher: ``cross_entropy`` with soft targets, ``mse`` of logits, ``kl`` with a temperature;
    ``none`` trains on labels alone."""
    temperature: float = 1.0
    """Of ``kl`` only."""
    joint: str = "none"
    """How the loss on hard labels L_s joins L_d: ``none`` (L_d alone), ``alpha`` ((1 - alpha) L_d + alpha L_s),
    ``ratio`` (equation 3 of the Swin compression framework), ``harmonic`` (its equation 4)."""
    alpha: tuple[float, float] = (0.0, 0.0)
    """Weight of the loss on HARD LABELS at the first and at the last step, linear between; of ``alpha`` only."""
    harmonic_weights: tuple[float, float] = (13.0, 1.0)
    """Weights (w_d, w_s) of the harmonic mean; of ``harmonic`` only."""
    view: str = "tinyvit"
    """View spec of runs that make their own views (labels alone); stored views are as they were dumped."""
    size: int | None = None
    """Side of the views in pixels, where the recipe asks for one."""

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "batch_size": self.batch_size, "base_lr": self.base_lr, "eps": self.eps}
        not_negative = {
            "warmup_epochs": self.warmup_epochs,
            "base_min_lr": self.base_min_lr,
            "base_warmup_lr": self.base_warmup_lr,
            "weight_decay": self.weight_decay,
            "mixup": self.mixup,
            "cutmix": self.cutmix,
        }
        rates: dict[str, float | tuple[float, ...]]
        rates = {"label_smoothing": self.label_smoothing, "ema_decay": self.ema_decay or 0.0, "betas": self.betas}
        rates |= {"drop_path": tuple(rate for _, rate in self.drop_path)}
        whole = {"epochs": self.epochs, "batch_size": self.batch_size}
        _require(whole, lambda value: value == int(value), "must be a whole number")
        _require(positive, lambda value: value > 0, "must be above 0")
        _require(not_negative, lambda value: value >= 0, "must be at least 0")
        _require(rates, lambda value: 0 <= value < 1, "must lie in [0, 1)")
        _require({"layer_decay": self.layer_decay}, lambda value: 0 < value <= 1, "must lie in (0, 1]")
        if self.clip_grad is not None:
            _require({"clip_grad": self.clip_grad}, lambda value: value > 0, "must be above 0, or None")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must not exceed epochs ({self.epochs}).")
        if self.size is not None:
            _require({"size": self.size}, lambda value: value >= 1 and value == int(value), "must be a whole number")
        self._check_losses()

    def _check_losses(self) -> None:
        """Values of the losses, and that none is set that the others leave without effect."""
        for name, value, choices in (
            ("distillation", self.distillation, DISTILLATIONS),
            ("joint", self.joint, JOINTS),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
        _require({"temperature": self.temperature}, lambda value: value > 0, "must be above 0")
        _require({"alpha": self.alpha}, lambda value: 0 <= value <= 1, "must lie in [0, 1]")
        _require({"harmonic_weights": self.harmonic_weights}, lambda value: value > 0, "must be above 0")
        if self.distillation == "none" and self.joint != "none":
            raise ValueError(
                f"joint {self.joint} joins two losses, and distillation none leaves one: choose another distillation, "
                "or leave joint out."
            )
        for name, owner, value in (
            ("temperature", "distillation", "kl"),
            ("alpha", "joint", "alpha"),
            ("harmonic_weights", "joint", "harmonic"),
        ):
            given, set_to = getattr(self, name), getattr(self, owner)
            if given != DEFAULTS[name] and set_to != value:
                raise ValueError(
                    f"{name} ({_shown(given)}) has a meaning with {owner} {value} only, and {owner} is {set_to}: set "
                    f"{owner} {value}, or leave {name} out."
                )

    @property
    def uses_labels(self) -> bool:
        """Whether any loss of this recipe reads hard labels."""
        joined = self.joint in ("ratio", "harmonic") or (self.joint == "alpha" and self.alpha != (0.0, 0.0))
        return self.distillation == "none" or joined

    def drop_path_of(self, student: str) -> float:
        """Rate of stochastic depth for a student, by its name or timm's name for it."""
        name = student.replace("tiny_vit", "tinyvit")
        fitting = [(len(prefix), rate) for prefix, rate in self.drop_path if name.startswith(prefix)]
        return max(fitting, default=(0, 0.0))[1]

    def learning_rates(self, global_batch: int) -> LearningRates:
        """The three learning rates at a global batch, all scaled by global batch / 512."""
        scale = global_batch / REFERENCE_BATCH
        return LearningRates(
            peak=self.base_lr * scale, minimum=self.base_min_lr * scale, warmup_start=self.base_warmup_lr * scale
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for printing, JSON and YAML."""
        plain = asdict(self)
        return plain | {
            **{name: list(getattr(self, name)) for name in _PAIRS},
            "drop_path": {prefix or _ANY_STUDENT: rate for prefix, rate in self.drop_path},
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe that ``to_dict`` described; fields with a default may be left out.

        Raises:
            ValueError: a field is unknown, absent, of another type, or out of range; the message names it.
        """
        unknown = sorted(set(plain) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"A recipe has no field {unknown[0]!r}.")
        absent = [field.name for field in fields(cls) if field.default is MISSING and field.name not in plain]
        if absent:
            raise ValueError(f"The recipe lacks {', '.join(absent)}: give all of its fields, or the name of a recipe.")
        values = dict(plain)
        if "drop_path" in values:
            if not isinstance(values["drop_path"], Mapping):
                raise ValueError(f"drop_path must map prefixes of names to rates, got {values['drop_path']!r}.")
            values["drop_path"] = tuple(
                ("" if prefix == _ANY_STUDENT else prefix, rate) for prefix, rate in values["drop_path"].items()
            )
        hints = get_type_hints(cls)
        return cls(**{name: typed(name, value, hints[name]) for name, value in values.items()})


DEFAULTS = {field.name: field.default for field in fields(Recipe)}


def _shown(value: Any) -> str:
    return ":".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"


def _require(values: Mapping[str, float | tuple[float, ...]], holds: Callable[[float], bool], rule: str) -> None:
    for name, given in values.items():
        for value in given if isinstance(given, tuple) else (given,):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value}.")
            if not holds(value):
                raise ValueError(f"{name} {rule}, got {value}.")
