"""A small real training run that the tests of the consumer share: digits, a fixed teacher, a tiny student."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from logitstore.dump import DumpConfig, dump
from logitstore.progress import Progress
from logitstore.train import TrainConfig

STUDENT = "test_efficientnet"  # timm's: 0.1 M parameters, with BatchNorm and stochastic depth
SUBSET, BATCH = 200, 32  # six steps in an epoch, and eight samples left out


class PooledTeacher(nn.Module):
    """A fixed function of the views: random weights on 4x4 pixel means."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(48, 10)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return 4 * self.classifier(nn.functional.adaptive_avg_pool2d(images_BCHW, 4).flatten(1))


def pooled_teacher() -> nn.Module:
    """What ``--teacher train_cases:pooled_teacher`` calls."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return PooledTeacher()


def make_store(path: Path, **options: object) -> Path:
    """A store of a part of digits, two epochs in four shards each unless ``options`` say otherwise."""
    values: dict[str, object] = {
        "teacher": "train_cases:pooled_teacher",
        "topk": 5,
        "store": str(path),
        "epochs": 2,
        "subset": SUBSET,
        "shard_size": 64,
        "batch_size": 64,
        "workers": 1,
    }
    result = dump(DumpConfig(**{**values, **options}))  # type: ignore[arg-type]
    assert result.complete
    return path


def config(out: Path, **options: object) -> TrainConfig:
    """A run of two epochs of six steps, with drop path and an average of the weights; writes no events."""
    values: dict[str, object] = {
        "student": STUDENT,
        "out": str(out),
        "epochs": 2,
        "batch_size": BATCH,
        "drop_path": 0.2,
        "ema_decay": 0.9,
        "workers": 1,
        "tensorboard": False,
        "log_steps": 1,
    }
    return TrainConfig(**{**values, **options})  # type: ignore[arg-type]


def same_weights(one: str | Path, other: str | Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(out: str | Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


class Spy(Progress):
    """Keeps what is said; runs ``at[step]`` when that step is done."""

    def __init__(self, at: dict[int, object] | None = None) -> None:
        super().__init__(None, quiet=True)
        self.said: list[str] = []
        self.at = at or {}
        self.steps = 0

    def __call__(self, total: int | None, unit: str, label: str) -> Progress:
        self.total = total
        return self

    def say(self, text: str) -> None:
        self.said.append(text)

    def advance(self, units: int = 1, **notes: object) -> None:
        super().advance(units, **notes)
        action = self.at.get(self.done // BATCH)
        if callable(action):
            action()
