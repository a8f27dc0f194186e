"""Ranks that are really started, for the tests of many processes. None outlives the tests, and none is waited for
without a limit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
LIMIT_S = 180


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What ranks left behind."""

    codes: list[int]
    """Exit code of each rank; negative for the signal that killed it."""
    log: Path
    """Start of the names of their logs."""

    def text(self, name: str, rank: int | None = None) -> str:
        """What a rank, or all of them, wrote: ``out`` or ``err``."""
        ranks = range(len(self.codes)) if rank is None else [rank]
        return "".join(Path(f"{self.log}.{name}.{number}").read_text() for number in ranks)

    @property
    def complaints(self) -> list[str]:
        """The sentences that the command line ended with, of all ranks."""
        return [line for line in self.text("err").splitlines() if line.startswith("logitstore:")]

    def fed(self) -> list[dict[str, Any]]:
        """What the steps were fed, the ranks' parts put together."""
        parts = [
            [json.loads(line) for line in Path(f"{self.log}.fed.{rank}").read_text().splitlines()]
            for rank in range(len(self.codes))
        ]
        names = ("position", "seed", "views")
        return [
            {**shares[0], **{name: [value for share in shares for value in share[name]] for name in names}}
            for shares in zip(*parts, strict=True)
        ]


class RankServer:
    """A process that forks ranks, see ``rank_server``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "rank_server.py")], cwd=TESTS.parent, text=True,
            env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, world: int, arguments: Sequence[object], log: Path, **options: object) -> Ended:
        """Start ranks of a command and wait for their end.

        Args:
            world: how many; one is an ordinary process.
            arguments: of the command line.
            log: start of the names of their logs.
            options: ``signal``: that the rank ``rank`` sends itself the signal ``name`` ``before`` or ``after`` a step;
                ``script``: to run instead of the command line.
        """
        for old in log.parent.glob(f"{log.name}.*.*"):
            old.unlink()
        job = {"world": world, "port": free_port(), "arguments": [*map(str, arguments)], "log": str(log), **options}
        pids: list[int] = self._ask({"start": job})
        codes: dict[int, int] = {}
        limit = time.monotonic() + LIMIT_S
        while len(codes) < world and time.monotonic() < limit:
            time.sleep(0.02)
            for pid in pids:
                if pid not in codes and (code := self._ask({"poll": pid})) is not None:
                    codes[pid] = code
        running = [pid for pid in pids if pid not in codes]
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        ended = Ended(codes=[codes.get(pid, -signal.SIGKILL) for pid in pids], log=log)
        assert not running, f"ranks {[pids.index(pid) for pid in running]} hang; {ended.text('err')}"
        return ended

    def close(self) -> None:
        """End it; ranks have ended by themselves, or were killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
