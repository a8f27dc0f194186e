"""SIGKILL at any moment of a search leaves a journal from which the same command comes to the same end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from contract_cases import journal, make_material, trials
from helpers import worker
from train_cases import same_weights

WORKER = Path(__file__).with_name("contract_worker.py")


@pytest.mark.parametrize(("steps", "every", "kills"), [(1, 4, 3), pytest.param(2, 1, 8, marks=pytest.mark.slow)])
def test_kills_change_nothing(tmp_path: Path, steps: int, every: int, kills: int) -> None:
    make_material(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = worker(WORKER, tmp_path, whole, killed, steps, every)
    *codes, last = result["codes"]
    assert (result["whole"], last) == (0, 0), result
    assert len(codes) >= kills and set(codes) == {-signal.SIGKILL}
    assert trials(killed) == trials(whole) and len(trials(whole)) >= 2 * steps
    lines = journal(killed)
    for trial in (line["trial"] for line in lines if "trial" in line and line["trial"]["score"] is not None):
        weights = f"candidates/{trial['number']:03d}/model.safetensors"
        assert same_weights(killed / weights, whole / weights)
        timed = [line["throughput"] for line in lines if line.get("timed") == trial["number"]]
        assert timed == [trial["throughput"]], "timed once, whatever happened"
    assert not list(killed.glob("candidates/*/checkpoint.pt"))
    assert not list(killed.rglob("*.tmp"))


