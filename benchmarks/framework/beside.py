"""A run beside a paper's: the order of its rows, the settings in which it differs, the teacher it had."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from timm.models import get_pretrained_cfg

from benchmarks.common import Row as Cells
from benchmarks.framework.base import BaseSetting
from benchmarks.framework.steps import Result
from students import resolve


def ranked(accuracies: Mapping[str, float]) -> str:
    """Names from the lowest to the highest, with the sign that stands between neighbours."""
    order = sorted(accuracies, key=lambda name: accuracies[name])
    signs = [" = " if accuracies[low] == accuracies[high] else " < " for low, high in pairwise(order)]
    return order[0] + "".join(sign + name for sign, name in zip(signs, order[1:], strict=True))


def compare(low: Cells, high: Cells, *, name: str, paper: str) -> str:
    """Whether what the paper has higher is higher here, too, and whether the intervals decide it.

    Args:
        low: a row with the cells of ``shares.percent_cells``.
        high: another one.
        name: the column that says what a row is.
        paper: the column of the paper's accuracy.
    """
    difference = high["top-1 %"] - low["top-1 %"]
    seeds = [high["seeds"][seed] > low["seeds"][seed] for seed in low["seeds"] if seed in high["seeds"]]
    apart = high["interval"][0] > low["interval"][1] or high["interval"][1] < low["interval"][0]
    verdict = "the intervals lie apart" if apart else "undecided, the intervals overlap"
    return (
        f"{high[name]} against {low[name]}: {difference:+.2f} points, higher in {sum(seeds)} of {len(seeds)} seeds; "
        f"{verdict}; the paper: {high[paper] - low[paper]:+.2f}"
    )


def settings(setting: BaseSetting, teacher: str, recipe: Mapping[str, Any], paper: Mapping[str, str]) -> list[Cells]:
    """What every protocol can say of a run, each beside what the paper says.

    Args:
        setting: what the run is.
        teacher: whose training is told.
        recipe: of the students, as ``recipe_of`` gives it; what is missing is shown as a dash.
        paper: by what it is about; "not given" where nothing stands.
    """
    teacher_epochs = setting.teacher_epochs or setting.num_epochs
    here = {
        "training images": f"{setting.images.num_samples:,} of {setting.images.name}",
        "test images": f"{setting.validation.num_samples:,}",
        "image size": f"{setting.side} px",
        "augmentation": setting.view,
        "batch": str(setting.batch),
        "epochs": str(setting.num_epochs),
        "warm-up epochs": _plain(recipe.get("warmup_epochs")),
        "peak learning rate": _plain(recipe.get("learning_rates", {}).get("peak")),
        "weight decay": _plain(recipe.get("weight_decay")),
        "stochastic depth": _plain(recipe.get("drop_path")),
        "other options": " ".join(setting.options) or "none",
        "teacher before fine-tuning": origin(setting, teacher),
        "teacher's epochs": "-" if is_given(setting, teacher) else str(teacher_epochs),
    }
    return [side_by_side(what, paper.get(what, "not given"), said) for what, said in here.items()]


def side_by_side(what: str, paper: str, here: str) -> Cells:
    """A setting, the paper's and this run's."""
    return {"what": what, "paper": paper, "here": here}


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item:.3g}" for name, item in value.items())
    return f"{value:.3g}" if isinstance(value, (int, float)) else "-"


def recipe_of(result: Result | None) -> dict[str, Any]:
    """What a finished training was trained with, as its run wrote it down; empty where there is none."""
    if result is None or not (file := Path(result["out"]) / "run.yaml").exists():
        return {}
    described = yaml.safe_load(file.read_text(encoding="utf-8"))
    effective = {name: described["effective"][name] for name in ("drop_path", "learning_rates")}
    return {**described["options"]["recipe"], **effective}


def is_given(setting: BaseSetting, teacher: str) -> bool:
    """Whether a teacher is a file of the user's."""
    return teacher in dict(setting.teacher_checkpoints)


def pretrained_tag(name: str) -> str:
    """Name and tag of timm's default weights of a model: the tag says which images they have seen."""
    cfg = get_pretrained_cfg(resolve(name))
    return f"{cfg.architecture}.{cfg.tag}"


def origin(setting: BaseSetting, teacher: str) -> str:
    """What a teacher was before it was fine-tuned, in words."""
    if is_given(setting, teacher):
        return "not known: a file that was given"
    if setting.pretrain_data is not None:
        same = setting.pretrain_data == setting.data
        here = "the training images themselves" if same else Path(setting.pretrain_data).stem
        epochs = setting.pretrain_epochs or setting.teacher_epochs or setting.num_epochs
        return f"pre-trained from random weights on {here}, {epochs} epochs"
    if setting.initial == "pretrained":
        return f"timm's pretrained weights, {pretrained_tag(teacher)}"
    return "random weights: not pre-trained" if setting.initial == "random" else "a file that was given"
