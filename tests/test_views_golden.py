"""Views against their golden checksums: every operation, recipe and mixing, with the JIT on and off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from logitstore.views import Renderer, view_spec
from tests.make_tables import make_tables
from tests.view_cases import CRCS, IMAGE_NAMES, Case, cases, crcs, decoded

CASES = list(cases())


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return json.loads(CRCS.read_text())


def test_goldens_are_the_cases(golden: dict[str, str]) -> None:
    assert list(golden) == [case.name for case in CASES]
    assert sum(case.spec.size <= 64 for case in CASES) == 300


@pytest.mark.parametrize("group", sorted({case.name.split()[0] for case in CASES}))
def test_views_are_golden(group: str, golden: dict[str, str]) -> None:
    chosen = [case for case in CASES if case.name.split()[0] == group]
    assert {case.name: case.crc() for case in chosen} == {case.name: golden[case.name] for case in chosen}


def crcs_without_jit(every: int) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.view_cases", str(every)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_thirty_views_are_golden_without_jit(golden: dict[str, str]) -> None:
    found = crcs_without_jit(10)
    assert len(found) == 30
    assert found == {name: golden[name] for name in found}


@pytest.mark.slow
def test_all_views_are_golden_without_jit(golden: dict[str, str]) -> None:
    assert crcs_without_jit(1) == golden


def test_threads_share_a_renderer(golden: dict[str, str]) -> None:
    renderer = Renderer(view_spec("tinyvit", size=40))
    jobs = [(IMAGE_NAMES[number % 6], number) for number in range(120)]

    def crc(job: tuple[str, int]) -> bytes:
        return renderer.render(decoded(job[0]), job[1]).tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(crc, jobs)) == [crc(job) for job in jobs]


def test_shipped_tables_are_what_their_script_makes() -> None:
    from logitstore.views.tables import load_tables

    for name, column in make_tables().items():
        np.testing.assert_array_equal(getattr(load_tables(), name), column, name)


def test_a_missing_golden_image_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.view_cases.IMAGES", tmp_path)
    with pytest.raises(FileNotFoundError):
        decoded.__wrapped__("photo.jpg")
    assert not list(tmp_path.iterdir())


def test_a_case_depends_on_nothing_but_itself() -> None:
    case: Case = CASES[200]
    assert case.crc() == case.crc() == crcs()[case.name]
