"""From finished steps to a table beside the paper's, the order found, and how the settings differ.

Accuracy is the last epoch's, never the best one's, since that would be chosen on the images it is measured on. The
interval is Wilson's at the mean of the seeds, for one set of test images: it says what other test images could give.
What other seeds could give, the seeds beside it show.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from benchmarks.common import Row as Cells
from benchmarks.framework import beside
from benchmarks.framework.beside import side_by_side
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import MODELS, ORDER, TEACHER, TEACHER_TOP1
from benchmarks.framework.setting import Setting
from benchmarks.framework.shares import percent_cells, top1_of
from benchmarks.framework.steps import Result

Results = Mapping[str, Result]
"""What finished steps printed, by name."""
PAPER = "CIFAR-100 in the paper"
COLUMNS = ("table", "model", "training", "top-1 %", "95% interval", "each seed", PAPER, "difference")
SETTINGS = {
    "training images": "50,000 of CIFAR-100",
    "test images": "10,000",
    "epochs": "60 (Table IV: 30)",
    "warm-up epochs": "5",
    "peak learning rate": "2e-4",
    "weight decay": "0.01",
    "other options": "",
    "teacher before fine-tuning": "pre-trained on ImageNet-1k",
    "teacher's epochs": "60",
}
"""What the paper says of its own."""
NO_CLAIM = (
    "Digits only shows that the protocol runs: 1,437 small images, ten classes, a few epochs. No claim about accuracy "
    "comes from digits, neither for the paper's order nor against it."
)


def accuracy_rows(protocol: Protocol, results: Results) -> list[Cells]:
    """A row for each teacher and for each of the paper's rows; without accuracy where it is not done."""
    rows = [
        _cells("III", name, _teacher_words(protocol.setting, name), {0: result}, paper)
        for name, paper in TEACHER_TOP1.items()
        if f"teacher-{name}" in protocol.steps
        for result in [results.get(f"teacher-{name}")]
    ]
    for row in protocol.setting.rows:
        by_seed = {seed: results.get(f"{row.variant.name}-seed{seed}") for seed in protocol.setting.seeds}
        rows.append(_cells(row.table, row.variant.student, row.setting, by_seed, row.paper))
    if protocol.setting.is_digits:  # a difference between two data sets says nothing
        rows = [{name: value for name, value in row.items() if name != "difference"} for row in rows]
    return rows


def _cells(table: str, model: str, training: str, by_seed: Mapping[int, Result | None], paper: float) -> Cells:
    done = {seed: top1_of(result) for seed, result in by_seed.items() if result is not None}
    cells: Cells = {"table": table, "model": model, "training": training, PAPER: paper}
    if not done:
        return cells
    found = percent_cells(done)
    mean = sum(share for share, _ in done.values()) / len(done)
    return cells | found | {"difference": round(100 * mean - paper, 2)}


def orders(rows: list[Cells]) -> list[Cells]:
    """For each student of Table IX, the order found and the paper's, and what each of its steps up was worth here."""
    found = []
    for student in dict.fromkeys(row["model"] for row in rows if row["table"] == "IX"):
        trained = {row["training"]: row for row in rows if row["table"] == "IX" and row["model"] == student}
        measured = [name for name in ORDER if "top-1 %" in trained[name]]
        if len(measured) < len(ORDER):
            continue
        order = beside.ranked({name: trained[name]["top-1 %"] for name in measured})
        pairs = ((trained[low], trained[high]) for low, high in pairwise(ORDER))
        steps = [beside.compare(low, high, name="training", paper=PAPER) for low, high in pairs]
        found.append({
            "model": student,
            "found": order,
            "paper": " < ".join(ORDER),
            "same": order == " < ".join(ORDER),
            "steps": steps,
        })
    return found


def differences(protocol: Protocol, results: Results) -> list[Cells]:
    """Setting by setting, the paper's and this run's."""
    setting = protocol.setting
    stored = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
    return [
        *beside.settings(setting, TEACHER, _recipe_of(protocol, results), SETTINGS),
        side_by_side("teacher in training", "runs on every batch", "never: logits from a store; epochs of views: "
                     f"{stored}"),
        side_by_side("copied blocks", "not said whether frozen", "frozen" if setting.freeze_copied else "trained on"),
        side_by_side("seeds", "1, not said", f"{len(setting.seeds)}, one teacher for all"),
    ]  # fmt: skip


def columns(rows: list[Cells]) -> list[str]:
    """Headings of the table: those under which something stands."""
    return [column for column in COLUMNS if any(column in row for row in rows)]


def _recipe_of(protocol: Protocol, results: Results) -> dict[str, Any]:
    """What the first finished student was trained with."""
    names = [f"{row.variant.name}-seed{seed}" for seed in protocol.setting.seeds for row in protocol.setting.rows]
    return next((found for name in names if (found := beside.recipe_of(results.get(name)))), {})


def _teacher_words(setting: Setting, name: str) -> str:
    return "teacher, given" if beside.is_given(setting, name) else "teacher, fine-tuned"


def model_rows(result: Result | None) -> list[Cells]:
    """Table X: speed and size on this machine beside the paper's; empty where it was not measured."""
    if result is None:
        return []
    measured = {figures["name"]: figures for figures in result["models"]}
    return [
        {
            "model": name,
            "img/s": round(measured[name]["images_per_second"], 1),
            "paper img/s": speed,
            "M parameters": round(measured[name]["parameters"] / 1e6, 1),
            "paper M": parameters,
        }
        for name, (speed, parameters) in MODELS.items()
    ]


def summary(protocol: Protocol, results: Results, seconds: float) -> Cells:
    """What the JSON line holds."""
    rows = accuracy_rows(protocol, results)
    return {
        **protocol.progress(results, seconds),
        "claim": NO_CLAIM if protocol.setting.is_digits else None,
        "rows": rows,
        "orders": orders(rows),
        "setting": differences(protocol, results),
        "models": model_rows(results.get("models")),
    }
