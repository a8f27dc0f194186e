"""Who owns a claim, and whether that process still lives."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from logitstore.store import owner as owner_module
from logitstore.store.owner import Owner, is_running, this_process
from tests.store_cases import killed_process


def test_this_process_runs() -> None:
    me = this_process()
    assert me.pid == os.getpid() and is_running(me.pid, me.started) and not me.is_dead()


def test_a_killed_process_is_dead() -> None:
    assert killed_process().is_dead()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        deadline = time.monotonic() + 20
        while is_running(child.pid, "") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_running(child.pid, "")
    finally:
        child.wait()


def test_a_process_that_is_hidden_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_module, "_started", lambda pid: None)
    assert is_running(os.getpid(), "5") and not is_running(2**22 + 1, "")


def test_nothing_is_certain_about_another_host() -> None:
    assert not Owner(host="another host/boot/pid:[1]", pid=1, started="1").is_dead()


def test_the_first_process_runs_and_belongs_to_root() -> None:
    assert is_running(1, "")
