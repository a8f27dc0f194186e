"""Real processes: several share a dump, are killed, are told to stop. The store ends up the same, byte for byte.

All run the command line, each forked from one server that has imported everything.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from dump_cases import config, environment, snapshot

from logitstore.dump import DumpConfig, dump
from logitstore.store import open_store, verify_store

Start = Callable[..., BaseProcess]
LIMIT_S = 120
THREADS = 1  # of torch: part of a store's identity, so they must not depend on what ran before


def run_command(arguments: list[str], log: str, variables: dict[str, str]) -> None:
    """What a forked process does: ``logitstore ARGUMENTS``, both outputs into a file, with these variables set."""
    os.environ.update(variables)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    import cli

    torch.set_num_threads(THREADS)
    cli.main(arguments, prog_name="logitstore")


@pytest.fixture(scope="module", autouse=True)
def threads_of_torch() -> Iterator[None]:
    """As many here as in the processes that are started."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and the store of one uninterrupted run in this process."""
    folder = tmp_path_factory.mktemp("processes")
    dump(config(folder))
    return folder


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts ``logitstore dump`` with a configuration in a process of its own; none outlives the tests.

    Further arguments are variables of its environment.
    """
    started: list[BaseProcess] = []
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(pause_s=0.02).items():
            patch.setenv(name, value)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cli", "dump_cases", "logitstore.views.render"])

        def start_one(dump_config: DumpConfig, **variables: str) -> BaseProcess:
            given = (arguments(dump_config), log(dump_config), variables)
            process = context.Process(target=run_command, args=given)
            process.start()
            started.append(process)
            return process

        yield start_one
    for process in started:
        process.kill()
        process.join()


def arguments(dump_config: DumpConfig) -> list[str]:
    """The command line of a configuration."""
    words = ["dump"]
    for field in fields(dump_config):
        value = getattr(dump_config, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def log(dump_config: DumpConfig) -> str:
    return f"{dump_config.store}.log"


def commits(dump_config: DumpConfig) -> list[Path]:
    return list(Path(str(dump_config.store)).glob("commits/0*.json"))


def makers(dump_config: DumpConfig) -> set[int]:
    """The processes that committed something."""
    return {json.loads(commit.read_bytes())["info"]["pid"] for commit in commits(dump_config)}


def has_more_commits(dump_config: DumpConfig, seen: int) -> bool:
    return len(commits(dump_config)) > seen


def wait(process: BaseProcess, condition: Callable[[], bool], dump_config: DumpConfig) -> None:
    limit = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < limit, Path(log(dump_config)).read_text()
        if not process.is_alive() and not condition():
            pytest.fail(f"exit code {process.exitcode}: {Path(log(dump_config)).read_text()}")
        time.sleep(0.005)


def finish(process: BaseProcess, dump_config: DumpConfig) -> str:
    process.join(LIMIT_S)
    text = Path(log(dump_config)).read_text()
    assert process.exitcode == 0, text
    return text


def test_two_processes_share_the_work(reference: Path, start: Start) -> None:
    target = config(reference, "shared")
    for process in [start(target), start(target)]:
        finish(process, target)
    assert snapshot(reference / "shared") == snapshot(reference / "store")
    assert len(makers(target)) == 2


@pytest.mark.parametrize("name", ["parts", "parts of another store's views"])
def test_parts_one_of_which_is_killed(reference: Path, start: Start, name: str) -> None:
    """Two parts in two processes; what the killed one leaves, a run without parts makes."""
    options: dict[str, Any] = {}
    if name != "parts":  # of the same teacher, so that the bytes are known
        options = {"views_from": str(reference / "store"), "epochs": None, "size": None, "view": None, "seed": None}
    killed, whole = (config(reference, name, shards=f"{part}/2", **options) for part in (0, 1))
    first = start(killed)
    wait(first, partial(has_more_commits, killed, 0), killed)
    second = start(whole)
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    report = finish(second, whole)
    assert first.exitcode == -signal.SIGKILL
    assert re.search(r"^complete +no$", report, re.MULTILINE)
    committed = open_store(reference / name).committed()
    assert {divmod(number, 5) for number in range(1, 10, 2)} <= committed != {divmod(n, 5) for n in range(10)}
    finish(start(config(reference, name, **options)), killed)
    assert snapshot(reference / name) == snapshot(reference / "store")


def test_the_main_process_takes_over_from_a_killed_one_and_speaks_for_all(reference: Path, start: Start) -> None:
    target = config(reference, "ranks")
    ranks = [
        start(target, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2") for rank in (0, 1)
    ]
    wait(ranks[1], lambda: ranks[1].pid in makers(target), target)
    os.kill(ranks[1].pid or 0, signal.SIGKILL)
    ranks[1].join()
    report = finish(ranks[0], target)
    assert re.search(r"^complete +yes$", report, re.MULTILINE)
    assert re.search(r"^shards +10$", report, re.MULTILINE)  # those of the other one are counted
    assert snapshot(reference / "ranks") == snapshot(reference / "store")


def test_torchrun_gives_the_store_of_one_process(reference: Path) -> None:
    target = config(reference, "torchrun")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*launch, "-m", "logitstore", *arguments(target), "--json"],
        env=environment(pause_s=0.4), capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)  # one process alone prints its result
    assert (report["complete"], report["shards"], report["records"]) == (True, 10, 600)
    assert run.stderr.count("Teacher dump_cases:teacher") == 1
    assert len(makers(target)) == 2
    assert snapshot(reference / "torchrun") == snapshot(reference / "store")


@pytest.mark.parametrize("kills", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_at_random_moments(reference: Path, start: Start, kills: int) -> None:
    """SIGKILL again and again, then one run to the end: the same bytes, and nothing left over."""
    epochs = max(8, kills)  # more shards than are made between the kills
    target = config(reference, f"killed {kills} times", epochs=epochs, workers=2)
    whole = config(reference, f"{epochs} epochs", epochs=epochs)
    dump(whole)
    moments = random.Random(kills)
    for _ in range(kills):
        seen = len(commits(target))
        process = start(target)
        if moments.random() < 0.8:  # the others are killed while they start
            wait(process, partial(has_more_commits, target, seen), target)
        time.sleep(moments.uniform(0, 0.15))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, Path(log(target)).read_text()
    finish(start(target), target)
    assert snapshot(Path(str(target.store))) == snapshot(Path(str(whole.store)))
    assert verify_store(str(target.store)).notes == ()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_a_signal_leaves_a_store_that_resumes(
    reference: Path, start: Start, number: signal.Signals, code: int, word: str
) -> None:
    target = config(reference, word)
    process = start(target)
    wait(process, partial(has_more_commits, target, 0), target)
    os.kill(process.pid or 0, number)
    process.join(LIMIT_S)
    text = Path(log(target)).read_text()
    assert process.exitcode == code, text
    assert text.splitlines()[-1] == (
        f"logitstore: stopped by {word}; what is done is kept, and the same command goes on from there."
    )
    assert "Traceback" not in text
    assert not list((reference / word).rglob("*.claim*"))
    assert 0 < len(open_store(reference / word).committed()) < 10
    assert dump(target).complete
