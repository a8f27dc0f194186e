"""Small real dumps that the tests of the producer share: pictures in a file, fixed teachers, snapshots of stores."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import picture
from torch import Tensor, nn

from logitstore.dump import DumpConfig

CLASSES = 12
MIXED_VIEW = "base: tinyvit\nmixup: 0.8\ncutmix: 1.0\n"


class ColourTeacher(nn.Module):
    """A fixed function of the views: random weights on pixel means, with ties among the logits."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.classifier = nn.Linear(48, CLASSES)
        self.pause_s = pause_s

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if self.pause_s:
            time.sleep(self.pause_s)
        return 3 * self.classifier(nn.functional.adaptive_avg_pool2d(images_BCHW, 4).flatten(1))


def teacher() -> nn.Module:
    """What ``--teacher dump_cases:teacher`` calls. Takes its time in processes that are to be killed on the way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return ColourTeacher(float(os.environ.get("DUMP_CASES_PAUSE_S", "0")))


def broken_teacher() -> nn.Module:
    """Gives a NaN for bright views only, so not at once."""

    class Broken(nn.Module):
        def forward(self, images_BCHW: Tensor) -> Tensor:
            mean_B = images_BCHW.mean((1, 2, 3))
            return torch.where(mean_B > 0.5, torch.nan, mean_B)[:, None].repeat(1, CLASSES)

    return Broken()


def write_data(path: Path, count: int = 300, *, first: int = 0, labels: bool = True) -> Path:
    """An ``.npz`` of ``count`` pictures; ``first`` is the seed of the first one."""
    images = np.stack([picture(20, 24, first + number) for number in range(count)])
    arrays: dict[str, Any] = {"images": images}
    if labels:
        arrays["labels"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)
    return path


def config(folder: Path, store: str = "store", **options: Any) -> DumpConfig:
    """A dump of two epochs, five shards each, with everything that views may do, Mixup and CutMix included.

    Args:
        folder: where ``data.npz`` lies or is made, and ``view.yaml``.
        store: name of the store in it.
        options: fields of ``DumpConfig`` that differ.
    """
    data, view = folder / "data.npz", folder / "view.yaml"
    if not data.exists():
        write_data(data)
    view.write_text(MIXED_VIEW)
    values: dict[str, Any] = {
        "teacher": "dump_cases:teacher",
        "topk": 5,
        "data": str(data),
        "store": str(folder / store),
        "epochs": 2,
        "size": 16,
        "view": str(view),
        "shard_size": 64,
        "batch_size": 32,
        "workers": 1,
        "seed": 11,
    }
    return DumpConfig(**{**values, **options})


def snapshot(store: Path) -> dict[str, bytes]:
    """Every file of a store by name; of commits, what counts: all but ``info``."""
    files: dict[str, bytes] = {}
    for path in sorted(store.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.parent.name == "commits" and path.suffix == ".json" and path.name != "zarr.json":
                document = json.loads(data)
                assert document.pop("info")["pid"]
                data = json.dumps(document, sort_keys=True).encode()
            files[path.relative_to(store).as_posix()] = data
    return files


def environment(pause_s: float = 0.0) -> dict[str, str]:
    """For processes that run this project's code and import teachers from the tests; these pause in every batch."""
    root = Path(__file__).resolve().parent.parent
    paths = os.pathsep.join([str(root), str(root / "tests")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DUMP_CASES_PAUSE_S": str(pause_s)}
