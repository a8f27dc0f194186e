"""The picture of a plan: divergence against bytes, one line for each K."""

from __future__ import annotations

from pathlib import Path

from logitstore.cuts import Cut
from logitstore.drawing import require_matplotlib
from logitstore.plan.grid import front
from logitstore.plan.result import PlanResult

_SIZE_INCHES = (8.5, 5.2)
_MARKERS = {"q8": "o", "q4": "^", "q2": "v", "f16": "s"}
_LINES = {"standard": "--", "packed": "-"}
_INK, _TARGET, _USUAL = "#333333", "#c0392b", "#888888"
_LEAST_KL = 1e-9
"""Records of all classes diverge less than can be drawn on a logarithmic scale."""


def draw_plan(result: PlanResult, out: str | Path) -> Path:
    """Draw a plan and write the picture.

    Args:
        result: what was found.
        out: file to write; its suffix chooses the format.

    Returns:
        the path written.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    from matplotlib.ticker import LogLocator

    figure = figure_class(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    epochs = result.stored_epochs
    topks = sorted({row.cut.topk for row in result.rows})
    for number, topk in enumerate(topks):
        colour = f"C{number}"
        for row in (row for row in result.rows if row.cut.topk == topk):
            fill = "full" if row.codec == "packed" else "none"
            size = row.weight.bytes_per_record(epochs)
            kl = max(row.kl, _LEAST_KL)
            axes.plot(size, kl, _MARKERS[row.cut.values], color=colour, fillstyle=fill, markersize=5, alpha=0.8)
        axes.plot([], [], "o", color=colour, label=f"K={topk}")
        # What a plain record of as many classes takes: seed, classes and float16 values, uncompressed.
        usual = [row.kl for row in result.rows if row.cut == Cut(topk=topk, values=row.cut.values)]
        if usual:
            axes.plot(4 + 4 * topk, max(min(usual), _LEAST_KL), "x", color=_USUAL)
    axes.plot([], [], "x", color=_USUAL, label="4+4K bytes, uncompressed")
    for values in dict.fromkeys(row.cut.values for row in result.rows):
        axes.plot([], [], _MARKERS[values], color=_INK, fillstyle="none", label=values)
    for codec in dict.fromkeys(row.codec for row in result.rows):
        best = [row for row in front(result.rows, epochs) if row.codec == codec]
        sizes = [row.weight.bytes_per_record(epochs) for row in best]
        kls = [max(row.kl, _LEAST_KL) for row in best]
        axes.plot(sizes, kls, color=_INK, linewidth=0.8, linestyle=_LINES[codec], label=codec)
    axes.axhline(result.target_kl, color=_TARGET, linewidth=0.8, linestyle=":", label=f"target {result.target_kl:g}")
    if result.recommended is not None:
        size = result.recommended.weight.bytes_per_record(epochs)
        axes.plot(size, max(result.recommended.kl, _LEAST_KL), "*", color=_TARGET, markersize=14, label="recommended")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("bytes a record, everything included")
    axes.set_ylabel("KL(teacher || record) in nat")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7, ncols=2)
    axes.set_title(
        f"{result.teacher} on {result.data}: {result.sample_views:,} views, a store of {epochs} epochs", fontsize=10
    )
    path = Path(out)
    figure.savefig(path, dpi=120)
    return path
