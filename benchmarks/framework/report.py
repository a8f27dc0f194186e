"""From finished steps to a table beside the paper's, the order found, and how the settings differ.

Accuracy is the last epoch's, never the best one's, since that would be chosen on the images it is measured on. The
interval is Wilson's at the mean of the seeds, for one set of test images: it says what other test images could give.
What other seeds could give, the seeds beside it show.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import Row as Cells
from benchmarks.framework.protocol import Protocol
from benchmarks.framework.rows import MODELS, ORDER, TEACHER, TEACHER_TOP1
from benchmarks.framework.setting import Setting
from benchmarks.framework.shares import percent_cells, top1_of
from benchmarks.framework.steps import Result

Results = Mapping[str, Result]
"""What finished steps printed, by name."""
PAPER = "CIFAR-100 in the paper"
COLUMNS = ("table", "model", "training", "top-1 %", "95% interval", "each seed", PAPER, "difference")
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
        order = _ranked({name: trained[name]["top-1 %"] for name in measured})
        steps = [_compare(trained[low], trained[high]) for low, high in pairwise(ORDER)]
        found.append({
            "model": student,
            "found": order,
            "paper": " < ".join(ORDER),
            "same": order == " < ".join(ORDER),
            "steps": steps,
        })
    return found


def _ranked(accuracies: Mapping[str, float]) -> str:
    """Names from the lowest to the highest, with the sign that stands between neighbours."""
    order = sorted(accuracies, key=lambda name: accuracies[name])
    signs = [" = " if accuracies[low] == accuracies[high] else " < " for low, high in pairwise(order)]
    return order[0] + "".join(sign + name for sign, name in zip(signs, order[1:], strict=True))


def _compare(low: Cells, high: Cells) -> str:
    """Whether what the paper has higher is higher here, too, and whether the intervals decide it."""
    difference = high["top-1 %"] - low["top-1 %"]
    seeds = [high["seeds"][seed] > low["seeds"][seed] for seed in low["seeds"] if seed in high["seeds"]]
    apart = high["interval"][0] > low["interval"][1] or high["interval"][1] < low["interval"][0]
    verdict = "the intervals lie apart" if apart else "undecided, the intervals overlap"
    return (
        f"{high['training']} against {low['training']}: {difference:+.2f} points, higher in {sum(seeds)} of "
        f"{len(seeds)} seeds; {verdict}; the paper: {high[PAPER] - low[PAPER]:+.2f}"
    )


def differences(protocol: Protocol, results: Results) -> list[Cells]:
    """Setting by setting, the paper's and this run's."""
    setting = protocol.setting
    recipe = _recipe_of(protocol, results)
    teacher_epochs = setting.teacher_epochs or setting.num_epochs
    stored = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
    rate = recipe.get("learning_rates", {}).get("peak")
    return [
        _line("training images", "50,000 of CIFAR-100", f"{setting.images.num_samples:,} of {setting.images.name}"),
        _line("test images", "10,000", f"{setting.validation.num_samples:,}"),
        _line("image size", "not given", f"{setting.side} px"),
        _line("augmentation", "not given", setting.view),
        _line("batch", "not given", str(setting.batch)),
        _line("epochs", "60 (Table IV: 30)", str(setting.num_epochs)),
        _line("warm-up epochs", "5", _plain(recipe.get("warmup_epochs"))),
        _line("peak learning rate", "2e-4", _plain(rate)),
        _line("weight decay", "0.01", _plain(recipe.get("weight_decay"))),
        _line("stochastic depth", "not given", _plain(recipe.get("drop_path"))),
        _line("other options", "", " ".join(setting.options) or "none"),
        _line("teacher before fine-tuning", "pre-trained on ImageNet-1k", _origin(setting, TEACHER)),
        _line("teacher's epochs", "60", "-" if _is_given(setting, TEACHER) else str(teacher_epochs)),
        _line("teacher in training", "runs on every batch", f"never: logits from a store; epochs of views: {stored}"),
        _line("copied blocks", "not said whether frozen", "frozen" if setting.freeze_copied else "trained on"),
        _line("seeds", "1, not said", f"{len(setting.seeds)}, one teacher for all"),
    ]


def columns(rows: list[Cells]) -> list[str]:
    """Headings of the table: those under which something stands."""
    return [column for column in COLUMNS if any(column in row for row in rows)]


def _line(what: str, paper: str, here: str) -> Cells:
    return {"what": what, "paper": paper, "here": here}


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item:.3g}" for name, item in value.items())
    return f"{value:.3g}" if isinstance(value, (int, float)) else "-"


def _recipe_of(protocol: Protocol, results: Results) -> dict[str, Any]:
    """What the first finished student was trained with, as its run wrote it down."""
    names = [f"{row.variant.name}-seed{seed}" for seed in protocol.setting.seeds for row in protocol.setting.rows]
    for name in names:
        if name in results and (file := Path(results[name]["out"]) / "run.yaml").exists():
            described = yaml.safe_load(file.read_text(encoding="utf-8"))
            effective = {name: described["effective"][name] for name in ("drop_path", "learning_rates")}
            return {**described["options"]["recipe"], **effective}
    return {}


def _is_given(setting: Setting, name: str) -> bool:
    return name in dict(setting.teacher_checkpoints)


def _teacher_words(setting: Setting, name: str) -> str:
    return "teacher, given" if _is_given(setting, name) else "teacher, fine-tuned"


def _origin(setting: Setting, name: str) -> str:
    """What a teacher was before it was fine-tuned, in words."""
    if _is_given(setting, name):
        return "not known: a file that was given"
    if setting.pretrain_data is not None:
        same = setting.pretrain_data == setting.data
        here = "the training images themselves" if same else Path(setting.pretrain_data).stem
        epochs = setting.pretrain_epochs or setting.teacher_epochs or setting.num_epochs
        return f"pre-trained from random weights on {here}, {epochs} epochs"
    if setting.initial == "pretrained":
        return "timm's pretrained weights (ImageNet-1k)"
    return "random weights: not pre-trained" if setting.initial == "random" else "a file that was given"


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
        "complete": all(name in results for name in protocol.steps),
        "steps_done": sum(name in results for name in protocol.steps),
        "steps": len(protocol.steps),
        "seconds": round(seconds, 1),
        "data": protocol.setting.images.name,
        "claim": NO_CLAIM if protocol.setting.is_digits else None,
        "rows": rows,
        "orders": orders(rows),
        "setting": differences(protocol, results),
        "models": model_rows(results.get("models")),
    }
