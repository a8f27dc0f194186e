"""The examples of the documents: each trains the same student from a store, alone and in two processes.

All are given the same run, without anything random in it but the initial weights, which the seed decides. A framework
that shared out batches otherwise, went through epochs otherwise, or learnt from samples without weight would end with
other weights than the plain loop.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_cases import RankServer, free_port
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from train_cases import make_store

from logitstore import TrainConfig
from logitstore.accuracy import Accuracy
from logitstore.device import Compute
from logitstore.images import open_images
from logitstore.models import build_model, own_preprocessing
from logitstore.scoring import score

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "examples"
WORKER = ROOT / "tests" / "example_worker.py"
EXTRA = {"with_lightning.py": "lightning", "with_transformers.py": "transformers"}
ROUNDING = 1e-3  # what sums in another order make of a weight in 60 steps of Adam, and less
EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run of all examples: more epochs than the store has, a third of the samples without weight."""
    folder = tmp_path_factory.mktemp("examples")
    exclude = folder / "exclude.txt"
    exclude.write_text("".join(f"{number}\n" for number in range(0, 200, 3)))
    return {
        "store": str(make_store(folder / "store")), "student": "test_vit", "epochs": 10, "batch_size": 32,
        "base_lr": 0.02, "drop_path": 0.0, "weight_decay": 0.1, "exclude": str(exclude),
        "workers": 1, "seed": 5, "device": "cpu",
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain(server: RankServer, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that the plain loop ends with, in one process."""
    return forked(server, "with_pytorch.py", 1, options, tmp_path_factory.mktemp("plain") / "weights.safetensors")


def forked(server: RankServer, name: str, world: int, options: dict[str, Any], weights: Path) -> Path:
    """Weights that an example ends with, in processes that are forked."""
    arguments = (FOLDER / name, weights, json.dumps(options))
    ended = server.run(world, arguments, weights.with_suffix(".log"), script=str(WORKER))
    assert ended.codes == [0] * world, ended.text("err")
    return weights


def started(name: str, world: int, options: dict[str, Any], weights: Path) -> Path:
    """The same in processes that are started anew, by torchrun where there are two."""
    module = EXTRA[name]
    if importlib.util.find_spec(module) is None:
        pytest.fail(f'{name} needs {module}: pip install -e ".[examples]" -c constraints.txt', pytrace=False)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", world, "--master-port", free_port())
    words = (*(torchrun if world > 1 else ()), WORKER, FOLDER / name, weights, json.dumps(options))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=weights.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return weights


def reported(weights: Path) -> float:
    with safe_open(weights, framework="pt") as file:
        return float(file.metadata()["accuracy"])


def measured(weights: Path) -> Accuracy:
    """On the validation images, by the command line's own way."""
    model = build_model("test_vit", num_classes=10, size=32)
    model.load_state_dict(load_file(weights))
    return score(
        model.eval(), open_images("digits", split="val"), size=32, preprocessing=own_preprocessing(model, 32),
        compute=Compute(device=torch.device("cpu")),
    )  # fmt: skip


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference of a weight."""
    return max(float((tensor - theirs[name]).abs().max()) for name, tensor in ours.items())


def require_same(weights: Path, plain: Path) -> None:
    """The example went the plain loop's way, and reports how well its student does."""
    ours, theirs = load_file(weights), load_file(plain)
    assert ours.keys() == theirs.keys()
    distance = furthest(ours, theirs)
    assert distance < ROUNDING
    found = measured(weights)
    assert reported(weights) == pytest.approx(found.top1 / found.images, abs=1e-6)


def test_the_plain_loop_learns(plain: Path, options: dict[str, Any]) -> None:
    before = build_model("test_vit", num_classes=10, size=32, seed=options["seed"]).state_dict()
    assert furthest(load_file(plain), before) > 20 * ROUNDING
    found = measured(plain)
    assert reported(plain) == pytest.approx(found.top1 / found.images, abs=1e-6)


def test_samples_without_weight_are_not_learnt(
    server: RankServer, plain: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    everything = load_file(
        forked(server, "with_pytorch.py", 1, options | {"exclude": None}, tmp_path / "weights.safetensors")
    )
    assert furthest(load_file(plain), everything) > 20 * ROUNDING


@pytest.mark.parametrize(("name", "world"), [("with_pytorch.py", 2), ("with_timm.py", 1), ("with_timm.py", 2)])
def test_example(
    server: RankServer, plain: Path, options: dict[str, Any], tmp_path: Path, name: str, world: int
) -> None:
    require_same(forked(server, name, world, options, tmp_path / "weights.safetensors"), plain)


def test_a_loss_that_is_no_sum_over_rows_is_that_of_all_processes(
    server: RankServer, options: dict[str, Any], tmp_path: Path
) -> None:
    joined = options | {"joint": "ratio"}
    alone, shared = (
        load_file(forked(server, "with_pytorch.py", world, joined, tmp_path / f"{world}.safetensors"))
        for world in (1, 2)
    )
    assert furthest(shared, alone) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("name", EXTRA)
def test_example_of_a_framework(plain: Path, options: dict[str, Any], tmp_path: Path, name: str, world: int) -> None:
    require_same(started(name, world, options, tmp_path / "weights.safetensors"), plain)


def test_every_example_is_tested_and_in_the_guide() -> None:
    assert set(EXAMPLES) == {"with_pytorch.py", "with_timm.py", *EXTRA}
    guide = (ROOT / "docs" / "guide.md").read_text()
    assert not [name for name in EXAMPLES if f"(examples/{name})" not in guide]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_stay_short(name: str) -> None:
    assert len((FOLDER / name).read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", EXAMPLES)
def test_options_of_an_example_are_fields(name: str) -> None:
    words = re.findall(r'"--([a-z-]+)"', (FOLDER / name).read_text())
    assert {"store", "data", "student", "epochs"} < set(words)
    assert {word.replace("-", "_") for word in words} < set(TrainConfig.__dataclass_fields__)
