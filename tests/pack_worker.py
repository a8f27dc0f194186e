"""Packs in processes that kill themselves, each before another change of the disk, and goes on in a second one.

    python tests/pack_worker.py DATA FOLDER FIRST EVERY

Step FIRST, FIRST + EVERY, ... is where the process dies, until one lives to the end. Prints the exit codes of those
that went on, and after how many shards they found the folder.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from logitstore.pack import PackConfig, pack


def config(data: str, out: Path) -> PackConfig:
    """Shards of 1 MiB."""
    return PackConfig(data=data, out=str(out), shard_mib=1, short_side=300, workers=2, split="train")


def run(data: str, out: Path, *, dies_at: int | None) -> int:
    """Exit code of a process that packs; that of SIGKILL where it died."""
    process = os.fork()
    if process == 0:
        if dies_at is not None:
            arm(dies_at)
        try:
            pack(config(data, out))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def arm(step: int) -> None:
    """Let the process kill itself before its change number ``step`` of the disk."""
    steps = itertools.count()

    def counted(change: Any) -> Any:
        def before(*arguments: Any, **options: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return before

    os.fsync = counted(lambda descriptor: None)
    for name in ("replace", "unlink", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))


def main() -> None:
    data, folder, first, every = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    codes, shards = [], []
    for step in itertools.count(first, every):
        out = folder / f"killed-{step}"
        code = run(data, out, dies_at=step)
        if code == 0:
            break
        assert code == -signal.SIGKILL, code
        shards.append(len(list(out.glob("train/part-*.json"))))
        codes.append(run(data, out, dies_at=None))
    print(json.dumps({"codes": codes, "shards": shards}))


if __name__ == "__main__":
    main()
