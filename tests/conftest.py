"""What holds for every test."""

from __future__ import annotations

import builtins
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import hide_gpus
from hypothesis import settings
from rank_cases import RankServer

from logitstore import process

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
process.prepare()  # as the command line does, and before torch loads
hide_gpus()
settings.register_profile("project", deadline=None)  # cores are shared, and some tests compile
settings.load_profile("project")


@pytest.fixture(autouse=True)
def numpy_global_generator_untouched() -> Iterator[None]:
    """Nothing in the project draws from numpy's global generator."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    yield
    assert np.array_equal(before, np.random.get_state()[1]), "numpy's global generator was used"  # noqa: NPY002


@pytest.fixture
def torch_untouched() -> Iterator[None]:
    """Torch's generator and thread count stay as they were."""
    import torch

    before, threads = torch.get_rng_state(), torch.get_num_threads()
    yield
    assert torch.equal(before, torch.get_rng_state()), "torch's global generator was used"
    assert torch.get_num_threads() == threads


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of the test's own, empty."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test cuts the power, and fsync is nine tenths of the time that a small store takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[RankServer]:
    """Starts processes that share the work of a command."""
    started = RankServer()
    yield started
    started.close()


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing matplotlib fails, as where it is not installed."""
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
