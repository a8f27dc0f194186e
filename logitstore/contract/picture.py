"""The picture of a contraction: accuracy against parameters and against speed, with the front of each."""

from __future__ import annotations

import math
from pathlib import Path

from logitstore.contract.result import ContractResult, parameters_of, pareto, throughput_of
from logitstore.drawing import require_matplotlib

_SIZE_INCHES = (10.0, 4.6)
_BOUND, _FRONT, _BEST = "#888888", "#333333", "#c0392b"


def draw_contraction(result: ContractResult, out: str | Path) -> Path:
    """Draw all candidates that were trained, and write the picture.

    Args:
        result: what was found.
        out: file to write; its suffix chooses the format.

    Returns:
        the path written.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = require_matplotlib()(figsize=_SIZE_INCHES, layout="constrained")
    target = result.steps[-1].bounds
    panels = (
        ("parameters in millions", parameters_of, 1e-6, target.parameters),
        ("images a second", throughput_of, -1.0, -target.throughput),
    )
    for axes, (label, cost, unit, bound) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for step in result.steps:
            drawn = [entry for entry in result.trained if entry.trial.step == step.number]
            x = [unit * cost(entry) for entry in drawn]
            axes.plot(x, [100 * (entry.trial.score or 0) for entry in drawn], "o", label=f"step {step.number}")
        front = sorted(pareto(result.trained, cost), key=cost)
        axes.plot(
            [unit * cost(entry) for entry in front], [100 * (entry.trial.score or 0) for entry in front],
            color=_FRONT, linewidth=0.8, label="front",
        )  # fmt: skip
        if bound not in (math.inf, 0.0):
            axes.axvline(unit * bound, color=_BOUND, linewidth=0.8, linestyle=":", label="target")
        best = result.best
        axes.plot(unit * cost(best), 100 * (best.trial.score or 0), "*", color=_BEST, markersize=14, label="best")
        for entry in result.trained:
            if name := result.names.get(entry.trial.number):
                axes.annotate(name, (unit * cost(entry), 100 * (entry.trial.score or 0)), fontsize=7)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("top-1 after the short training, %")
    first.legend(fontsize=7)
    figure.suptitle(f"{result.model} on {result.data}, contracted in {len(result.steps)} steps", fontsize=10)
    path = Path(out)
    figure.savefig(path, dpi=120)
    return path
