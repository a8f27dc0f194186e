"""From finished steps to the table: what a record takes, what it loses, what a student makes of it.

Accuracies are those of the last epoch. Intervals are Wilson's at the mean over the seeds, for one set of test images;
what other seeds give, the seeds beside them and their deviation show. Differences are between students of the same
seed: same initial weights, same views.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row
from benchmarks.framework.shares import percent_cells, top1_of
from benchmarks.framework.steps import Result
from benchmarks.quality_parts.conditions import CONDITIONS, Condition
from benchmarks.quality_parts.numbers import correlation
from benchmarks.quality_parts.protocol import CHECK, QualityProtocol, measured

Results = Mapping[str, Result]
"""What finished steps printed, by name."""
REFERENCE = "dense"
"""What differences are taken from: the store that loses nothing."""
RECORDS = ("trained on", "K", "floor", "kept", "mass", "B/record", "metadata", "4+4K", "MB", "KL")
STUDENTS = (
    "trained on", "KL", "top-1 %", "95% interval", "each seed", "sd", "against dense", "agree %", "agree 95%",
    "KL of student",
)  # fmt: skip
_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t at 97.5%, by degrees of freedom."""
NO_CLAIM = (
    "Digits only shows that the protocol runs: 1,437 small images, ten classes, 360 to measure on. No claim about what "
    "a record must keep comes from digits."
)
MEASURES = {"top-1 %": "top1", "agreement %": "agreement", "KL(teacher || student)": "student_kl"}
"""What KL is correlated with."""


def condition_row(protocol: QualityProtocol, results: Results, condition: Condition) -> Row:
    """The cells of one condition, as far as its steps are done."""
    seeds = protocol.setting.seeds
    row: Row = {"condition": condition.name, "trained on": condition.title, **stored(protocol, results, condition)}
    done = {seed: result for seed in seeds if (result := results.get(measured(condition, seed))) is not None}
    if not done:
        return row
    row |= percent_cells({seed: top1_of(result) for seed, result in done.items()})
    agreed = {seed: (result["agreement"]["share"], result["agreement"]["images"]) for seed, result in done.items()}
    agreement = percent_cells(agreed, "agree %")
    row |= {
        "sd": _deviation([100 * top1_of(result)[0] for result in done.values()]),
        "agree %": agreement["agree %"],
        "agree 95%": agreement["95% interval"],
        "agreement": agreement["seeds"],
        "KL of student": statistics.mean(result["agreement"]["kl"] for result in done.values()),
        "student_kl": {str(seed): result["agreement"]["kl"] for seed, result in done.items()},
    }
    return row | _against_reference(results, done)


def stored(protocol: QualityProtocol, results: Results, condition: Condition) -> Row:
    """What the condition's records take and lose, in the mean over the seeds' stores."""
    if condition.name == "live":
        return {"KL": 0.0}
    steps = {seed: protocol.weighed(condition, seed) for seed in protocol.setting.seeds}
    found = {seed: results[step] for seed, step in steps.items() if step in results}
    if not found:
        return {}
    first = next(iter(found.values()))
    cells: Row = {
        "K": first["topk"],
        "floor": first["floor"],
        "kept": statistics.mean(result["mean_kept"] for result in found.values()),
        "mass": statistics.mean(result["kept_mass"] for result in found.values()),
        "B/record": statistics.mean(result["bytes_per_record"] for result in found.values()),
        "metadata": statistics.mean(result["metadata_bytes"] for result in found.values()),
        "4+4K": 4 + 4 * first["topk"],
        "MB": statistics.mean(result["bytes"] for result in found.values()) / 1e6,
    }
    if condition.name == REFERENCE:  # compared with the teacher, as nothing else holds all that it says
        return cells | ({"KL": results[CHECK]["kl"]} if CHECK in results else {})
    kl = {str(seed): result["kl"] for seed, result in found.items()}
    return cells | {"KL": statistics.mean(kl.values()), "kl": kl}


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _against_reference(results: Results, done: Mapping[int, Result]) -> Row:
    """Points of top-1 above the dense store's student of the same seed, with Student's 95% interval over the seeds."""
    others = {seed: results.get(measured(CONDITIONS[REFERENCE], seed)) for seed in done}
    points = [
        100 * (top1_of(result)[0] - top1_of(other)[0])
        for seed, result in done.items()
        if (other := others[seed]) is not None
    ]
    if not points:
        return {}
    mean, text = statistics.mean(points), f"{statistics.mean(points):+.2f}"
    half = _T_95.get(len(points) - 1, 1.96) * (_deviation(points) or 0.0) / sqrt(len(points))
    if len(points) > 1:
        text += f" ({mean - half:+.2f} to {mean + half:+.2f})"
    return {"against dense": text, "difference": {"mean": mean, "half": half if len(points) > 1 else None}}


def correlations(rows: list[Row]) -> Row:
    """KL of the records with what their students do, over the conditions that differ in nothing else.

    Given for all of them, and without the one that loses most, which may decide a correlation alone.
    """
    names = {condition.name for condition in CONDITIONS.values() if condition.compared}
    points = [row for row in rows if row["condition"] in names and "KL" in row and "top-1 %" in row]
    shared = [seed for seed in (points[0]["seeds"] if points else {}) if all(seed in row["seeds"] for row in points)]
    coarsest = max(points, key=lambda row: row["KL"])["condition"] if points else None
    chosen = {"all": points, f"without {coarsest}": [row for row in points if row["condition"] != coarsest]}
    return {
        which: {what: _correlated(some, key, shared) for what, key in MEASURES.items()}
        for which, some in chosen.items()
        if some
    }


def _correlated(points: list[Row], key: str, seeds: list[str]) -> dict[str, Any] | None:
    if not points or not seeds:
        return None
    columns = {"top1": "seeds", "agreement": "agreement", "student_kl": "student_kl"}
    kl_PS = np.array([[row.get("kl", {}).get(seed, row["KL"]) for seed in seeds] for row in points])
    found_PS = np.array([[row[columns[key]][seed] for seed in seeds] for row in points])
    return correlation(kl_PS, found_PS)


def same_weights(protocol: QualityProtocol, one: Condition, other: Condition) -> Row | None:
    """In how many seeds two conditions left the same student, bit for bit; None before both are trained."""
    equal = []
    for seed in protocol.setting.seeds:
        cards = [Path(protocol.setting.out) / f"{name}-seed{seed}" / "model.json" for name in (one.name, other.name)]
        if all(card.is_file() for card in cards):
            first, second = (json.loads(card.read_text(encoding="utf-8"))["sha256"] for card in cards)
            equal.append(first == second)
    return {"seeds": len(equal), "same": sum(equal)} if equal else None


def summary(protocol: QualityProtocol, results: Results, seconds: float) -> Row:
    """What the JSON line holds."""
    setting = protocol.setting
    teacher = results.get(f"teacher-{setting.teacher}")
    rows = [condition_row(protocol, results, CONDITIONS[name]) for name in setting.conditions]
    packed = [CONDITIONS[name] for name in setting.conditions if CONDITIONS[name].packed]
    return {
        **protocol.progress(results, seconds),
        "training_images": setting.images.num_samples,
        "test_images": setting.validation.num_samples,
        "size": setting.side,
        "epochs": setting.num_epochs,
        "cycled_epochs": setting.cycled_epochs,
        "view": setting.view,
        "batch": setting.batch,
        "recipe": setting.recipe,
        "student": setting.student,
        "teacher": {"name": setting.teacher, **({} if teacher is None else percent_cells({0: top1_of(teacher)}))},
        "claim": NO_CLAIM if setting.is_digits else None,
        "rows": rows,
        "correlations": correlations(rows),
        "packed_same_students": {
            condition.name: same_weights(protocol, CONDITIONS[condition.packed or ""], condition)
            for condition in packed
        },
    }
