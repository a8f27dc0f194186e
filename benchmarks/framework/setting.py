"""What the Swin framework's protocol is run on besides: whose rows, which students, which stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.framework.base import BaseSetting, require_known
from benchmarks.framework.rows import STUDENTS, TABLES, TEACHER_TOP1, Row, rows_of


@dataclass(frozen=True, kw_only=True)
class Setting(BaseSetting):
    """What the protocol is run on, and for how long. Validated on construction."""

    EPOCHS: ClassVar[tuple[int, int]] = (60, 4)
    """The paper's; on digits it only has to run."""
    BATCH: ClassVar[tuple[int, int]] = (128, 64)
    """The recipe's; on digits smaller, for more steps."""

    shared_store: bool = False
    """One store, of the first seed, for the students of all seeds, which visit its shards in an order of their own;
    else each seed has its own, with the views that students on labels see."""
    students: tuple[str, ...] = ("swin_n", "swin_m")
    """Which of Swin-N and Swin-M."""
    tables: tuple[str, ...] = ("IX",)
    """Whose rows are trained; IX holds II and VIII."""
    freeze_copied: bool = False
    """Keep the copied blocks as they are in the teacher."""
    out: Path = Path("runs/swin_framework")
    """The folder of all steps."""

    def __post_init__(self) -> None:
        require_known("--rows", self.tables, TABLES)
        require_known("--students", self.students, STUDENTS)
        require_known("--teacher-checkpoint", tuple(name for name, _ in self.teacher_checkpoints), tuple(TEACHER_TOP1))
        super().__post_init__()

    @property
    def recipe(self) -> str:
        """The paper's, for the teacher too."""
        return "swin_framework"

    @property
    def rows(self) -> list[Row]:
        """The rows of the paper that are measured."""
        return rows_of(self.tables, self.students)
