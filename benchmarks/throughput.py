"""How fast are scan, view replay, dump, loss and training, against what they could be? And what do they cost to hold?

    python -m benchmarks.throughput [--images DIR|TAR] [--device cuda] [--only scan,views,dump,...] [--save]

Each measurement stands beside its ceiling or its rival; repeats are interleaved, medians reported.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import SHARED_DATA, Row, arguments, finish, hardware, print_table, print_verdicts
from benchmarks.measures import dump, loss, pair, private, scan, train, views

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("scan", "views", "dump", "train", "loss", "pair", "private", "start")
REAL_IMAGES = SHARED_DATA / "imagenet_sample_200.tar"
AT_LEAST = {
    "scan_records_per_s": 5e6,
    "scan100_records_per_s": 1e6,
    "view_ratio": 2.0,
    "packed_view_ratio": 4.0,
    "dump_ratio": 0.95,
    "train_ratio": 0.98,
    "pair_mean_records_per_s": 1e6,
    "pair_train_ratio": 0.98,
}
AT_MOST = {"loss_ratio": 1.1, "loss_extra_bytes": 0, "rss_growth_mib": 100.0, "import_s": 0.3, "help_s": 0.3}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much each part does."""

    scan_samples: int = 1 << 18
    view_images: int = 200
    dump_images: int = 128
    dump_batch: int = 32
    dump_teacher: str = "swin_t_224"
    dump_size: int = 224
    digits: int = 1437
    batch_size: int = 64
    steps: int = 4
    loss_shape: tuple[int, int, int] = (loss.BATCH, loss.CLASSES, loss.TOPK)
    private_samples: tuple[int, int] = (10_000, 10_000_000)
    private_places: int = 12
    starts: int = 5
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(
    scan_samples=1 << 14,
    view_images=6,
    dump_images=2,
    dump_batch=2,
    dump_teacher="swin_t",
    dump_size=32,
    digits=64,
    batch_size=16,
    steps=1,
    loss_shape=(8, 512, 10),
    private_samples=(200, 2000),
    private_places=1,
    starts=1,
    repeats=1,
)


class Benchmark:
    """The parts, and what several of them need.

    Args:
        args: of the command line.
        sizes: how much to do.
        folder: for scratch files.
    """

    def __init__(self, args: argparse.Namespace, sizes: Sizes, folder: Path) -> None:
        self._args, self._sizes, self._folder = args, sizes, folder
        self.parts: dict[str, Callable[[], tuple[Row, list[Row]]]] = {
            "scan": lambda: scan.measure(num_samples=sizes.scan_samples, repeats=sizes.repeats),
            "views": self.views,
            "dump": self.dump,
            "train": self.train,
            "loss": self.loss,
            "pair": self.pair,
            "private": lambda: private.measure(
                folder / "private", sizes=sizes.private_samples, places=sizes.private_places
            ),
            "start": self.start,
        }

    @cached_property
    def _jpegs(self) -> tuple[list[bytes], str]:
        images = self._args.images or (REAL_IMAGES if REAL_IMAGES.exists() else None)
        return views.load_jpegs(images, limit=self._sizes.view_images)

    def views(self) -> tuple[Row, list[Row]]:
        """View replay on one thread."""
        blobs, source = self._jpegs
        return views.measure(blobs, self._folder / "views", source=source, repeats=self._sizes.repeats)

    def dump(self) -> tuple[Row, list[Row]]:
        """Dump from packed images against inference alone."""
        packed = views.pack_jpegs(self._jpegs[0][: self._sizes.dump_images], self._folder / "dump")
        return dump.measure(
            packed,
            self._folder / "dump",
            teacher=self._sizes.dump_teacher,
            size=self._sizes.dump_size,
            device=self._args.device,
            batch_size=self._sizes.dump_batch,
            epochs=1,
            repeats=self._sizes.repeats,
        )

    def train(self) -> tuple[Row, list[Row]]:
        """A training step with a store against one with labels, on digits."""
        common = {"device": self._args.device, "batch_size": self._sizes.batch_size, "images": self._sizes.digits}
        store = dump.digits_store(self._folder, **common)
        return train.measure(store, steps=self._sizes.steps, repeats=self._sizes.repeats, **common)

    def loss(self) -> tuple[Row, list[Row]]:
        """Loss and gradient against those of hard labels."""
        batch, classes, topk = self._sizes.loss_shape
        device, repeats = self._args.device, self._sizes.repeats
        return loss.measure(device=device, repeats=repeats, batch=batch, classes=classes, topk=topk)

    def pair(self) -> tuple[Row, list[Row]]:
        """Two stores of the same views against one."""
        sizes, device = self._sizes, self._args.device
        return pair.measure(
            self._folder / "pair",
            num_samples=sizes.scan_samples,
            device=device,
            batch_size=sizes.batch_size,
            images=sizes.digits,
            steps=sizes.steps,
            repeats=sizes.repeats,
        )

    def start(self) -> tuple[Row, list[Row]]:
        """How long a new process takes to import the package, and to print the command's help; Python included."""
        print("\nA new process, Python's own start included. The ceiling is Python alone.")
        words = {
            "python": ["-c", "pass"],
            "import": ["-c", "import logitstore"],
            "help": ["-m", "logitstore", "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in words}
        for _ in range(self._sizes.starts + 1):  # the first one fills the page cache
            for name, given in words.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *given], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
                seconds[name].append(time.perf_counter() - began)
        medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
        rows = [{"what": name, "seconds": value} for name, value in medians.items()]
        return {"import_s": medians["import"], "help_s": medians["help"]}, rows


def measure_all(parts: dict[str, Callable[[], tuple[Row, list[Row]]]]) -> tuple[Row, dict[str, list[Row]]]:
    """Run parts, print their tables, collect their fields."""
    summary: Row = {}
    tables: dict[str, list[Row]] = {}
    for name, part in parts.items():
        began = time.perf_counter()
        fields, tables[name] = part()
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
    print(f"{hardware()}")
    with tempfile.TemporaryDirectory(prefix="logitstore-throughput-") as folder:
        benchmark = Benchmark(args, QUICK if args.quick else FULL, Path(folder))
        summary, tables = measure_all({name: benchmark.parts[name] for name in args.only})
    print_verdicts(summary, at_least=AT_LEAST, at_most=AT_MOST)
    finish("throughput", summary, save=args.save, details={"tables": tables})


if __name__ == "__main__":
    main()
