"""What the paper measured: its tables as rows, each with the student that has to be trained for it.

Source: Amria et al., "Distillation-based Model Compression Framework for Swin Transformer" (2024), Tables II to X, all
on CIFAR-100. A row here is a claim to be compared with, never a result of ours. Table II and Table VIII are rows of
Table IX, and Table VII's best row is its distilled Swin-N.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLES = ("IX", "IV", "V", "VI", "VII", "X")
STUDENTS = ("swin_n", "swin_m")
TEACHER = "swin_t"
ORDER = ("scratch", "distilled", "copied", "both")
"""Table IX from the lowest accuracy to the highest, for both students."""

TEACHER_TOP1 = {"swin_t": 87.35, "swin_s": 89.38, "swin_b": 92.01}
"""Table III: teachers pre-trained on ImageNet-1k and fine-tuned."""
MODELS = {
    "swin_n": (573.8, 20.5), "swin_m": (494.5, 24.0), "swin_t": (422.5, 27.6), "swin_s": (246.5, 48.9),
    "swin_b": (165.3, 86.9),
}  # fmt: skip
"""Table X: images per second on hardware that is not named, and millions of parameters."""

_LABELS: tuple[str, ...] = ()
_FULL = {"swin_n": (66.32, 76.13, 82.71, 85.21), "swin_m": (67.04, 77.02, 85.10, 87.14)}  # Table IX, in ORDER
_ALPHA_FULL = {"swin_n": 75.30, "swin_m": 75.95}  # Table V
_ALPHA_HALF = {  # Table IV: alpha -> accuracy with the teachers Swin-T, Swin-S, Swin-B
    "swin_n": {"0": (70.06, 67.69, 68.78), "0.25": (71.74, 69.29, 68.60), "0.5": (70.27, 67.33, 67.67),
               "0.75": (68.64, 66.49, 66.98)},
    "swin_m": {"0": (71.06, 70.11, 69.33), "0.25": (72.56, 69.21, 69.64), "0.5": (70.27, 68.51, 68.87),
               "0.75": (68.30, 67.24, 67.54)},
}  # fmt: skip
_SCHEDULES = {"0.5:1": 72.83, "0:1": 74.45, "0:0.5": 75.43}  # Table VI
_WEIGHTS = {"1": 69.62, "2": 71.17, "3": 72.85, "5": 73.87, "10": 75.27, "12": 75.82, "13": 76.13, "15": 75.65}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train one student."""

    student: str
    """Its short name."""
    loss: tuple[str, ...] = _LABELS
    """Options of ``logitstore train`` that choose the losses; empty trains on labels alone."""
    copied: bool = False
    """Whether the leading blocks start from the teacher's weights."""
    teacher: str = TEACHER
    """Whose store and whose weights."""
    half: bool = False
    """Half the epochs, as in Table IV."""

    @property
    def name(self) -> str:
        """Part of a step's name; the same for rows of several tables that need the same training."""
        parts = [self.student, "copied" if self.copied else "", _loss_name(self.loss), "half" if self.half else ""]
        parts += [f"from-{self.teacher}"] if self.teacher != TEACHER else []
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One accuracy of the paper."""

    table: str
    """Number of the table."""
    setting: str
    """What the table varies, in a few words."""
    variant: Variant
    """What is trained for it."""
    paper: float
    """Top-1 on CIFAR-100 in percent."""


def harmonic(weight: str = "13") -> tuple[str, ...]:
    """Equation 4 with w_s = 1."""
    return ("--distillation", "mse", "--joint", "harmonic", "--harmonic-weights", f"{weight}:1")


def by_alpha(alpha: str) -> tuple[str, ...]:
    """Equation 1; alpha weights the loss on hard labels: a number, or FIRST:LAST."""
    return ("--distillation", "mse", "--joint", "alpha", "--alpha", alpha)


def _loss_name(loss: tuple[str, ...]) -> str:
    if not loss:
        return "labels"
    kind, value = loss[3], loss[5]
    return f"{kind}{value.replace(':1', '') if kind == 'harmonic' else value.replace(':', '-')}"


def rows_of(tables: tuple[str, ...], students: tuple[str, ...]) -> list[Row]:
    """The rows of some tables that are about some students, Table IX first.

    Args:
        tables: of ``TABLES``; X has no row, since nothing is trained for it.
        students: of ``STUDENTS``.
    """
    makers = {"IX": _table_ix, "IV": _table_iv, "V": _table_v, "VI": _table_vi, "VII": _table_vii}
    made = [row for table, maker in makers.items() if table in tables for row in maker()]
    return [row for row in made if row.variant.student in students]


def _table_ix() -> list[Row]:
    kinds = ((_LABELS, False), (harmonic(), False), (_LABELS, True), (harmonic(), True))  # in ORDER
    return [
        Row(table="IX", setting=setting, paper=paper, variant=Variant(student=student, loss=loss, copied=copied))
        for student, accuracies in _FULL.items()
        for setting, paper, (loss, copied) in zip(ORDER, accuracies, kinds, strict=True)
    ]


def _table_iv() -> list[Row]:
    return [
        Row(
            table="IV",
            setting=f"alpha {alpha}, teacher {teacher}, half the epochs",
            paper=paper,
            variant=Variant(student=student, loss=by_alpha(alpha), teacher=teacher, half=True),
        )
        for student, values in _ALPHA_HALF.items()
        for alpha, accuracies in values.items()
        for teacher, paper in zip(TEACHER_TOP1, accuracies, strict=True)
    ]


def _table_v() -> list[Row]:
    return [
        Row(table="V", setting="alpha 0.25", paper=paper, variant=Variant(student=student, loss=by_alpha("0.25")))
        for student, paper in _ALPHA_FULL.items()
    ]


def _table_vi() -> list[Row]:
    return [
        Row(
            table="VI",
            setting=f"alpha from {interval.replace(':', ' to ')}",
            paper=paper,
            variant=Variant(student="swin_n", loss=by_alpha(interval)),
        )
        for interval, paper in _SCHEDULES.items()
    ]


def _table_vii() -> list[Row]:
    return [
        Row(
            table="VII",
            setting=f"harmonic, w_d {weight}, w_s 1",
            paper=paper,
            variant=Variant(student="swin_n", loss=harmonic(weight)),
        )
        for weight, paper in _WEIGHTS.items()
    ]
