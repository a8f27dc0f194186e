"""What a plan finds, and how it is said."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from typing import Any

from logitstore.cards import run_folder
from logitstore.cuts import Cut
from logitstore.inference import InferenceConfig
from logitstore.plan.config import PlanConfig
from logitstore.plan.epochs import EVIDENCE, Storing
from logitstore.plan.grid import Row, front
from logitstore.progress import duration
from logitstore.sampling import with_interval
from logitstore.store.manifest import NO_MASS_CUT

_SHOWN = {
    "topk": "K", "floor": "floor", "mass": "mass", "gain": "gain", "values": "values", "mean_kept": "kept",
    "kept_mass": "of mass", "kl": "KL", "kl_error": "s.e.", "top1": "top-1", "top5": "top-5",
    "bytes_per_record": "bytes", "gigabytes": "GB",
}  # fmt: skip
_WORTH_SHOWING = 0.1
"""Text leaves out rows of the front that diverge less by no more than this share."""


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """Records of many cuts, what they cost, and which to take."""

    teacher: str
    """Its name."""
    data: str
    """The data set's name."""
    num_samples: int
    """N."""
    num_classes: int
    """C."""
    sample_views: int
    """Views that the teacher was shown."""
    sample_images: int
    """Images that they are of."""
    views_per_second: float
    """Rendered and shown to the teacher, side by side, as in a dump."""
    teacher_views_per_second: float
    """Of the teacher alone."""
    target_kl: float
    """Mean divergence that is good enough, in nat."""
    training_epochs: int
    """Epochs of the training run that the store is for."""
    stored_epochs: int
    """Epochs of the store that rows are about and that is recommended."""
    rows: tuple[Row, ...]
    """Everything that was tried."""
    recommended: Row | None
    """The smallest records that reach the target; None where none do."""
    recommended_standard: Row | None
    """The same among standard stores, which need no ``convert``."""
    storings: tuple[Storing, ...]
    """What fewer epochs save, with the records recommended."""
    command: str | None
    """How to make the store."""
    notes: tuple[str, ...]
    """What to know about these numbers."""
    picture: str | None
    """The picture that was drawn."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: every row, those of the front marked."""
        best = front(self.rows, self.stored_epochs)
        rows = [{**row.to_dict(self.stored_epochs), "front": row in best} for row in self.rows]
        recommended = {
            name: None if row is None else row.to_dict(self.stored_epochs)
            for name, row in (("recommended", self.recommended), ("recommended_standard", self.recommended_standard))
        }
        return {
            **vars(self),
            **recommended,
            "notes": list(self.notes),
            "rows": rows,
            "storings": [storing.to_dict() for storing in self.storings],
            "evidence": EVIDENCE,
        }

    def lines(self) -> dict[str, Any]:
        """As text shows it: of the rows only the front, by bytes."""
        report: dict[str, Any] = {
            "teacher": f"{self.teacher}, {self.num_classes:,} classes",
            "data": f"{self.data}, {self.num_samples:,} images",
            "sample": f"{self.sample_views:,} views of {self.sample_images:,} images",
            "speed": f"{self.views_per_second:,.1f} views/s; the teacher alone {self.teacher_views_per_second:,.1f}",
            "tried": f"{len(self.rows)} kinds of records, in a store of {self.stored_epochs} epochs; shown are those "
            "that none beats in both bytes and KL",
        }
        for codec in dict.fromkeys(row.codec for row in self.rows):
            report[codec] = [_shown(row, self.stored_epochs) for row in self._worth_showing() if row.codec == codec]
        if self.recommended is not None:
            plain = self.recommended_standard
            report |= {
                "recommended": f"{self._in_words(self.recommended)} (target {self.target_kl:g})",
                "command": self.command,
                **({} if plain in (None, self.recommended) else {"without convert": self._in_words(plain)}),
                "cycling": f"what storing fewer than the {self.training_epochs} epochs of training saves",
                "stores": [_shown_storing(storing) for storing in self.storings],
                "evidence": EVIDENCE,
            }
        if self.picture is not None:
            report["picture"] = self.picture
        return {**report, **{f"note {number}": note for number, note in enumerate(self.notes, 1)}}

    def _in_words(self, row: Row) -> str:
        size = row.weight.bytes_per_record(self.stored_epochs)
        return f"{row.codec}, KL {with_interval(row.kl, row.kl_error)} at {size:.1f} bytes a record"

    def _worth_showing(self) -> list[Row]:
        """Of the front, rows that gain something over the one shown before, and the one recommended."""
        shown: list[Row] = []
        for row in front(self.rows, self.stored_epochs):
            named = row is self.recommended or row is self.recommended_standard
            if named or not shown or row.codec != shown[-1].codec or row.kl < (1 - _WORTH_SHOWING) * shown[-1].kl:
                shown.append(row)
        return shown


def command(config: PlanConfig, row: Row, epochs: int, data: str) -> str:
    """What makes a store of such records, of the views that were planned with.

    Args:
        config: the plan's.
        row: the records.
        epochs: to store.
        data: name of the data set.
    """
    dump = _dump_command(config, row.cut, epochs)
    if row.codec == "standard":
        return dump
    store = run_folder("dump", config.teacher, data)
    return f"{dump} && {shlex.join(['logitstore', 'convert', str(store), f'{store}-packed'])}"


def _dump_command(config: PlanConfig, cut: Cut, epochs: int) -> str:
    words = ["logitstore", "dump"]
    for field in fields(InferenceConfig):
        value = getattr(config, field.name)
        if value != field.default:
            option = f"--{field.name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    words += ["--epochs", str(epochs), "--topk", str(cut.topk), "--floor", repr(cut.floor or 0)]
    if cut.mass < NO_MASS_CUT:
        words += ["--mass", repr(cut.mass)]
    if cut.gain > 0:
        words += ["--gain", repr(cut.gain)]
    return shlex.join([*words, "--values", cut.values])


def _shown(row: Row, epochs: int) -> dict[str, Any]:
    values = row.to_dict(epochs)
    return {title: values[name] for name, title in _SHOWN.items()}


def _shown_storing(storing: Storing) -> dict[str, Any]:
    return {
        "epochs": storing.epochs,
        "a view is seen": f"{storing.times_seen:.3g} times",
        "teacher": duration(storing.hours * 3600),
        "GB": storing.gigabytes,
        "saved": f"{storing.saved:.0%}",
        "measured": "costs nothing" if storing.measured else "-",
    }
