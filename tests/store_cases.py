"""Small stores for the tests: records made from hashes, so that they are the same everywhere."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.pcg import VisitOrder, pcg32_hash, view_seeds
from logitstore.store import Manifest, ShardBlock, Store, claim_shard, commit_shard, create_store
from logitstore.store.owner import Owner, this_process
from logitstore.store.values import RANKED_BY_CODE, Values, codes, mass_table, quantise

SMALL = Manifest(
    num_samples=300,
    num_epochs=2,
    num_classes=11,
    topk=5,
    floor=1e-3,
    values="q8",
    run_seed=7,
    shard_size=128,
    chunk_size=64,
    inference={"batch_size": 64, "dtype": "float32", "device_type": "cpu", "threads": 1},
    teacher={"name": "teacher", "sha256": "0" * 64, "preprocessing": {"mean": [0.5, 0.5, 0.5]}},
    dataset={"count": 300, "fingerprint": "f" * 64, "class_names": [f"class {i}" for i in range(11)]},
    view={"name": "crop_flip", "size": 32},
    versions={"logitstore": "0.1.0"},
)
DENSE = replace(SMALL, values="f16", logz=True, floor=0.0, topk=11)
COARSE = replace(SMALL, values="q4", topk=9)


def make_block(manifest: Manifest, epoch: int, shard: int) -> ShardBlock:
    """A shard whose content is a hash of its place; sample 13 counts as skipped."""
    start, stop = manifest.shard_range(shard)
    order = VisitOrder(num_samples=manifest.num_samples, run_seed=manifest.run_seed, epoch=epoch)
    sample = order.samples(np.arange(start, stop))
    seed = view_seeds(manifest.run_seed, epoch, sample)
    rank = np.arange(manifest.topk)
    kept = 1 + pcg32_hash(1, seed) % np.uint32(manifest.topk)
    kept = np.where(sample == 13, 0, kept)
    padding = rank >= kept[:, None]
    first = pcg32_hash(2, seed) % np.uint32(manifest.num_classes)
    up = -1 if manifest.values in RANKED_BY_CODE else 1  # so that tied classes have to change places, but for the first
    index = ((first[:, None] + up * rank) % manifest.num_classes).astype(manifest.index_dtype)
    index[padding] = np.iinfo(manifest.index_dtype).max
    steps = (pcg32_hash(3, seed[:, None], rank) % np.uint32(9)).cumsum(axis=1) / -8
    logp = np.where(padding, -np.inf, steps).astype(np.float32)
    stored = quantise(logp, manifest.values)
    if manifest.values in RANKED_BY_CODE:
        behind = np.lexsort((index[:, 1:], stored[:, 1:]))
        for array in (index, stored):
            array[:, 1:] = np.take_along_axis(array[:, 1:], behind, axis=1)
    tail = np.where(sample == 13, -np.inf, (pcg32_hash(4, seed) % np.uint32(50)) / -8).astype(np.float32)
    return ShardBlock(
        seed=seed,
        index=index,
        logp=stored,
        tail=quantise(tail, manifest.values),
        witness=pcg32_hash(5, seed[::64]),
        logz=(seed % np.uint32(64) / 8).astype(np.float32) if manifest.logz else None,
    )


def masses(stored: NDArray[Any], values: Values) -> NDArray[np.float32]:
    """Masses of stored log-probabilities, not normalised; padding has mass 0."""
    return np.asarray(mass_table(values)[codes(stored)])


def write_shards(store: Store, epochs: Iterable[int] | None = None, *, pause_s: float = 0.0) -> None:
    """Commit whatever is neither committed nor claimed; pause before each shard."""
    for epoch in range(store.num_epochs) if epochs is None else epochs:
        for shard in range(store.num_shards):
            time.sleep(pause_s)
            claim = claim_shard(store, epoch, shard)
            if claim is not None:
                with claim:
                    commit_shard(store, claim, make_block(store.manifest, epoch, shard))


def write_store(path: Path, manifest: Manifest = SMALL) -> Store:
    """A complete store."""
    store = create_store(path, manifest)
    write_shards(store)
    return store


def content(path: Path) -> dict[str, Any]:
    """What must be equal between two runs: digest of every file by key, commits without ``info``."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        key = file.relative_to(path).as_posix()
        if file.is_dir():
            continue
        if file.parent.name == "commits" and file.suffix == ".json" and file.name != "zarr.json":
            document = json.loads(file.read_bytes())
            assert document.pop("info")
            found[key] = document
        else:
            found[key] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def state(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file and folder: equal before and after what must not write."""
    files = {str(file.relative_to(path)): file.stat() for file in sorted(path.rglob("*"))}
    return {name: (found.st_size, found.st_mtime_ns) for name, found in files.items()}


def killed_process() -> Owner:
    """A process of this host that ran and was killed."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    child.kill()
    child.wait()
    return replace(this_process(), pid=child.pid, started=started)
