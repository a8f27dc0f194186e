"""What the tests of protocols share: a small data set, commands without their processes."""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

import cli
from benchmarks.framework.launch import Step, Terms

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("round", "square", "striped", "plain")


def make_npz(path: Path, count: int, seed: int) -> Path:
    """Pictures of four classes that differ in colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    images = rng.integers(0, 80, (count, 32, 32, 3), np.uint8)
    images[..., 0] += (50 * labels).astype(np.uint8)[:, None, None]
    np.savez(path, images=images, labels=labels, label_names=np.array(CLASSES))
    return path


def make_data(folder: Path) -> dict[str, str]:
    """Fields of ``Setting``: 64 pictures to train on, 20 to measure on."""
    train, test = make_npz(folder / "train.npz", 64, 0), make_npz(folder / "test.npz", 20, 1)
    return {"data": str(train), "val_data": str(test)}


def in_this_process(step: Step, terms: Terms) -> tuple[int, str]:
    """What a process of its own would do, without the seconds that it takes to start."""
    output = io.StringIO()
    commands = command_line(step)
    with contextlib.redirect_stdout(output):
        try:
            code = commands.main([*step.words, "--json"], prog_name="logitstore", standalone_mode=False)
        except SystemExit as end:  # as verify ends
            code = end.code
    return code or 0, output.getvalue()


def command_line(step: Step) -> click.Group:
    """The commands that a step's command is one of."""
    found: click.Group = cli.main if step.module == "logitstore" else importlib.import_module(step.module).main
    return found


def wait_for(path: Path, process: subprocess.Popen[Any], seconds: float = 60) -> None:
    """Until a file is there, or the process that is to write it has ended, which fails."""
    patience = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < patience, f"{path.name} was not written"
        time.sleep(0.01)
