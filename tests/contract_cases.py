"""What the tests of contraction share: models, and a small search on a part of digits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_cases import make_store

from logitstore import speed
from logitstore.contract import ContractConfig
from logitstore.images import open_images
from students.contract import Factors, published_factors

SMALL = Factors(
    widths=(32, 64, 64, 128), depths=(1, 1, 3, 1), windows=(4, 2, 1), mbconv_ratio=2, mlp_ratio=2, head_dim=32
)


def factors_of(name: str, size: int = 224) -> Factors:
    found = published_factors(f"tiny_vit_{name}", size)
    assert found is not None
    return found


def make_material(folder: Path) -> Path:
    """A store of 64 digits, and twenty others to validate on, in this folder."""
    digits = open_images("digits", split="val")
    assert digits.labels is not None
    pixels = np.stack([digits.pixels(number) for number in range(20)])
    np.savez(folder / "val.npz", images=pixels, labels=np.asarray(digits.labels[:20]))
    return make_store(folder / "store", subset=64)


def config(folder: Path, out: Path, **options: object) -> ContractConfig:
    """Two steps of two candidates, of two steps of training each; ``folder`` is what ``make_material`` filled."""
    values: dict[str, object] = {
        "start": "tinyvit_5m", "max_params": 200_000, "steps": 2, "candidates": 2, "epochs": 1, "batch_size": 32,
        "store": str(folder / "store"), "val_data": str(folder / "val.npz"), "out": str(out), "workers": 1,
    }  # fmt: skip
    return ContractConfig(**{**values, **options})  # type: ignore[arg-type]


@contextmanager
def briefly_timed() -> Iterator[None]:
    """One pass of one image is enough of a measurement."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_LEAST_SECONDS": 0.0, "_SECONDS_OF_PAIRS": 0.0, "_LEAST_PAIRS": 1}.items():
            patch.setattr(speed, name, value)
        patch.setitem(speed.MEASURED_BATCH, "cpu", 1)
        yield


def journal(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]


def trials(out: Path) -> list[dict[str, Any]]:
    """The candidates in a journal, without what depends on the moment."""
    lines = [line["trial"] for line in journal(out) if "trial" in line]
    return [{name: value for name, value in line.items() if name != "throughput"} for line in lines]
