"""SIGKILL at any moment of a conversion leaves a store that the same command completes, byte for byte."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from logitstore.store import open_store, verify_store
from tests.convert_cases import SIX, converted
from tests.helpers import worker
from tests.store_cases import content, write_store

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("convert_worker.py")
MANIFEST = replace(SIX, num_samples=200, num_epochs=4)
"""Two base epochs and two more, of two shards each."""


def run(*arguments: object) -> dict[str, Any]:
    """The worker's result line."""
    return worker(WORKER, *arguments)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("source") / "s", MANIFEST).path


@pytest.fixture(scope="module")
def reference(source: Path) -> dict[str, Any]:
    assert converted(source, source.parent / "p", base_epochs=2).complete
    return content(source.parent / "p")


def check(path: Path, reference: dict[str, Any]) -> None:
    """The same objects, and no others: neither claims nor temporary files."""
    assert content(path) == reference
    report = verify_store(path)
    assert report.ok and not report.notes and report.records_checked == 4 * MANIFEST.num_samples


def _kill_at_steps(source: Path, path: Path, first: int, every: int, reference: dict[str, Any]) -> None:
    result = run("steps", source, path, first, every)
    assert len(result["codes"]) >= 4 and set(result["codes"]) == {0}
    stores = sorted(path.iterdir())
    assert len(stores) == len(result["codes"])
    for store in stores:
        check(store, reference)


def test_a_kill_before_any_change_of_the_disk(source: Path, tmp_path: Path, reference: dict[str, Any]) -> None:
    """Every 29th step here; all of them in the slow test."""
    _kill_at_steps(source, tmp_path, 7, 29, reference)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 30))
def test_a_kill_before_each_change_of_the_disk(
    source: Path, tmp_path: Path, reference: dict[str, Any], first: int
) -> None:
    _kill_at_steps(source, tmp_path, first, 29, reference)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_kills_at_random_moments(source: Path, tmp_path: Path, reference: dict[str, Any], seed: int) -> None:
    result = run("random", source, tmp_path / "p", 5, seed)
    assert result["finished"] == 0 and result["killed"] >= 2, result
    check(tmp_path / "p", reference)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_share_the_work_of_a_killed_third(
    source: Path, tmp_path: Path, reference: dict[str, Any], seed: int
) -> None:
    result = run("pair", source, tmp_path / "p", seed)
    assert result == {"killed": -signal.SIGKILL, "codes": [0, 0]}
    check(tmp_path / "p", reference)


def test_a_stop_request_ends_it_between_shards(source: Path, tmp_path: Path, reference: dict[str, Any]) -> None:
    """SIGTERM: exit code 143, what is committed counts, no claim is left, and the same command goes on."""
    command = [sys.executable, "-m", "logitstore", "convert", str(source), str(tmp_path / "p")]
    command += ["--base-epochs", "2", "--workers", "1"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not list((tmp_path / "p/commits").glob("0*.json")):
        time.sleep(0.002)
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=100)
    assert child.returncode == 143, said
    assert said.endswith("stopped by SIGTERM; what is done is kept, and the same command goes on from there.\n"), said
    store = open_store(tmp_path / "p")
    assert 1 <= len(store.committed()) < 8
    assert not list((tmp_path / "p/commits").glob("*.claim*"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    check(tmp_path / "p", reference)
