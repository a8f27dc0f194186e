"""What only a GPU runs, against the same on the CPU; run by ``test_gpu``.

LOGITSTORE_TEST_DEVICE=cpu shows on any machine that the cases themselves are right.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dump_cases import config as dump_config
from learner_cases import HARD, SOFT, learner, make_batches
from torch import Tensor
from train_cases import config as train_config
from train_cases import make_store, metrics

from logitstore.device import resolve_device
from logitstore.dump import dump
from logitstore.evaluate import EvalConfig, evaluate
from logitstore.loader import prefetched
from logitstore.loader.memory import BatchMemory
from logitstore.store import open_store
from logitstore.topk import Fetch, select_topk
from logitstore.train import train

DEVICE = resolve_device(os.environ.get("LOGITSTORE_TEST_DEVICE", "cuda"))
ON_GPU = DEVICE.type == "cuda"
pytestmark = pytest.mark.filterwarnings("default")  # what torch advises depends on the GPU


def test_batches_arrive_whole_while_their_memory_is_used_again() -> None:
    memory = BatchMemory(nbytes=1 << 24, kept=2, pinned=ON_GPU)

    def made():
        for number in range(40):
            array = memory.take(1 << 24)
            array[:] = number
            yield array

    def place(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(DEVICE, non_blocking=True)

    square = torch.ones(2048, 2048, device=DEVICE)
    sums = []
    for placed in prefetched(made(), place, DEVICE):
        for _ in range(10 if ON_GPU else 0):  # so that the device falls behind
            square = torch.mm(square, square) / 2048
        sums.append(torch.stack([placed.min(), placed.max()]))
        del placed
    assert torch.stack(sums).tolist() == [[number, number] for number in range(40)]


@pytest.mark.parametrize("gain", [0.0, 1e-4])
@pytest.mark.parametrize(("classes", "topk"), [(7, 7), (1000, 10), (21_841, 100)])
def test_the_selection_is_the_cpus(classes: int, topk: int, gain: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits_BC = torch.randn(64, classes, generator=generator).to(torch.bfloat16)  # with many ties
    expected = select_topk(logits_BC, topk, 1e-4, gain=gain).numpy()
    fetch = Fetch(select_topk(logits_BC.to(DEVICE), topk, 1e-4, gain=gain, check=False))
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(fetch.numpy).result()
    for name in ("index_BK", "kept_B"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    for name in ("logp_BK", "tail_B", "logz_B"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("criterion", [SOFT, HARD])
def test_steps_go_as_on_the_cpu(criterion, accumulate: int) -> None:
    losses = {}
    for device in (torch.device("cpu"), DEVICE):
        taught = learner(device=device, criterion=criterion, accumulate=accumulate, drop_path=0.0)
        ready = prefetched(make_batches(mixed=True), taught.place, device)
        losses[device] = [float(taught.train_step(placed).total) for placed in ready]
        taught.require_finite()
    np.testing.assert_allclose(
        losses[DEVICE], losses[torch.device("cpu")], rtol=5e-3
    )  # a GPU's convolutions round to TF32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_learner_in_half_precision_goes_on_from_its_state(dtype: torch.dtype) -> None:
    batches = make_batches()
    taught = learner(device=DEVICE, dtype=dtype)
    for batch in batches[:2]:
        taught.train_step(batch)
    other = learner(device=DEVICE, dtype=dtype)
    other.load_state_dict(taught.state_dict())
    after = [float(one.train_step(batches[2]).total) for one in (taught, other)]
    assert after[0] == pytest.approx(after[1], rel=1e-2) and taught.step == other.step == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_a_dump_keeps_what_the_cpu_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    for name, device in (("there", DEVICE.type), ("here", "cpu")):
        options = {"compile": compiled and device == DEVICE.type}
        assert dump(dump_config(tmp_path, name, device=device, dtype="float32", epochs=1, **options)).complete
    there, here = (open_store(tmp_path / name).read(0, 0, 300) for name in ("there", "here"))
    np.testing.assert_array_equal(there.sample, here.sample)
    np.testing.assert_array_equal(there.seed, here.seed)
    np.testing.assert_allclose(there.prob[:, 0], here.prob[:, 0], atol=2e-2)  # written in eight bits, and TF32
    np.testing.assert_allclose(there.tail, here.tail, atol=2e-2)


def test_from_dump_to_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    store = make_store(tmp_path / "store", device=DEVICE.type)
    run = train_config(tmp_path / "run", store=str(store), device=DEVICE.type)
    result = train(run)
    assert result.steps == 12 and all(np.isfinite(row["loss"]) for row in metrics(tmp_path / "run") if "loss" in row)
    assert train(replace(run, workers=2)).steps == 12  # finds nothing left to do
    found = evaluate(EvalConfig(checkpoint=result.checkpoint, data="digits", device=DEVICE.type))
    assert found.accuracy.images == result.accuracy["images"]


if torch.cuda.device_count() > 1 or not ON_GPU:

    @pytest.mark.parametrize("student", ["test_vit", "test_efficientnet"][: 1 + ON_GPU])  # BatchNorm is shared on GPUs
    def test_processes_take_the_steps_of_one(tmp_path: Path, student: str) -> None:
        losses = []
        for world in (1, 2):
            out = tmp_path / str(world)
            words = [
                *("train", "--hard-labels-only", "--student", student, "--subset", "200", "--batch-size", "32"),
                *("--epochs", "2", "--drop-path", "0", "--log-steps", "1", "--workers", "1", "--dtype", "float32"),
                *("--device", DEVICE.type, "--out", str(out), "--no-tensorboard"),
            ]
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
            root = str(Path(__file__).resolve().parent.parent)
            done = subprocess.run(
                [sys.executable, *launch, "-m", "logitstore", *words],
                env={**os.environ, "PYTHONPATH": root},
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert done.returncode == 0, done.stderr[-4000:]
            losses.append([row["loss"] for row in metrics(out) if row["group"] == "train"])
        assert len(losses[0]) == 12
        np.testing.assert_allclose(losses[1], losses[0], rtol=5e-3)
