"""Runs a module as ``python -m`` does, in a process that is told when the one that started it has died.

``python -m benchmarks.framework.child logitstore train ...``: on Linux such a process gets SIGTERM then, upon which a
training writes a checkpoint and ends. Elsewhere it goes on to its end.
"""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def main() -> None:
    """Become the module that the first argument names, with the arguments after it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
