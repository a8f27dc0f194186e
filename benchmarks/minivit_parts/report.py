"""From finished steps to the ablation's table beside the paper's, the order found, and how the settings differ.

Accuracy is the last epoch's. The interval is Wilson's at the mean of the seeds, for one set of test images; what other
seeds could give, the seeds beside it show. No difference to the paper's accuracies is taken: they are ImageNet's.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from benchmarks.common import Row as Cells
from benchmarks.framework import beside
from benchmarks.framework.beside import side_by_side
from benchmarks.framework.shares import percent_cells, top1_of
from benchmarks.framework.steps import Result
from benchmarks.minivit_parts.protocol import MiniVitProtocol, trained
from benchmarks.minivit_parts.rows import COMPARED, FAMILIES, Row

Results = Mapping[str, Result]
"""What finished steps printed, by name."""
PAPER = "ImageNet-1k in the paper"
TITLES = {"swin": "Table 1, Swin-T", "deit": "Table 1, DeiT-S", "losses": "Table 3, Mini-Swin-T"}
COLUMNS = ("table", "row", "M parameters", "GMACs", "img/s", "speed", "top-1 %", "95% interval", "each seed", PAPER,
           "paper M")  # fmt: skip
SETTINGS = {
    "training images": "1,281,167 of ImageNet-1k",
    "test images": "50,000",
    "image size": "224 px",
    "augmentation": "RandAugment, Mixup, CutMix, erasing; DeiT's images three times an epoch",
    "batch": "1024",
    "epochs": "300",
    "warm-up epochs": "20 (Swin), 5 (DeiT)",
    "peak learning rate": "1e-3",
    "weight decay": "0.05",
    "stochastic depth": "0 (Mini-Swin-T, Mini-DeiT-S), 0.2 and 0.1 (Swin-T, DeiT-S)",
    "other options": "",
    "teacher before fine-tuning": "pre-trained on ImageNet-22k",
}
"""What the paper, or the configurations that it inherits, say of its own."""
NO_CLAIM = (
    "Digits only shows that the protocol runs: 1,437 small images, ten classes, a few epochs, narrow models. No claim "
    "about accuracy comes from digits, neither for the paper's order nor against it."
)
LITTLE_CLAIM = (
    "The paper's numbers are of ImageNet-1k, 300 epochs and a teacher pre-trained on ImageNet-22k. An order found on "
    "other data, in few epochs and with another teacher neither confirms nor refutes them; where intervals overlap, "
    "nothing is decided even here. Weights are shared, work is not: GMACs and img/s do not fall with the parameters."
)


def rows(protocol: MiniVitProtocol, results: Results) -> list[Cells]:
    """A row for the teacher and for each of the paper's rows; without accuracy where it is not done."""
    setting, teacher = protocol.setting, protocol.setting.teacher_name
    result = results.get(f"teacher-{teacher}")
    found: list[Cells] = [{"table": "", "row": f"teacher {teacher}"}]
    if result is not None:
        found[0] |= percent_cells({0: top1_of(result)})
    figures = architecture_figures(protocol, results)
    for row in setting.rows:
        by_seed = {seed: results.get(trained(row, seed)) for seed in setting.seeds}
        done = {seed: top1_of(result) for seed, result in by_seed.items() if result is not None}
        cells: Cells = {"table": TITLES[row.table], "row": row.title, PAPER: row.paper}
        cells |= {"paper M": row.architecture.million, **figures.get(row.architecture.name, {})}
        found.append({**cells, **(percent_cells(done) if done else {})})
    return found


def architecture_figures(protocol: MiniVitProtocol, results: Results) -> dict[str, Cells]:
    """Parameters, work and speed by name of architecture, as far as they are measured."""
    found = {}
    for family in protocol.setting.families:
        result = results.get(f"figures-{family}")
        measured = [] if result is None else result["models"]
        for kind, figures in zip(FAMILIES[family], measured, strict=False):
            rate = figures["relative_speed"] * measured[0]["images_per_second"]
            found[kind.name] = {
                "M parameters": round(figures["parameters"] / 1e6, 2),
                "GMACs": round(figures["macs"] / 1e9, 4),
                "img/s": round(rate, 1),
                "speed": round(figures["relative_speed"], 2),
            }
    return found


def orders(setting_rows: list[Row], cells: list[Cells]) -> list[Cells]:
    """For each table whose rows are all done: the order found, the paper's, and the differences that it speaks of."""
    by_row = {(cell["table"], cell["row"]): cell for cell in cells}
    found = []
    for table in dict.fromkeys(row.table for row in setting_rows):
        own = {row.title: by_row[TITLES[table], row.title] for row in setting_rows if row.table == table}
        if any("top-1 %" not in cell for cell in own.values()):
            continue
        here = {title: cell["top-1 %"] for title, cell in own.items()}
        paper = {title: cell[PAPER] for title, cell in own.items()}
        by_paper = sorted(own, key=lambda title: paper[title])
        pairs = [(low, high) for low, high in combinations(by_paper, 2) if paper[low] < paper[high]]
        agreeing = sum(here[low] < here[high] for low, high in pairs)
        told = [beside.compare(own[low], own[high], name="row", paper=PAPER) for low, high in COMPARED[table]]
        found.append({
            "table": TITLES[table],
            "found": beside.ranked(here),
            "paper": beside.ranked(paper),
            "pairs": len(pairs),
            "agreeing": agreeing,
            "same": agreeing == len(pairs),
            "differences": told,
        })
    return found


def differences(protocol: MiniVitProtocol, results: Results) -> list[Cells]:
    """Setting by setting, the paper's and this run's."""
    setting = protocol.setting
    stored = min(setting.store_epochs or setting.num_epochs, setting.num_epochs)
    names = [trained(row, seed) for seed in setting.seeds for row in setting.rows]
    recipe: dict[str, Any] = next((found for name in names if (found := beside.recipe_of(results.get(name)))), {})
    arguments = {family: " ".join(setting.arguments_of(family)) or "none" for family in setting.families}
    lines = [
        *beside.settings(setting, setting.teacher_name, recipe, SETTINGS),
        side_by_side("teacher's answers", "of a model in memory", f"from a store; epochs of views: {stored}"),
        side_by_side("label smoothing", "0.1", f"{recipe['label_smoothing']:g}" if recipe else "-"),
    ]
    if "swin" in setting.families:
        lines += [
            side_by_side("teacher of Swin", "Swin-B", setting.teacher_name),
            side_by_side("layers compared", "11:23,9:21,7:15,5:9,3:3,1:1 (student:teacher)", setting.matched),
            side_by_side("hidden states", "Gram matrices in the reference, eq. 11 in the paper", "eq. 11"),
        ]
    if "deit" in setting.families:
        lines += [
            side_by_side("teacher of DeiT", "RegNetY-16GF", f"{setting.teacher_name}; its answers alone"),
            side_by_side("DeiT without sharing", "with class token", "with class token; the others have none"),
        ]
    return [
        *lines,
        *(side_by_side(f"arguments of every {family}", "", given) for family, given in arguments.items()),
        side_by_side("seeds", "1, not said", f"{len(setting.seeds)}, one teacher for all"),
    ]


def summary(protocol: MiniVitProtocol, results: Results, seconds: float) -> Cells:
    """What the JSON line holds."""
    cells = rows(protocol, results)
    return {
        **protocol.progress(results, seconds),
        "claim": NO_CLAIM if protocol.setting.is_digits else LITTLE_CLAIM,
        "rows": cells,
        "orders": orders(protocol.setting.rows, cells),
        "setting": differences(protocol, results),
    }


def columns(cells: list[Cells]) -> list[str]:
    """Headings of the table: those under which something stands."""
    return [column for column in COLUMNS if any(column in row for row in cells)]
