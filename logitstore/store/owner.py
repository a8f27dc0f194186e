"""Who owns a claim or a temporary file: a process, named so that another process can tell whether it still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Owner:
    """One process on one boot of one host (and in one PID namespace: containers reuse each other's numbers)."""

    host: str
    """Host name, boot and PID namespace."""
    pid: int
    """Process number."""
    started: str
    """When the process started, in the system's own units: tells it from a later process of the same number."""

    @property
    def host_digest(self) -> str:
        """Eight hexadecimal digits that stand for the host in file names."""
        return hashlib.sha256(self.host.encode()).hexdigest()[:8]

    def is_dead(self) -> bool:
        """True only when this is certain: the owner belongs to this host, and no such process runs any more."""
        return self.host == this_process().host and not is_running(self.pid, self.started)


def this_process() -> Owner:
    """The owner that stands for the calling process."""
    return _owner(os.getpid())


@lru_cache(maxsize=4)
def _owner(pid: int) -> Owner:
    return Owner(host=_host(), pid=pid, started=_started(pid) or "")


def is_running(pid: int, started: str) -> bool:
    """Whether process ``pid`` runs and is the one that started at ``started`` (empty: any)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and belongs to another user
    now = _started(pid)
    if now is None:
        return True  # it exists, and more is not to be known
    return now != _ZOMBIE and (not started or now == started)


_ZOMBIE = "zombie"


def _started(pid: int) -> str | None:
    """Start time of a process, in clock ticks after boot; None where /proc is absent or hides it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field, the command in brackets, may hold spaces and brackets itself; state is field 3, start time 22.
    fields = stat[stat.rindex(")") + 2 :].split()
    return _ZOMBIE if fields[0] in "ZX" else fields[19]


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot = namespace = "-"
    return f"{socket.gethostname()}/{boot}/{namespace}"
