"""What a reader holds: a few blocks, whatever the size of the store; and what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.store import ShardBlock, claim_shard, commit_shard, create_store
from logitstore.store.cache import Cache
from tests.store_cases import SMALL, write_store

ROOT = Path(__file__).resolve().parents[1]
SHARD = 1 << 15

SCAN = """
import json, sys
from logitstore.store import open_store

def private_kib():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))

store = open_store(sys.argv[1])
store.read(0, 0, 1)
before = peak = private_kib()
for start in range(0, store.num_samples, 1024):
    store.read(0, start, start + 1024)
    peak = max(peak, private_kib())
print(json.dumps({"grown_mib": (peak - before) / 1024, "zarr": "zarr" in sys.modules}))
"""


def in_python(code: str, *arguments: object) -> Any:
    """What a process of its own prints as JSON."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("shards", [2, 8])
def test_a_scan_holds_a_few_blocks_of_any_store(tmp_path: Path, shards: int) -> None:
    """Decoded, the shards take 10 MiB each."""
    manifest = replace(
        SMALL, num_samples=shards * SHARD, num_epochs=1, num_classes=200, topk=100, shard_size=SHARD, chunk_size=4096
    )
    store = create_store(tmp_path / "s", manifest)
    numbers = np.arange(SHARD)
    block = ShardBlock(
        seed=numbers.astype(np.uint32),
        index=((numbers[:, None] // 64 + np.arange(100)) % 200).astype(np.uint16),
        logp=np.tile(np.arange(100, dtype=np.uint8), (SHARD, 1)),
        tail=np.full(SHARD, 40, np.uint8),
        witness=np.zeros(SHARD // 64, np.uint32),
    )
    for shard in range(shards):
        claim = claim_shard(store, 0, shard)
        assert claim is not None
        commit_shard(store, claim, block)
    found = in_python(SCAN, tmp_path / "s")
    assert 0 < found["grown_mib"] <= 32
    assert not found["zarr"], "zarr writes stores; reading needs none of it"


def test_opening_a_store_loads_neither_zarr_nor_numba(tmp_path: Path) -> None:
    write_store(tmp_path / "s", SMALL)
    code = (
        "import json, sys, logitstore\n"
        "logitstore.open_store(sys.argv[1]).info()\n"
        "print(json.dumps(sorted({'torch', 'zarr', 'numba'} & sys.modules.keys())))"
    )
    assert in_python(code, tmp_path / "s") == []


def test_different_keys_load_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=20)  # breaks unless both are being loaded at one time
    cache: Cache[int, int] = Cache(lambda key: meeting.wait() * 0 + key, limit=10, cost=lambda _: 1)
    found: list[int] = []
    threads = [threading.Thread(target=lambda key=key: found.append(cache.get(key))) for key in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2]


def test_one_key_is_loaded_once_for_all_who_wait() -> None:
    loaded: list[int] = []
    go = threading.Event()

    def load(key: int) -> int:
        go.wait(20)
        loaded.append(key)
        return key

    cache: Cache[int, int] = Cache(load, limit=10, cost=lambda _: 1)
    threads = [threading.Thread(target=cache.get, args=(5,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert loaded == [5] and cache.get(5) == 5


def test_the_least_recently_used_goes_first() -> None:
    loaded: list[int] = []

    def load(key: int) -> int:
        loaded.append(key)
        return key

    cache: Cache[int, int] = Cache(load, limit=5, cost=lambda value: value)
    for key in (2, 3, 2, 1, 2, 3):
        cache.get(key)
    assert loaded == [2, 3, 1, 3] and cache.cost == 5
    cache.get(9)
    assert cache.cost == 9, "more than the limit, but the last one stays"


def test_what_fails_to_load_is_tried_again() -> None:
    answers = [ValueError("once"), 7]

    def load(key: str) -> Any:
        if isinstance(answer := answers.pop(0), ValueError):
            raise answer
        return answer

    cache: Cache[str, Any] = Cache(load, limit=10, cost=lambda _: 1)
    with pytest.raises(ValueError, match="once"):
        cache.get("a")
    assert cache.cost == 0 and cache.get("a") == 7
