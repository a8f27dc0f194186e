"""What the benchmarks share: the machine's description, interleaved timing, tables, dated results.

Nothing here measures anything by itself. A result is a JSON file under ``benchmarks/results/`` named by its date and
question; its last field, ``rows``, is what the script printed as a table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real data that may lie beside the checkout; never needed."""
PACKAGES = ("logitstore", "torch", "timm", "numpy", "numba", "pillow", "zarr", "numcodecs")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What one repeat of a candidate took."""

    count: int
    """Units of work done: images, records, steps."""
    wall: float
    """Seconds on the clock."""
    cpu: float
    """Seconds of processor time of this process, all threads together."""

    @property
    def rate(self) -> float:
        """Units per second of wall time."""
        return self.count / self.wall

    @property
    def rate_per_core(self) -> float:
        """Units per second and core: a candidate that uses two threads is charged for both."""
        return self.count / max(self.wall, self.cpu)


Work = Callable[[], "int | Timing"]
"""One repeat of a candidate: returns the units it did, or its own timing where setting up must not count."""


def timed(work: Work) -> Timing:
    """Run ``work`` once."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    if isinstance(done, Timing):
        return done
    return Timing(count=done, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


def interleaved(candidates: Mapping[str, Work], *, repeats: int) -> dict[str, list[Timing]]:
    """Time the candidates in turn, ``repeats`` rounds, after one round that is thrown away.

    Taking turns spreads whatever else the machine does over all candidates alike. Every second round runs backwards, so
    that none is always first.
    """
    for work in candidates.values():
        work()
    timings: dict[str, list[Timing]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(repeats):
        for name in names if turn % 2 == 0 else reversed(names):
            timings[name].append(timed(candidates[name]))
    return timings


def median_rate(timings: Sequence[Timing], *, per_core: bool = False) -> float:
    """Median over the repeats of units per second (per core where asked)."""
    return statistics.median(timing.rate_per_core if per_core else timing.rate for timing in timings)


def median_ratio(above: Sequence[Timing], below: Sequence[Timing], *, per_core: bool = False) -> float:
    """Median over the rounds of the ratio of two rates taken in the same round."""
    pairs = zip(above, below, strict=True)
    return statistics.median(
        (a.rate_per_core / b.rate_per_core) if per_core else (a.rate / b.rate) for a, b in pairs
    )


def hardware() -> Row:
    """Processor, cores, memory, accelerator, and how busy the machine was when asked."""
    description: Row = {
        "cpu": _processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        description["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        description["load_average"] = round(os.getloadavg()[0], 2)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        description["gpu"] = torch.cuda.get_device_name()
    return description


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a number depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--save", action="store_true", help="write a dated result under benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="small sizes, for the tests: the numbers mean little")
    return parser


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as an aligned table; floats with four significant digits, absent cells empty."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    for line in [list(columns), ["-" * width for width in widths], *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def against_ceiling(rates: Mapping[str, float], unit: str, ceiling: Mapping[str, str] | str) -> list[Row]:
    """Rows of rates, each with its share of the best that it could be.

    Args:
        rates: by name.
        unit: what they are, the column's name.
        ceiling: name of the rate that bounds the others, or by name of each rate that has a bound.
    """
    bounds = dict.fromkeys(rates, ceiling) if isinstance(ceiling, str) else ceiling
    return [
        {"what": name, unit: rate, "of ceiling": rate / rates[bounds[name]] if name in bounds else None}
        for name, rate in rates.items()
    ]


def print_verdicts(summary: Row, *, at_least: Mapping[str, float], at_most: Mapping[str, float]) -> None:
    """Each number that has a target beside it, as far as it was measured."""
    print()
    for targets, words in ((at_least, "at least"), (at_most, "at most")):
        for name, target in targets.items():
            if name in summary:
                met = summary[name] >= target if targets is at_least else summary[name] <= target
                print(f"{name}: {summary[name]:,.4g}, target {words} {target:,g}: {'met' if met else 'missed'}")


def finish(question: str, summary: Row, *, save: bool, details: Row | None = None) -> None:
    """Write the dated result where asked, then print the summary as the last line, one JSON object.

    Args:
        question: the script's name, part of the file name.
        summary: what the JSON line holds.
        save: whether to write a file.
        details: further fields of the file that would make the line too long.
    """
    now = datetime.datetime.now(datetime.UTC)
    result = {
        "question": question,
        "date": now.isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": versions(),
        "arguments": sys.argv[1:],
        **(details or {}),
        **summary,
    }
    if save:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{now:%Y-%m-%d-%H%M%S}-{question}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"Saved as {path}.")
    sys.stdout.flush()
    print(json.dumps(summary), flush=True)
