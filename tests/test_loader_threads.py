"""Threads that last, and end when they should: between epochs, after failures, on Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from logitstore.errors import DecodeError
from logitstore.loader import ViewLoader, Workers, eval_batches
from tests.helpers import MemoryImages
from tests.loader_stores import PLAIN, SIZE


class WatchedImages(MemoryImages):
    """Pictures that note which threads ask for them, and how many do right now."""

    threads: set[threading.Thread]
    busy = 0

    def pixels(self, i: int) -> NDArray[np.uint8]:
        self.threads.add(threading.current_thread())
        self.busy += 1
        time.sleep(0.002)
        self.busy -= 1
        return super().pixels(i)


@pytest.fixture
def watched() -> WatchedImages:
    images = WatchedImages(331, side=SIZE)
    images.threads = set()
    return images


def test_threads_stay_from_epoch_to_epoch_and_end_with_the_loader(watched: WatchedImages) -> None:
    with ViewLoader(watched, PLAIN, run_seed=1, batch_size=32, workers=2) as loader:
        for epoch in range(3):
            batches = loader.batches(epoch)
            for _ in range(3 + epoch):
                next(batches)
            batches.close()
            assert watched.busy == 0
        assert len(watched.threads) == 2 and all(thread.is_alive() for thread in watched.threads)
    assert not any(thread.is_alive() for thread in watched.threads)
    assert len(list(loader.batches(0, 0, 64))) == 2  # with new threads
    assert len(watched.threads) > 2
    loader.close()


@pytest.mark.parametrize("bad", [DecodeError, KeyboardInterrupt])
def test_a_loader_can_be_used_again_after_a_failure(watched: WatchedImages, bad: type[BaseException]) -> None:
    with ViewLoader(watched, PLAIN, run_seed=1, batch_size=32, workers=2) as loader:
        batches = loader.batches(0)
        next(batches)
        if bad is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                batches.throw(KeyboardInterrupt)
        else:
            watched.bad = frozenset(range(331))
            with pytest.raises(DecodeError):
                list(batches)
        assert watched.busy == 0
        watched.bad = frozenset()
        assert len(list(loader.batches(1))) == 11 and len(watched.threads) == 2


def test_evaluation_takes_lasting_threads(watched: WatchedImages) -> None:
    with Workers(2) as workers:
        for _ in range(3):
            list(eval_batches(watched, size=16, crop_pct=1.0, batch_size=64, workers=workers))
        assert len(watched.threads) == 2
        assert all(thread.is_alive() for thread in watched.threads)
    list(eval_batches(watched, size=16, crop_pct=1.0, batch_size=64, workers=2))  # threads of its own
    assert len(watched.threads) == 4
    assert not any(thread.is_alive() for thread in watched.threads)


def test_ctrl_c_ends_a_process_soon() -> None:
    script = """
        import time
        from logitstore.loader import ViewLoader
        from tests.helpers import MemoryImages
        from tests.loader_stores import PLAIN

        class SlowImages(MemoryImages):
            def pixels(self, i):
                time.sleep(0.03)
                return super().pixels(i)

        for batch in ViewLoader(SlowImages(9000), PLAIN, run_seed=1, batch_size=100, workers=2).batches(0):
            print("batch", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "batch\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 2.0  # of the 3 seconds' work that was waiting
    assert process.returncode == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt")
