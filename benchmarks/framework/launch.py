"""Commands in processes of their own: how one is run, asked to stop, and kept from outliving who started it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from logitstore.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
_WAIT_FOR_LOCK = 60.0  # seconds that the step of a call that was killed may take to write its checkpoint
_GLANCE = 0.2  # seconds between two looks at whether a command has to stop


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command of the protocol."""

    name: str
    """Of its record; unique in a folder."""
    words: tuple[str, ...]
    """The command line after ``logitstore``."""
    module: str = "logitstore"
    """What ``python -m`` runs."""
    needs: tuple[str, ...] = ()
    """Names of the steps whose results it uses."""
    leavings: tuple[Path, ...] = ()
    """Files that only an unfinished step needs, removed when it is done."""

    @property
    def command(self) -> str:
        """As one would type it."""
        program = "logitstore" if self.module == "logitstore" else f"python -m {self.module}"
        return f"{program} {shlex.join(self.words)}"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On what terms a command runs."""

    seconds: float | None
    """After which it is asked to stop; None is never."""
    stopping: threading.Event
    """It is asked to stop when this is set, too."""
    lock: IO[str]
    """Held as long as it runs."""


Launch = Callable[[Step, Terms], tuple[int, str]]
"""Runs a step's command: exit code and standard output."""


def in_a_process(step: Step, terms: Terms) -> tuple[int, str]:
    """Run a step's command; progress and notes pass through.

    It is asked to stop by SIGTERM, which lets it write a checkpoint: when the time is up, when this process is
    interrupted, and on Linux also when this process is killed. It inherits the lock, so that nobody works in the folder
    before it has ended.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    began, asked = time.monotonic(), False
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.framework.child", step.module, *step.words, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # so that Ctrl-C arrives here alone and is passed on once: a second one acts at once
        pass_fds=(terms.lock.fileno(),) if os.name == "posix" else (),
    )
    while True:
        try:
            output, _ = process.communicate(timeout=_GLANCE)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            is_late = terms.seconds is not None and time.monotonic() - began > terms.seconds
            if (is_late or terms.stopping.is_set()) and not asked:
                process.terminate()
                asked = True


@contextlib.contextmanager
def sigterm_unwinds() -> Iterator[None]:
    """Let SIGTERM end this process the way Ctrl-C does, with exit code 143, so that a step is stopped with it."""

    def stop(_signal: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def locked(path: Path) -> IO[str]:
    """The lock file, locked; the step of a call that was killed is waited for.

    Raises:
        InputError: another call works in the folder.
    """
    file = path.open("a")
    if os.name != "posix":
        return file
    import fcntl

    patience = time.monotonic() + _WAIT_FOR_LOCK
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError as exc:
            if time.monotonic() > patience:
                file.close()
                raise InputError(
                    f"Another run works in {path.parent}: wait until it has ended, or give this one a folder of its "
                    "own with --out."
                ) from exc
            time.sleep(0.2)
