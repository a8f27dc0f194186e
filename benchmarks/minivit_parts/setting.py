"""What the ablation of MiniViT is run on: whose rows, which teacher, which widths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from benchmarks.framework.base import BaseSetting, require_known
from benchmarks.minivit_parts.rows import TABLES, Row, rows_of
from logitstore.errors import InputError
from logitstore.online.matching import parse_match
from students import parse_arguments

MATCHES = {
    "swin_t": "11:11,9:9,7:7,5:5,3:3,1:1",
    "swin_s": "11:23,9:21,7:15,5:9,3:3,1:1",
    "swin_b": "11:23,9:21,7:15,5:9,3:3,1:1",
}
"""Teachers, and which layers are compared, as ``--match`` takes it: of 24 blocks those of the reference; of 12, as many
as the student has, the same layers in both."""
NARROW_SWIN = ("embed_dim=32", "num_heads=1:2:4:8")
NARROW_DEIT = ("embed_dim=64", "num_heads=2", "patch_size=8")
_PATCHES = (16, 8)
_LEAST_GRID = 7  # patches a side
_SINGLE_TOKEN = 32  # pixels: Swin's last stage has one token for each 32 a side, and a single one has no relations


@dataclass(frozen=True, kw_only=True)
class MiniVitSetting(BaseSetting):
    """What the protocol is run on, and for how long. Validated on construction."""

    EPOCHS: ClassVar[tuple[int, int]] = (10, 3)
    """Ours; the paper's are 300."""
    BATCH: ClassVar[tuple[int, int]] = (512, 64)
    """Ours; the paper's is 1,024. On digits smaller, for more steps."""

    seeds: tuple[int, ...] = (1,)
    """Run seeds of the students: initial weights and views. The teacher's is 0: a student of that seed would begin with
    the teacher's own initial weights."""
    tables: tuple[str, ...] = TABLES
    """Whose rows are trained."""
    teacher_name: str = "swin_t"
    """Who teaches all students: one of ``MATCHES``. The paper's is Swin-B, and for DeiT a RegNetY-16GF."""
    swin_args: tuple[str, ...] | None = None
    """Arguments of the architecture of every Swin, the teacher too; None is ``NARROW_SWIN`` on digits, else none."""
    deit_args: tuple[str, ...] | None = None
    """Arguments of every DeiT; None is ``NARROW_DEIT`` on digits, else patches of 8 px where 16 leave fewer than 7 a
    side."""
    match: str | None = None
    """Layers of the student and of the teacher that are compared; None is ``MATCHES``, see ``matched``."""
    out: Path = Path("runs/minivit")
    """The folder of all steps."""

    def __post_init__(self) -> None:
        require_known("--rows", self.tables, TABLES)
        require_known("--teacher", (self.teacher_name,), tuple(MATCHES))
        require_known("--teacher-checkpoint", tuple(name for name, _ in self._named()), (self.teacher_name,))
        object.__setattr__(self, "teacher_checkpoints", self._named())
        if not self.tables:
            raise InputError(f"--rows must name at least one of {', '.join(TABLES)}.")
        for option, given in (("--swin-arg", self.swin_args), ("--deit-arg", self.deit_args)):
            try:
                parse_arguments(given or ())
            except ValueError as exc:
                raise InputError(f"{option}: {exc}") from exc
        if self.match is not None:
            parse_match(self.match.split(","))  # here, and not when the teacher has been trained for it
        super().__post_init__()
        if self.is_digits and self.teacher_epochs is None:  # else it would be no better than its students
            object.__setattr__(self, "teacher_epochs", 2 * self.num_epochs)

    def _named(self) -> tuple[tuple[str, str], ...]:
        return tuple((name or self.teacher_name, file) for name, file in self.teacher_checkpoints)

    @property
    def recipe(self) -> str:
        """Of the teacher and of every Swin: the paper's."""
        return "minivit_swin"

    @property
    def options(self) -> tuple[str, ...]:
        """``train_options`` as words, or the default. The view spec alone decides what is mixed, for all rows alike."""
        return ("--mixup", "0", "--cutmix", "0", *super().options)

    @property
    def rows(self) -> list[Row]:
        """The rows of the paper that are measured."""
        return rows_of(self.tables)

    @property
    def families(self) -> list[str]:
        """Whose architectures are trained: of ``swin`` and ``deit``."""
        return list(dict.fromkeys("deit" if row.architecture.is_deit else "swin" for row in self.rows))

    @property
    def matched(self) -> str:
        """``match``, or the default; at up to 32 px without the last stage, whose map is one token there."""
        if self.match is not None:
            return self.match
        first, others = MATCHES[self.teacher_name].split(",", 1)
        return others if self.side <= _SINGLE_TOKEN else f"{first},{others}"

    def arguments_of(self, family: str) -> tuple[str, ...]:
        """Arguments of the architecture that all models of a family have."""
        if family == "swin":
            return (NARROW_SWIN if self.is_digits else ()) if self.swin_args is None else self.swin_args
        if self.deit_args is not None:
            return self.deit_args
        patch = next((side for side in _PATCHES if self.side // side >= _LEAST_GRID), _PATCHES[-1])
        own = () if patch == _PATCHES[0] else (f"patch_size={patch}",)
        return NARROW_DEIT if self.is_digits else own
