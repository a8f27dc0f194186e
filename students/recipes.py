"""Training recipes: functions, named as the recipe, that return a frozen configuration.

A recipe says how a student is trained, never on what. Its learning rates are given per 512 images of a global batch, as
the reference gives them; ``Recipe.learning_rates`` scales all three. Values come from TinyViT (Wu et al., 2022) and its
published configurations where a recipe bears its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

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
        rates = {"label_smoothing": self.label_smoothing, "ema_decay": self.ema_decay or 0.0}
        rates |= {"drop_path": max((rate for _, rate in self.drop_path), default=0.0), "betas": max(self.betas)}
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
        _require({"alpha": min(self.alpha)}, lambda value: value >= 0, "must lie in [0, 1]")
        _require({"alpha": max(self.alpha)}, lambda value: value <= 1, "must lie in [0, 1]")
        _require({"harmonic_weights": min(self.harmonic_weights)}, lambda value: value > 0, "must be above 0")
        if self.distillation == "none" and self.joint != "none":
            raise ValueError(f"joint {self.joint} joins two losses, and distillation none leaves one; leave one out.")
        for name, owner, value in (
            ("temperature", "distillation", "kl"),
            ("alpha", "joint", "alpha"),
            ("harmonic_weights", "joint", "harmonic"),
        ):
            given, set_to = getattr(self, name), getattr(self, owner)
            if given != _DEFAULTS[name] and set_to != value:
                raise ValueError(
                    f"{name} ({_shown(given)}) has a meaning with {owner} {value} only, and {owner} is {set_to}; leave "
                    "one out."
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
        """The recipe that ``to_dict`` described; an unknown field is a ValueError that names it."""
        unknown = sorted(set(plain) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"A recipe has no field {unknown[0]!r}.")
        values = dict(plain)
        values |= {name: tuple(values[name]) for name in _PAIRS if name in values}
        if "drop_path" in values:
            values["drop_path"] = tuple(
                ("" if prefix == _ANY_STUDENT else prefix, rate) for prefix, rate in values["drop_path"].items()
            )
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}


def _shown(value: Any) -> str:
    return ":".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"


def _require(values: Mapping[str, float], holds: Callable[[float], bool], rule: str) -> None:
    for name, value in values.items():
        if not holds(value):
            raise ValueError(f"{name} {rule}, got {value}.")


_DROP_PATH_1K = (
    ("tinyvit_5m", 0.0),
    ("tinyvit_11m", 0.1),
    ("tinyvit_21m", 0.2),
    # Published rates of Swin-T, S and B from scratch on ImageNet-1k; the smaller Swin-N and Swin-M take Swin-T's.
    ("swin", 0.2),
    ("swin_s", 0.3),
    ("swin_b", 0.5),
    ("", 0.1),
)


def tinyvit_1k_distill() -> Recipe:
    """Distillation on ImageNet-1k size data: TinyViT's schedule from scratch, without what only hard labels need.

    The papers give no distillation from scratch on ImageNet-1k; this one is the 1k schedule without label smoothing,
    Mixup and CutMix, which TinyViT's own distillation on ImageNet-21k leaves out too.
    """
    return Recipe(
        name="tinyvit_1k_distill",
        epochs=300,
        warmup_epochs=20,
        batch_size=1024,
        base_lr=5e-4,
        base_min_lr=5e-6,
        base_warmup_lr=5e-7,
        weight_decay=0.05,
        drop_path=_DROP_PATH_1K,
    )


def digits() -> Recipe:
    """A few epochs on 1,437 small images, for the demo and for trying things on a CPU: ours.

    The learning rate is the highest tried (2.5e-4, 5e-4, 7e-4, 1e-3 at a batch of 64) at which hard labels alone still
    train Swin-N; distilled students bear twice as much, and TinyViT-5M gains from it.
    """
    return Recipe(
        name="digits",
        epochs=4,
        warmup_epochs=1,
        batch_size=64,
        base_lr=4e-3,
        base_min_lr=4e-5,
        base_warmup_lr=4e-5,
        weight_decay=0.05,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {maker.__name__: maker for maker in (tinyvit_1k_distill, digits)}


def select_recipe(recipe: Recipe | str | None = None, *, data: str = "digits", **overrides: Any) -> Recipe:
    """The recipe of a run: given, named, or the default for the data set, with single fields overridden.

    Args:
        recipe: a recipe, or one of ``RECIPES``; None takes ``digits`` on the embedded data set and
            ``tinyvit_1k_distill`` elsewhere.
        data: the data set's name, read only when ``recipe`` is None.
        overrides: fields of ``Recipe``; those that are None keep the recipe's value, but the warm-up keeps its share
            of the epochs, and what only the overridden ``distillation`` or ``joint`` gave a meaning goes back to its
            default.

    Raises:
        ValueError: an unknown recipe or field, or a value out of range.
    """
    if not isinstance(recipe, Recipe):
        name = recipe or ("digits" if data == "digits" else "tinyvit_1k_distill")
        if name not in RECIPES:
            raise ValueError(f"There is no recipe {name!r}; choose one of {', '.join(sorted(RECIPES))}.")
        recipe = RECIPES[name]()
    given = {field: value for field, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - {field.name for field in fields(Recipe)})
    if unknown:
        raise ValueError(f"A recipe has no field {unknown[0]!r}.")
    if "epochs" in given and "warmup_epochs" not in given:
        given["warmup_epochs"] = recipe.warmup_epochs * given["epochs"] / recipe.epochs
    if given.get("distillation", "kl") != "kl":
        given.setdefault("temperature", 1.0)
    if given.get("distillation") == "none":
        given.setdefault("joint", "none")
    if "joint" in given:
        for joint, field in (("alpha", "alpha"), ("harmonic", "harmonic_weights")):
            if given["joint"] != joint:
                given.setdefault(field, _DEFAULTS[field])
    return replace(recipe, **given)
