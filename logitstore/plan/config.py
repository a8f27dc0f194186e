"""What a plan is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from logitstore.convert.config import CodecName
from logitstore.errors import InputError
from logitstore.inference import InferenceConfig
from logitstore.sampling import SAMPLE, VIEWS
from logitstore.store.values import FORMS, Values


@dataclass(frozen=True, kw_only=True)
class PlanConfig(InferenceConfig):
    """What to plan. Every field is an option of ``logitstore plan``."""

    sample: int = SAMPLE
    """Views to show to the teacher, over images spaced evenly; clamped to what the data set has."""
    views: int = VIEWS
    """Views of each image of the sample, which stand for epochs; a packed store needs five to be foretold well."""
    epochs: int = 300
    """Epochs of the training run that the store is for."""
    target_kl: float = 0.03
    """Mean divergence of records from the teacher, in nat, that is good enough."""
    topk: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Numbers of classes to try; clamped to the class count."""
    floor: tuple[float, ...] = (0.0, 1e-4, 1e-3)
    """Floors to try, besides the largest one that reaches the target."""
    mass: tuple[float, ...] = (0.9, 0.99)
    """Masses to try, besides the smallest one that reaches the target."""
    gain: tuple[float, ...] = (1e-3, 1e-2)
    """Gains to try, besides the largest one that reaches the target."""
    values: tuple[Values, ...] = FORMS
    """Forms of log-probabilities to try."""
    codec: tuple[CodecName, ...] = ("standard", "packed")
    """Codecs to try: what ``dump`` writes, and what ``convert`` makes of it."""
    out: str | None = None
    """Picture to draw: divergence against bytes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sample", "views", "epochs"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("topk", "floor", "values", "codec"):
            if not getattr(self, name):
                raise InputError(f"--{name} has nothing to try; give at least one.")
        for topk in self.topk:
            if topk < 1:
                raise InputError(f"--topk must be at least 1, got {topk}.")
        for floor in self.floor:
            if not 0 <= floor < 1:
                raise InputError(f"--floor is a probability in [0, 1), got {floor}.")
        for mass in self.mass:
            if not 0 < mass <= 1:
                raise InputError(f"--mass is a probability in (0, 1], got {mass}.")
        for gain in self.gain:
            if not 0 <= gain < math.inf:
                raise InputError(f"--gain is a divergence in nat of at least 0, got {gain}.")
        for values in self.values:
            if values not in FORMS:
                raise InputError(f"--values must be of {', '.join(FORMS)}, got {values}.")
        for codec in self.codec:
            if codec not in get_args(CodecName):
                raise InputError(f"--codec must be of {', '.join(get_args(CodecName))}, got {codec}.")
        if not 0 < self.target_kl < math.inf:
            raise InputError(f"--target-kl is a divergence in nat above 0, got {self.target_kl}.")
