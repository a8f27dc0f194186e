"""What the proof on students is run on: one teacher, one student, what it is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.framework.base import BaseSetting, require_known
from benchmarks.quality_parts.conditions import CONDITIONS
from logitstore.cards import load_card, weights_path
from logitstore.errors import InputError

CYCLED_SHARE = 4
"""Without ``store_epochs``, a store that is cycled holds one of so many epochs."""


@dataclass(frozen=True, kw_only=True)
class QualitySetting(BaseSetting):
    """What the protocol is run on, and for how long. Validated on construction."""

    EPOCHS: ClassVar[tuple[int, int]] = (10, 12)
    """Ours."""
    BATCH: ClassVar[tuple[int, int]] = (512, 64)
    """Ours; on digits smaller, for more steps."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Run seeds: each has its own views, initial weights and stores; the teacher is one for all."""
    teacher_name: str | None = None
    """Who speaks; None is ``tinyvit_21m``, and ``tinyvit_5m`` on digits."""
    student_name: str | None = None
    """Who learns; None is ``tinyvit_5m``, and ``test_vit``, timm's smallest, on digits."""
    conditions: tuple[str, ...] = tuple(CONDITIONS)
    """What students are trained on."""
    out: Path = Path("runs/quality")
    """The folder of all steps."""

    def __post_init__(self) -> None:
        require_known("--conditions", self.conditions, tuple(CONDITIONS))
        own = tuple((name or self.teacher, file) for name, file in self.teacher_checkpoints)
        object.__setattr__(self, "teacher_checkpoints", own)
        require_known("--teacher-checkpoint", tuple(name for name, _ in self.teacher_checkpoints), (self.teacher,))
        for _, file in self.teacher_checkpoints:
            if load_card(weights_path(file)) is None:
                raise InputError(
                    f"{file} has no card, so students cannot be compared with it: give the folder that logitstore "
                    "train or finetune left."
                )
        if not self.conditions:
            raise InputError(f"--conditions must name at least one of {', '.join(CONDITIONS)}.")
        super().__post_init__()

    @property
    def recipe(self) -> str:
        """Soft targets, for teacher and labels too: what a student is trained on is all that differs."""
        return "digits" if self.is_digits else "tinyvit_1k_distill"

    @property
    def teacher(self) -> str:
        """``teacher_name``, or the default."""
        return self.teacher_name or ("tinyvit_5m" if self.data == "digits" else "tinyvit_21m")

    @property
    def student(self) -> str:
        """``student_name``, or the default."""
        return self.student_name or ("test_vit" if self.is_digits else "tinyvit_5m")

    @property
    def cycled_epochs(self) -> int:
        """Epochs of views in the store that is cycled."""
        return min(self.store_epochs or max(1, self.num_epochs // CYCLED_SHARE), self.num_epochs)
