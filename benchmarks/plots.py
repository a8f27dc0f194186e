"""Draw the pictures of docs/performance.md from the newest results under ``benchmarks/results/``.

    python -m benchmarks.plots [--results DIR] [--out docs]

Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import RESULTS, Row

INK, CEILING, RIVAL = "#1f5673", "#b8c4cc", "#d98032"


def newest(results: Path, question: str) -> Row:
    """The last dated result of a benchmark.

    Raises:
        SystemExit: there is none.
    """
    found = sorted(results.glob(f"*-{question}.json"))
    if not found:
        raise SystemExit(f"{results} holds no result of {question}: run python -m benchmarks.{question} --save first.")
    return {**json.loads(found[-1].read_text()), "file": found[-1].name}


def draw_views(result: Row, path: Path) -> None:
    """Images per second and core: ours, timm's, and decoding alone."""
    from matplotlib.figure import Figure

    rows = result["tables"]["views"]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    names = [row["what"] for row in rows]
    colours = [CEILING if "ceiling" in name else RIVAL if "timm" in name else INK for name in names]
    bars = axes.barh(names, [row["images_per_s"] for row in rows], color=colours)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("images per second, one core")
    axes.set_title(f"Views at 224 px, the TinyViT recipe ({result['date'][:10]})", fontsize=10)
    figure.savefig(path, dpi=110)


def draw_scaling(result: Row, path: Path) -> None:
    """Cost per record and private memory against the number of samples."""
    from matplotlib.figure import Figure

    rows = result["rows"]
    samples = [row["samples"] for row in rows]
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    cost, memory = figure.subplots(1, 2)
    cost.loglog(samples, [row["write_us"] for row in rows], "s-", color=RIVAL, label="write")
    cost.loglog(samples, [row["scan_us"] for row in rows], "o-", color=INK, label="scan")
    cost.set_ylabel("microseconds a record, one core")
    cost.legend()
    memory.semilogx(samples, [row["private_mib"] for row in rows], "o-", color=INK)
    memory.set_ylim(bottom=0)
    memory.set_ylabel("private memory of a scan, MiB")
    for axes in (cost, memory):
        axes.set_xlabel("samples, N")
        axes.grid(alpha=0.3)
    figure.suptitle(f"A store of K=10 records, one epoch ({result['date'][:10]})", fontsize=10)
    figure.savefig(path, dpi=110)


def main(words: Sequence[str] | None = None) -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results lie")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs", help="for the PNGs")
    args = parser.parse_args(words)
    for question, name, draw in (
        ("throughput", "performance-views.png", draw_views),
        ("scaling", "performance-scaling.png", draw_scaling),
    ):
        result = newest(args.results, question)
        draw(result, args.out / name)
        print(f"{args.out / name} from {result['file']}")


if __name__ == "__main__":
    main()
