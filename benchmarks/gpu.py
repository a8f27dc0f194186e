"""What does a GPU wait for? Training from a store, dumping, and the loss, each beside what it could be at best.

    python -m benchmarks.gpu [--images DIR|TAR] [--save]           # under ten minutes on one GPU
    python -m benchmarks.gpu --device cpu --quick                  # only shows that it runs

Weights are random: this is about speed and memory, not accuracy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import SHARED_DATA, Row, arguments, finish, hardware, print_table, print_verdicts
from benchmarks.measures import dump, fixed, live, loss, views
from logitstore.device import default_workers, resolve_device
from logitstore.dump import DumpConfig
from logitstore.dump import dump as dump_store
from logitstore.launch import usable_cores
from logitstore.train import TrainConfig

REAL_IMAGES = SHARED_DATA / "imagenet_sample_200.tar"
AT_LEAST = {"train_ratio": 0.98, "dump_ratio": 0.97}
AT_MOST = {"loss_ratio": 1.1, "loss_extra_bytes": 0}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much to do."""

    images: int = 200
    copies: int = 40
    """How often each image stands in the data set, so that a repeat lasts."""
    size: int = 224
    student: str = "tinyvit_21m"
    batch_size: int = 256
    steps: int = 20
    dump_epochs: int = 5
    """Enough that what a dump does before its first and after its last batch weighs little."""
    loss_shape: tuple[int, int, int] = (loss.BATCH, loss.CLASSES, loss.TOPK)
    teachers: tuple[str, ...] = ("swin_t_224", "swin_l_224")
    classes: int = 1000
    repeats: int = 3


FULL = Sizes()
QUICK = Sizes(
    images=4,
    copies=5,
    size=32,
    student="tinyvit_5m",
    batch_size=2,
    steps=1,
    dump_epochs=1,
    loss_shape=(8, 512, 10),
    teachers=("swin_t",),
    classes=10,
    repeats=1,
)


class Benchmark:
    """All rows on one device.

    Args:
        sizes: how much to do.
        device: where.
        images: a folder or tar of JPEGs, or None for made ones.
        folder: for scratch files.
    """

    def __init__(self, sizes: Sizes, device: str, images: Path | None, folder: Path) -> None:
        self._sizes, self._device, self._folder = sizes, device, folder
        blobs, self.source = views.load_jpegs(images, limit=sizes.images)
        self._packed = views.pack_jpegs(blobs * sizes.copies, folder, classes=sizes.classes)
        self._blobs = blobs

    def views(self) -> tuple[Row, list[Row]]:
        """What one core gives: how many of them a GPU needs."""
        return views.measure(self._blobs, self._folder / "views", source=self.source, repeats=self._sizes.repeats)

    def dump(self) -> tuple[Row, list[Row]]:
        """Dump from packed images against inference alone, through the first teacher."""
        sizes = self._sizes
        return dump.measure(
            self._packed,
            self._folder,
            teacher=sizes.teachers[0],
            size=sizes.size,
            device=self._device,
            batch_size=sizes.batch_size,
            epochs=sizes.dump_epochs,
            repeats=sizes.repeats,
        )

    def train(self) -> tuple[Row, list[Row]]:
        """A step from the store, with labels, and with each teacher alive."""
        sizes = self._sizes
        store = self._folder / "train-store"
        common = {"data": str(self._packed), "size": sizes.size, "batch_size": sizes.batch_size, "device": self._device}
        teacher = f"{fixed.__name__}:{sizes.teachers[0]}"
        dump_store(DumpConfig(teacher=teacher, store=str(store), epochs=1, view="tinyvit", **common))
        common |= {"student": sizes.student, "epochs": 100}
        print(f"\nTraining {sizes.student} at {sizes.size} px, {sizes.steps} steps of {sizes.batch_size} a repeat.")
        return live.measure(
            TrainConfig(store=str(store), **common),
            TrainConfig(hard_labels_only=True, **common),
            {name: getattr(fixed, name) for name in sizes.teachers},
            steps=sizes.steps,
            repeats=sizes.repeats,
        )

    def loss(self) -> tuple[Row, list[Row]]:
        """Loss and gradient, in the type that a GPU trains in."""
        batch, classes, topk = self._sizes.loss_shape
        dtype = "bfloat16" if self._device.startswith("cuda") else "float32"
        return loss.measure(
            device=self._device, repeats=self._sizes.repeats, batch=batch, classes=classes, topk=topk, dtype=dtype
        )


def main() -> None:
    """Parse, measure, compare with the targets, print the JSON line."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder or tar of JPEGs; else real ones if present, else made ones")
    parser.add_argument("--device", default="cuda", help="the GPU; cpu only shows that the script runs")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here, so nothing to measure: --device cpu --quick shows that it runs.")
    device = str(resolve_device(args.device))
    images = args.images or (REAL_IMAGES if REAL_IMAGES.exists() else None)
    print(hardware())
    began = time.perf_counter()
    summary: Row = {"device": device}
    tables: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="logitstore-gpu-") as folder:
        benchmark = Benchmark(QUICK if args.quick else FULL, device, images, Path(folder))
        parts: list[Callable[[], tuple[Row, list[Row]]]] = [
            benchmark.views,
            benchmark.dump,
            benchmark.train,
            benchmark.loss,
        ]
        for part in parts:
            fields, tables[part.__name__] = part()
            summary |= fields
            print_table(tables[part.__name__], list(tables[part.__name__][0]))
    cores = summary["dump_bare_images_per_s"] / summary["packed_view_images_per_s"]
    summary |= {"cores": usable_cores(), "workers": default_workers(resolve_device(device)), "dump_cores_needed": cores}
    summary["train_cores_needed"] = summary["train_hard_labels_images_per_s"] / summary["packed_view_images_per_s"]
    print(f"\n({time.perf_counter() - began:.0f} s)")
    print(f"cores that decode and render for this GPU: {cores:.1f} to dump; there are {usable_cores()}")
    print_verdicts(summary, at_least=AT_LEAST, at_most=AT_MOST)
    finish("gpu", summary, save=args.save, details={"tables": tables})


if __name__ == "__main__":
    main()
