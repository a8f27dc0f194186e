"""The golden stores of tests/golden: what they hold, and how they are made again.

python -m tests.golden_store [NAME ...]    rewrites all or these; only for a new format version, or a new store
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from logitstore.checksums import canonical_json
from tests.convert_cases import packed_manifest
from tests.store_cases import COARSE, DENSE, SMALL, write_store

FOLDER = Path(__file__).parent / "golden"
STORES = {
    "store_v1_q8": replace(SMALL, num_samples=70, dataset={"count": 70}, shard_size=64),
    "store_v1_q4": replace(COARSE, num_samples=70, dataset={"count": 70}, shard_size=64, num_epochs=1),
    "store_v1_q2": replace(COARSE, values="q2", num_samples=70, dataset={"count": 70}, shard_size=64, num_epochs=1),
    "store_v1_f16": replace(DENSE, num_samples=70, dataset={"count": 70}, shard_size=64, num_epochs=1),
}
# Two base epochs, and one that needs both.
PACKED = {
    name.replace("v1", "v1_packed"): packed_manifest(replace(manifest, num_epochs=3))
    for name, manifest in STORES.items()
    if not name.endswith("q2")
}
STORES |= PACKED


def main() -> None:
    for name in sys.argv[1:] or STORES:
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        write_store(FOLDER / name, STORES[name])
        for commit in (FOLDER / name / "commits").glob("0*.json"):
            commit.write_bytes(canonical_json({**json.loads(commit.read_bytes()), "info": {}}))  # when and where
        print(f"{FOLDER / name}: {sum(f.stat().st_size for f in (FOLDER / name).rglob('*') if f.is_file())} bytes")


if __name__ == "__main__":
    main()
