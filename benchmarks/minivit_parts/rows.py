"""What the paper measured: the components of weight multiplexing, and the losses of its distillation, as rows.

Source: Zhang et al., "MiniViT: Compressing Vision Transformers with Weight Multiplexing" (CVPR 2022), Tables 1 and 3,
all on ImageNet-1k. A row here is a claim to be compared with, never a result of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLES = ("swin", "deit", "losses")
"""Table 1's two halves, and Table 3."""

_NO_TRANSFORM = ("attn_transform=false", "mlp_transform=false")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One model, before its widths are cut to what a machine can do."""

    name: str
    """In names of steps."""
    model: str
    """As ``--student`` takes it."""
    arguments: tuple[str, ...] = ()
    """As ``--student-arg`` takes them."""
    million: float
    """Parameters in the paper, in millions."""

    @property
    def is_deit(self) -> bool:
        """Whether it is a DeiT: else a Swin."""
        return self.name.startswith("deit")


SWIN = Architecture(name="swin", model="swin_t", million=28)
SWIN_WS = Architecture(name="swin-ws", model="mini_swin_t", arguments=_NO_TRANSFORM, million=12)
SWIN_MUX = Architecture(name="swin-ws-wt", model="mini_swin_t", million=12)
DEIT = Architecture(name="deit", model="deit_s", million=22)
DEIT_WS = Architecture(name="deit-ws", model="mini_deit_s", arguments=_NO_TRANSFORM, million=11)
DEIT_MUX = Architecture(name="deit-ws-wt", model="mini_deit_s", million=11)
FAMILIES = {"swin": (SWIN, SWIN_WS, SWIN_MUX), "deit": (DEIT, DEIT_WS, DEIT_MUX)}
"""All that are measured, by family; the same whatever tables are chosen."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a model is trained on."""

    name: str
    """In names of steps."""
    labels: bool = False
    """Hard labels: alone, or beside the teacher's answers with half the weight each."""
    answers: bool = True
    """L_pred, eq. 9: the teacher's answers, from a store."""
    attention: float = 0.0
    """beta, the weight of L_attn, eq. 10, for which the teacher is in memory."""
    hidden: float = 0.0
    """gamma, the weight of L_hddn, eq. 11, likewise."""

    @property
    def is_online(self) -> bool:
        """Whether the teacher is in memory."""
        return bool(self.attention or self.hidden)


LABELS = Loss(name="labels", labels=True, answers=False)
ANSWERS = Loss(name="answers")
BOTH = Loss(name="labels-answers", labels=True)
ATTENTION = Loss(name="answers-attention", attention=1.0)
HIDDEN = Loss(name="answers-hidden", hidden=1.0)
ALL = Loss(name="all", attention=1.0, hidden=1.0)
DISTILLED = Loss(name="distilled", attention=1.0, hidden=0.1)
"""Eq. 12 with the paper's beta and gamma: what Table 1 calls weight distillation, with a transformer as teacher."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One accuracy of the paper."""

    table: str
    """Of ``TABLES``."""
    title: str
    """What the row has, in a few words."""
    architecture: Architecture
    """What is trained for it."""
    loss: Loss
    """On what."""
    paper: float
    """Top-1 on ImageNet-1k in percent."""

    @property
    def step(self) -> str:
        """Name of its training, without the seed; the same for rows that need the same training."""
        return f"{self.architecture.name}-{self.loss.name}"


def _table_1(table: str, distilled: Loss, paper: tuple[float, ...]) -> list[Row]:
    base, shared, transformed = FAMILIES[table]
    made = (
        ("base", base, LABELS),
        ("WS", shared, LABELS),
        ("WS+WD", shared, distilled),
        ("WS+WT", transformed, LABELS),
        ("WS+WD+WT", transformed, distilled),
    )
    return [
        Row(table=table, title=title, architecture=architecture, loss=loss, paper=accuracy)
        for (title, architecture, loss), accuracy in zip(made, paper, strict=True)
    ]


def _table_3() -> list[Row]:
    made = (
        ("GT", LABELS, 79.2),
        ("pred", ANSWERS, 81.2),
        ("GT+pred", BOTH, 80.9),
        ("pred+attn", ATTENTION, 81.4),
        ("pred+hddn", HIDDEN, 81.5),
        ("pred+attn+hddn", ALL, 81.4),
    )
    return [
        Row(table="losses", title=title, architecture=SWIN_MUX, loss=loss, paper=accuracy)
        for title, loss, accuracy in made
    ]


ROWS = (
    *_table_1("swin", DISTILLED, (81.2, 79.0, 79.8, 79.2, 81.4)),
    *_table_1("deit", ANSWERS, (79.9, 78.3, 80.1, 79.3, 80.7)),
    *_table_3(),
)
"""In the paper's order. base: the original; WS: weights are shared; WT: transformations; WD: distillation."""

COMPARED = {
    "swin": (("base", "WS"), ("WS", "WS+WD"), ("WS", "WS+WT"), ("WS", "WS+WD+WT"), ("base", "WS+WD+WT")),
    "losses": (("GT", "pred"), ("pred", "GT+pred"), ("pred", "pred+attn"), ("pred", "pred+hddn"),
               ("pred", "pred+attn+hddn")),
}  # fmt: skip
COMPARED["deit"] = COMPARED["swin"]
"""Pairs of rows, by table, whose difference the paper speaks of: the second against the first."""


def rows_of(tables: tuple[str, ...]) -> list[Row]:
    """The rows of some tables, in the paper's order."""
    return [row for row in ROWS if row.table in tables]
