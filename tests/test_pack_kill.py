"""SIGKILL at any moment of packing leaves a folder that the same command completes, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dump_cases
import pytest
from helpers import picture
from pack_cases import files, jpeg
from pack_worker import config

from logitstore.pack import pack, verify_packed

WORKER = Path(__file__).with_name("pack_worker.py")


def check(tmp_path: Path, first: int, every: int) -> None:
    (tmp_path / "data").mkdir()
    base = picture(360, 400)
    for i in range(50):
        (tmp_path / "data" / f"{i}.jpg").write_bytes(jpeg(base[i:]))
    arguments = [str(tmp_path / "data"), str(tmp_path / "killed"), str(first), str(every)]
    done = subprocess.run(
        [sys.executable, WORKER, *arguments], text=True, capture_output=True, env=dump_cases.environment()
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert set(result["codes"]) == {0}
    assert {0, 1, 2} <= set(result["shards"])
    pack(config(str(tmp_path / "data"), tmp_path / "reference"))
    reference = files(tmp_path / "reference")
    assert len(list((tmp_path / "killed").iterdir())) == len(result["codes"]) + 1  # one lived to the end at once
    for out in (tmp_path / "killed").iterdir():
        assert files(out) == reference
    assert verify_packed(str(out)).ok


def test_a_kill_before_some_changes_of_the_disk(tmp_path: Path) -> None:
    """Before there is a folder of its own, within both shards, and when all but removing parts is done."""
    check(tmp_path, 4, 10)


@pytest.mark.slow
def test_a_kill_before_each_change_of_the_disk(tmp_path: Path) -> None:
    check(tmp_path, 0, 1)
