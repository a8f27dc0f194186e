"""Stopping a long run where it can resume: Ctrl-C and SIGTERM become a request that the run answers when ready."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether Ctrl-C or SIGTERM arrived since ``stop_requests`` began."""

    signum: int | None = None

    def obey(self) -> None:
        """Do what the signal does outside of ``stop_requests``. Called after it, with everything saved."""
        if self.signum is not None:
            signal.raise_signal(self.signum)
            raise KeyboardInterrupt  # a handler of the caller's own ignored it; the run is over all the same


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop answers after its step; the second acts at once.

    Outside the main thread, where Python allows no handlers, nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {signum: signal.getsignal(signum) or signal.SIG_DFL for signum in _STOPPING}

    def note(signum: int, _frame: FrameType | None) -> None:
        request.signum = signum
        restore()

    def restore() -> None:
        for signum, handler in before.items():
            signal.signal(signum, handler)

    for signum in _STOPPING:
        signal.signal(signum, note)
    try:
        yield request
    finally:
        restore()
