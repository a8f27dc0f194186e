"""How fast are scan, view replay, dump and training, against what they could be?

    python -m benchmarks.throughput [--images DIR|TAR] [--device cuda] [--only scan,views,dump,train] [--save]

Four measurements, each against its ceiling or its rival, repeats interleaved, medians reported.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import SHARED_DATA, Row, arguments, finish, hardware, print_table
from benchmarks.measures import dump, scan, train, views

REAL_IMAGES = SHARED_DATA / "imagenet_sample_200.tar"
TARGETS = {"scan_records_per_s": 2e6, "view_ratio": 1.5, "dump_ratio": 0.9, "train_ratio": 0.95}
PARTS = ("scan", "views", "dump", "train")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much each part does."""

    scan_samples: int = 1 << 18
    view_images: int = 200
    images: int = 1437
    epochs: int = 2
    batch_size: int = 64
    steps: int = 4
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(scan_samples=1 << 14, view_images=6, images=64, epochs=1, batch_size=16, steps=1, repeats=1)
FULL_CUDA = Sizes(epochs=8, batch_size=256, repeats=5)


def measure_views(path: Path | None, sizes: Sizes) -> tuple[Row, list[Row]]:
    """View replay on one thread, torch included; the number of threads is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return views.measure(path, limit=sizes.view_images, repeats=sizes.repeats)
    finally:
        torch.set_num_threads(before)


def measure_all(args: argparse.Namespace, sizes: Sizes, folder: Path) -> tuple[Row, dict[str, list[Row]]]:
    """Run the parts asked for, print their tables, collect their fields."""
    images = args.images or (REAL_IMAGES if REAL_IMAGES.exists() else None)
    common = {"device": args.device, "batch_size": sizes.batch_size, "images": sizes.images, "repeats": sizes.repeats}
    parts: dict[str, Callable[[], tuple[Row, list[Row]]]] = {
        "scan": lambda: scan.measure(num_samples=sizes.scan_samples, repeats=sizes.repeats),
        "views": lambda: measure_views(images, sizes),
        "dump": lambda: dump.measure(folder, epochs=sizes.epochs, **common),
        "train": lambda: train.measure(dump.any_store(folder, **common), steps=sizes.steps, **common),
    }
    summary: Row = {}
    tables: dict[str, list[Row]] = {}
    for name in args.only:
        began = time.perf_counter()
        fields, tables[name] = parts[name]()
        summary |= fields
        print_table(tables[name], list(tables[name][0]))
        print(f"({time.perf_counter() - began:.0f} s, load average {hardware().get('load_average')})")
    return summary, tables


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    return [name for name in PARTS if name in names]


def main() -> None:
    """Parse, measure, compare with the targets, print the JSON line."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder or tar of JPEGs; else real ones if present, else made ones")
    parser.add_argument("--device", default="cpu", help="of the teacher and the student")
    parser.add_argument("--only", type=_parts, default=list(PARTS), help="parts, separated by commas")
    args = parser.parse_args()
    sizes = QUICK if args.quick else FULL if args.device == "cpu" else FULL_CUDA
    print(f"{hardware()}")
    with tempfile.TemporaryDirectory(prefix="logitstore-throughput-") as folder:
        summary, tables = measure_all(args, sizes, Path(folder))
    print()
    for name, target in TARGETS.items():
        if name in summary:
            verdict = "met" if summary[name] >= target else "missed"
            print(f"{name}: {summary[name]:,.4g}, target {target:,g}: {verdict}")
    finish("throughput", summary, save=args.save, details={"tables": tables})


if __name__ == "__main__":
    main()
