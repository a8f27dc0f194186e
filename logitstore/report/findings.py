"""What an audit found, as rows, as a file that ``train --exclude`` reads, and as a contact sheet.

Shape suffixes: N samples, M chosen samples, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.cards import write_atomically
from logitstore.drawing import require_matplotlib
from logitstore.errors import InputError
from logitstore.images import ImageSet
from logitstore.loader.exclusion import AUDIT_FORMAT, AUDIT_VERSION
from logitstore.report.contact_sheet import BARS, Panel, draw_sheet
from logitstore.report.hard_samples import Opinions, Tally
from logitstore.views.resize import resize_window

_SHOWN = 28  # characters of a name above a picture
_THUMBNAIL = 256  # pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What was counted, for the report and the sheet."""

    images: ImageSet
    """The data set, with labels that number the teacher's classes."""
    names: Sequence[str] | None
    """Of the teacher's classes; None where nobody knows them."""
    counts: Tally
    """Of all samples."""
    hard: NDArray[np.int64]
    """Hard samples, worst first."""
    worst: NDArray[np.int64]
    """The first of them."""
    said: Opinions
    """Of the worst."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[N]."""
        assert self.images.labels is not None
        return self.images.labels

    @property
    def judged(self) -> int:
        """Samples with a view that counts."""
        return int((self.counts.views_N > 0).sum())

    @property
    def views(self) -> int:
        """Views that count."""
        return int(self.counts.views_N.sum())

    def class_name(self, number: int) -> str:
        """A class's name, else its number."""
        return str(self.names[number]) if self.names else str(number)

    def row(self, number: int) -> dict[str, Any]:
        """One hard sample."""
        return {
            "sample": number,
            "name": self.images.image_name(number),
            "label": self.class_name(int(self.labels[number])),
            "outside": float(self.counts.share_N[number]),
            "views": int(self.counts.views_N[number]),
            "label_prob": float(self.counts.mean_label_prob_N[number]),
        }

    @cached_property
    def worst_rows(self) -> list[dict[str, Any]]:
        """The worst, with the class that is the most probable over all views, and how often it comes first."""
        best_M = self.said.prob_MC.argmax(1)
        return [
            {
                **self.row(number),
                "teacher_says": self.class_name(best),
                "teacher_prob": float(self.said.prob_MC[place, best]),
                "teacher_first": float(self.said.first_MC[place, best]),
            }
            for place, (number, best) in enumerate(zip(self.worst.tolist(), best_M.tolist(), strict=True))
        ]

    @cached_property
    def classes(self) -> list[dict[str, Any]]:
        """Classes that have hard samples, the largest share first."""
        judged_C = np.bincount(self.labels[self.counts.views_N > 0])
        hard_C = np.bincount(self.labels[self.hard], minlength=len(judged_C))
        rows = [
            {
                "class": self.class_name(number),
                "judged": int(judged_C[number]),
                "hard": int(hard_C[number]),
                "share": float(hard_C[number] / judged_C[number]),
            }
            for number in np.flatnonzero(hard_C).tolist()
        ]
        return sorted(rows, key=lambda row: (-row["share"], -row["judged"]))

    def write(self, path: Path, described: dict[str, Any]) -> Path:
        """Write the report: one JSON object, with a line for each hard sample however many there are."""
        head = {
            "format": AUDIT_FORMAT,
            "version": AUDIT_VERSION,
            **described,
            "views": self.views,
            "judged": self.judged,
            "hard": len(self.hard),
            "classes": self.classes,
            "worst": self.worst_rows,
        }

        def write(temporary: Path) -> None:
            with temporary.open("w", encoding="utf-8") as stream:
                stream.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "samples": [')
                for place, number in enumerate(self.hard.tolist()):
                    stream.write(f"{',' if place else ''}\n{json.dumps(self.row(number), ensure_ascii=False)}")
                stream.write("\n]}\n")

        write_atomically(path, write)
        return path

    def draw(self, path: Path) -> str | None:
        """The worst samples as whole images, with the teacher's mean opinion; None where there is nothing to draw."""
        path.unlink(missing_ok=True)  # of an earlier audit
        try:
            require_matplotlib()
        except InputError:  # a picture is an extra; the report is there
            return None
        if not len(self.worst):
            return None
        panels = []
        for place, number in enumerate(self.worst.tolist()):
            order = np.argsort(-self.said.prob_MC[place], kind="stable")[:BARS]
            label = int(self.labels[number])
            panels.append(
                Panel(
                    title=f"{self.images.image_name(number)[-_SHOWN:]}\nlabel {self.class_name(label)[:_SHOWN]}",
                    view_3HW=_thumbnail(self.images.pixels(number)),
                    index_K=order,
                    prob_K=self.said.prob_MC[place, order],
                    label=label,
                )
            )
        title = f"The {len(panels)} worst samples of {self.images.name}: their labels, and the teacher's mean opinion"
        return str(draw_sheet(panels, path, title=title, names=self.names))


def _thumbnail(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole image [3, h, w], its long side at most 256 pixels."""
    height, width = pixels_HWC.shape[:2]
    if max(height, width) <= _THUMBNAIL:
        return pixels_HWC.transpose(2, 0, 1)
    rows, columns = (max(1, side * _THUMBNAIL // max(height, width)) for side in (height, width))
    view_3HW = np.empty((3, rows, columns), np.uint8)
    resize_window(pixels_HWC, (0, 0, width, height), (columns, rows), (0, 0), False, view_3HW)
    return view_3HW
