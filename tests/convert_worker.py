"""Processes that convert a store and are killed, for tests/test_convert_kill.py; they end in one JSON line of results.

    convert_worker.py steps SOURCE PATH FIRST EVERY   for every nth change of the disk: die there, convert again
    convert_worker.py random SOURCE PATH KILLS SEED   convert again and again, each time SIGKILLed at a random moment
    convert_worker.py pair SOURCE PATH SEED           two processes share the work, a third is killed meanwhile

They are forked from here, where everything is imported and compiled but none of its threads runs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from logitstore.store import Store, open_store
from logitstore.store.blocks import Block
from logitstore.store.kernels import visited
from logitstore.store.packed import Base, RecordShape, decode_chunk, encode_chunk
from tests.convert_cases import converted
from tests.store_cases import make_block
from tests.store_worker import die_at, finish, spawn


def load_kernels(store: Store) -> None:
    """Compile, or load, what codes records; without zarr, whose threads no process may be forked from."""
    base = Base(RecordShape.of(store.manifest), store.num_samples)
    chunks = []
    for shard in range(store.num_shards):
        block = make_block(store.manifest, 0, shard)
        records = Block(seed=block.seed, index=block.index[None], logp=block.logp[None], tail=block.tail)
        chunks.append((visited(store.order(0), *store.shard_range(shard)), records))
    base.add(chunks)
    sample, records = chunks[0]
    decode_chunk(encode_chunk(records, sample, records.seed, base, checksum=0), sample, records.seed, base, checksum=0)


def kill_at_steps(source: Path, path: Path, first: int, every: int) -> dict[str, object]:
    """One store a step: a process dies at it, another completes. Ends when a process gets through alive."""
    step, codes = first, []
    while True:
        target = path / str(step)

        def doomed(step: int = step, target: Path = target) -> None:
            die_at(step)
            converted(source, target, base_epochs=2, workers=2)

        if finish(spawn(doomed)) == 0:
            shutil.rmtree(target)
            return {"steps": step - 1, "codes": codes}
        again = partial(converted, source, target, base_epochs=2, workers=2)
        codes.append(finish(spawn(again)))
        step += every


def on_a_slow_disk(source: Path, path: Path, *, workers: int = 2) -> None:
    """So that kills come before the end on any machine."""
    os.fsync = lambda descriptor: time.sleep(0.02)  # type: ignore[assignment]
    converted(source, path, base_epochs=2, workers=workers)


def random_kills(source: Path, path: Path, kills: int, seed: int) -> dict[str, int]:
    rng = random.Random(seed)
    killed = 0
    while killed < kills:
        child = spawn(lambda: on_a_slow_disk(source, path))
        time.sleep(rng.uniform(0.01, 0.2))
        os.kill(child, signal.SIGKILL)
        if finish(child) == 0:
            break
        killed += 1
    return {"killed": killed, "finished": finish(spawn(lambda: converted(source, path, base_epochs=2)))}


def shared_work(source: Path, path: Path, seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    doomed, *both = [spawn(lambda: on_a_slow_disk(source, path, workers=1)) for _ in range(3)]
    time.sleep(rng.uniform(0.02, 0.2))
    os.kill(doomed, signal.SIGKILL)
    return {"killed": finish(doomed), "codes": [finish(child) for child in both]}


def main() -> None:
    command, source, path, *numbers = sys.argv[1:]
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    load_kernels(open_store(source))
    action = {"steps": kill_at_steps, "random": random_kills, "pair": shared_work}[command]
    print(json.dumps(action(Path(source), Path(path), *map(int, numbers))))


if __name__ == "__main__":
    main()
