"""Starts ranks of the command line quickly: a process that has imported everything, and forks one for each rank.

Reads a JSON object a line and answers each with one: ``{"start": job}`` with the numbers of the processes,
``{"poll": number}`` with the exit code, or null while the process runs.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import zlib
from pathlib import Path
from typing import Any


def start(job: dict[str, Any]) -> list[int]:
    pids = []
    for rank in range(job["world"]):
        pid = os.fork()
        if pid == 0:
            run(job, rank)
        pids.append(pid)
    return pids


def run(job: dict[str, Any], rank: int) -> None:
    """What a forked process does; ends it."""
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(f"{job['log']}.{name}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    if job["world"] > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["world"]),
            "LOCAL_WORLD_SIZE": str(job["world"]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"]),
        }  # fmt: skip
    watch_steps(job, rank)
    try:
        if "script" in job:
            sys.argv = [job["script"], *job["arguments"]]
            runpy.run_path(job["script"], run_name="__main__")
            sys.exit()
        cli.main(job["arguments"], prog_name="logitstore")
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)  # to tidy up what was imported takes a second


def watch_steps(job: dict[str, Any], rank: int) -> None:
    """Write down what each step is fed, and send this process a signal before or after one, where the job says so."""
    real, at = Learner.train_step, job.get("signal", {"rank": None})

    def watched(self: Learner, batch: Placed, **options: Any) -> object:
        if at["rank"] == rank and at.get("before") == self.step + 1:
            os.kill(os.getpid(), getattr(signal, at["name"]))
        loss = real(self, batch, **options)
        fed = batch.batch
        line = {
            "step": self.step, "epoch": fed.epoch, "position": fed.position_B.tolist(), "seed": fed.seed_B.tolist(),
            "views": [zlib.crc32(view.tobytes()) for view in fed.views_BCHW],
        }  # fmt: skip
        with Path(f"{job['log']}.fed.{rank}").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if at["rank"] == rank and at.get("after") == self.step:
            os.kill(os.getpid(), getattr(signal, at["name"]))
        return loss

    Learner.train_step = watched  # type: ignore[assignment, method-assign]


def poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    from logitstore import process

    process.prepare()
    import sklearn.datasets  # noqa: F401
    import timm  # noqa: F401
    import torch
    import torch._dynamo  # what a shared model loads

    import cli
    import logitstore.finetune.loop
    import logitstore.train.loop  # noqa: F401
    from logitstore.learning.learner import Learner
    from logitstore.learning.step import Placed
    from logitstore.views import Renderer, view_spec

    torch.set_num_threads(1)
    Renderer(view_spec("tinyvit", size=32))  # loads compiled kernels
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(start(request["start"]) if "start" in request else poll(request["poll"])), flush=True)
