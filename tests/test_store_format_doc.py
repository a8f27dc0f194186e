"""docs/format.md: its reader reads, and its numbers are right."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.pcg import VisitOrder, pair_seeds, pcg32_hash, view_seeds
from logitstore.store import open_store
from logitstore.store.layout import array_layouts
from tests.convert_cases import packed_manifest
from tests.golden_store import FOLDER, PACKED, STORES
from tests.store_cases import DENSE

TEXT = (Path(__file__).parents[1] / "docs/format.md").read_text()


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    found: dict[str, Any] = {}
    exec(compile(code, "docs/format.md", "exec"), found)
    return found


@pytest.mark.parametrize("name", sorted(STORES.keys() - PACKED.keys()))
def test_the_reader_agrees_with_ours(name: str, namespace: dict[str, Any]) -> None:
    store = open_store(FOLDER / name)
    for epoch, shard in sorted(store.committed()):
        seed, index, prob, tail = namespace["read_shard"](FOLDER / name, epoch, shard)
        records = store.read(epoch, *store.shard_range(shard))
        assert np.array_equal(seed, records.seed) and np.array_equal(index, records.index)
        assert np.allclose(prob, records.prob, rtol=1e-6) and np.allclose(tail, records.tail, rtol=1e-6)


def test_the_numbers_of_order_and_seeds() -> None:
    section = TEXT.partition("## 8.")[2].partition("## 9.")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([\d ]+) \|$", section, re.MULTILINE)
    numbers = {row[0].strip(): row[1].split() for row in rows}
    order = VisitOrder(num_samples=10, run_seed=0, epoch=0)
    large = VisitOrder(num_samples=1_281_167, run_seed=2**63 + 1, epoch=299)
    expected = {
        "hash(1, 2, 3)": [pcg32_hash(1, 2, 3)],
        "seeds of samples 0 to 3, r = 0, e = 0": view_seeds(0, 0, np.arange(4)),
        "pair seed of s = 1, t = 2": [pair_seeds(1, 2)],
        "order of N = 10, r = 0, e = 0": order.samples(np.arange(10)),
        "positions 0, 1, 640000 of N = 1281167, r = 2^63 + 1, e = 299": large.samples([0, 1, 640_000]),
    }
    assert {name: [str(int(value)) for value in values] for name, values in expected.items()} == numbers


def test_every_field_and_array_is_described() -> None:
    fields = replace(DENSE, mass=0.9, gain=1e-3, views_from="0" * 64).to_dict()
    packed = packed_manifest(DENSE)
    fields |= dict.fromkeys((*packed.codec.to_dict(), *array_layouts(packed)))
    for name in (*fields, *array_layouts(DENSE), "store_id", "objects", "counts", "info", "token", "started"):
        assert f"`{name}`" in TEXT, name
