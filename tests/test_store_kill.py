"""SIGKILL at any moment leaves a store that the same command completes, byte for byte, without a stray file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from logitstore.store import open_store, verify_store
from tests.helpers import worker
from tests.store_cases import content
from tests.store_worker import MANIFEST, write

WORKER = Path(__file__).with_name("store_worker.py")


def run(*arguments: object) -> dict[str, Any]:
    """The worker's result line."""
    return worker(WORKER, *arguments)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("reference") / "s"
    write(path)
    assert open_store(path).complete
    return content(path)


def check(path: Path, reference: dict[str, Any]) -> None:
    """The same objects, and no others: neither claims nor temporary files."""
    assert content(path) == reference
    report = verify_store(path)
    assert report.ok and not report.notes and report.records_checked == 2 * MANIFEST.num_samples


@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_at_random_moments(tmp_path: Path, reference: dict[str, Any], seed: int) -> None:
    result = run("random", tmp_path / "s", 10, seed)
    assert result["finished"] == 0 and result["killed"] >= 3, result
    check(tmp_path / "s", reference)


def test_a_kill_before_any_change_of_the_disk(tmp_path: Path, reference: dict[str, Any]) -> None:
    """Every 13th step here; all of them in the slow test."""
    _kill_at_steps(tmp_path, 1, 13, reference)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2, 14))
def test_a_kill_before_each_change_of_the_disk(tmp_path: Path, reference: dict[str, Any], first: int) -> None:
    _kill_at_steps(tmp_path, first, 13, reference)


def _kill_at_steps(path: Path, first: int, every: int, reference: dict[str, Any]) -> None:
    result = run("steps", path, first, every)
    assert len(result["codes"]) > 10 and set(result["codes"]) == {0}
    stores = sorted(path.iterdir())
    assert len(stores) == len(result["codes"])
    for store in stores:
        check(store, reference)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_processes_share_the_work_of_a_killed_third(tmp_path: Path, reference: dict[str, Any], seed: int) -> None:
    result = run("pair", tmp_path / "s", seed)
    assert result["codes"] == [0, 0]
    check(tmp_path / "s", reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_many_campaigns(tmp_path: Path, reference: dict[str, Any], seed: int) -> None:
    assert run("random", tmp_path / "a", 10, seed)["finished"] == 0
    check(tmp_path / "a", reference)
    assert run("pair", tmp_path / "b", seed)["codes"] == [0, 0]
    check(tmp_path / "b", reference)
