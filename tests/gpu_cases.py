"""The GPUs of this machine. Tests run on the CPU, also beside a GPU: many compare bits, or start several processes.

What needs a GPU lies in files of its own (``on_gpu``, ``losses_on_kernels``), which run in a process that sees it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_VISIBLE, _SEEN = "CUDA_VISIBLE_DEVICES", "LOGITSTORE_TESTS_SEE_GPUS"
_BEFORE = os.environ.get(_VISIBLE)
_TESTS = Path(__file__).parent


def hide_gpus() -> None:
    """From this process and those that it starts, unless ``run_file`` started it to see them."""
    if not os.environ.get(_SEEN):
        os.environ[_VISIBLE] = ""


def has_gpu() -> bool:
    """Whether there is one, hidden or not."""
    import torch

    return torch.version.cuda is not None and _BEFORE != "" and any(Path("/dev").glob("nvidia[0-9]*"))


def run_file(name: str, environment: Mapping[str, str], *, gpus: bool = False) -> None:
    """Run the tests of a file in a process of its own; none may fail or be skipped.

    Args:
        name: of a file beside this one that pytest does not collect by itself.
        environment: variables to set.
        gpus: whether it sees the GPUs.
    """
    variables = {**os.environ, "PYTHONPATH": str(_TESTS.parent), **environment}
    if gpus:
        variables[_SEEN] = "1"
        del variables[_VISIBLE]
        if _BEFORE is not None:
            variables[_VISIBLE] = _BEFORE
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name],
        cwd=_TESTS,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
    assert " passed" in run.stdout and " skipped" not in run.stdout
