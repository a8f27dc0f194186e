"""Processes that write a store and are killed, for tests/test_store_kill.py; they end in one JSON line of results.

    store_worker.py write PATH                     write what is missing
    store_worker.py random PATH KILLS SEED         write again and again, each time SIGKILLed at a random moment
    store_worker.py steps PATH FIRST EVERY         for every nth change of the disk: die there, resume
    store_worker.py pair PATH SEED                 two processes share the work, a third is killed meanwhile

Writers are forked from here, where zarr is imported already but none of its threads runs, so that a trial takes
milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from logitstore.store import create_store
from tests.store_cases import SMALL, write_shards

MANIFEST = replace(SMALL, num_samples=200, num_epochs=2, shard_size=64)
"""Eight shards, so that most kills meet work."""


def write(path: Path, *, pause_s: float = 0.0, epochs: int = MANIFEST.num_epochs) -> None:
    """Complete a store, with pauses in which a kill may come; grows it on the way."""
    for upto in range(1, epochs + 1):
        store = create_store(path, replace(MANIFEST, num_epochs=upto))
        while not store.complete:
            write_shards(store, pause_s=pause_s)


def spawn(work: Callable[[], None]) -> int:
    """Fork a process that does the work; its number."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return child


def finish(child: int) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def random_kills(path: Path, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    killed = 0
    while killed < kills:
        child = spawn(lambda: write(path, pause_s=0.02))
        time.sleep(rng.uniform(0.01, 0.08))
        os.kill(child, signal.SIGKILL)
        if finish(child) == 0:
            break
        killed += 1
    return {"killed": killed, "finished": finish(spawn(lambda: write(path)))}


def die_at(step: int) -> None:
    """Make this process SIGKILL itself just before its nth change to the disk, or half-way through writing a file."""
    count = 0

    def counted(function: Callable[..., object], partial: bool = False) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                if partial:
                    os.ftruncate(arguments[0], 7)  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    synced = os.fsync
    is_file = counted(lambda descriptor: None, partial=True)
    os.fsync = lambda fd: is_file(fd) if not os.path.isdir(f"/proc/self/fd/{fd}") else synced(fd)  # type: ignore[assignment]  # noqa: PTH112
    os.link = counted(os.link)  # type: ignore[assignment]
    Path.replace = counted(Path.replace)  # type: ignore[assignment, method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[assignment, method-assign]
    Path.mkdir = counted(Path.mkdir)  # type: ignore[assignment, method-assign]


def kill_at_steps(path: Path, first: int, every: int) -> dict[str, object]:
    """One store a step: a process dies at it, another completes. Ends when a process gets through alive."""
    step, codes = first, []
    while True:
        target = path / str(step)

        def doomed(step: int = step, target: Path = target) -> None:
            die_at(step)
            write(target)

        if finish(spawn(doomed)) == 0:
            shutil.rmtree(target)
            return {"steps": step - 1, "codes": codes}
        codes.append(finish(spawn(lambda target=target: write(target))))  # type: ignore[misc]
        step += every


def shared_work(path: Path, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    doomed = spawn(lambda: write(path, pause_s=0.01))
    both = [spawn(lambda: write(path, pause_s=0.005)) for _ in range(2)]
    time.sleep(rng.uniform(0.02, 0.1))
    os.kill(doomed, signal.SIGKILL)
    return {"killed": finish(doomed), "codes": [finish(child) for child in both]}


def main() -> None:
    command, path, *numbers = sys.argv[1:]
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    if command == "write":
        write(Path(path))
        print(json.dumps({}))
    else:
        action = {"random": random_kills, "steps": kill_at_steps, "pair": shared_work}[command]
        print(json.dumps(action(Path(path), *map(int, numbers))))


if __name__ == "__main__":
    main()
