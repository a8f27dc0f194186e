"""Chunks that were coded once and lie in the repository: this version reads them, and codes the same."""

from __future__ import annotations

import pytest

from logitstore.store.packed import decode_chunk
from logitstore.store.values import FORMS, Values
from tests import packed_twin
from tests.golden_packed import CHUNK, base_of, coded, load, shape
from tests.packed_cases import CHECKSUM, cut, same


@pytest.mark.parametrize("values", FORMS)
def test_chunks_are_read_and_coded_as_they_were(values: Values) -> None:
    samples, blocks, chunks = load(values)
    base = base_of(values, samples, blocks)
    for level, data in enumerate(chunks):
        assert data[0] == 1
        found = decode_chunk(data, samples[-1], blocks[-1].seed, base.upto(level), checksum=CHECKSUM + level)
        assert same(found, blocks[-1])
    assert coded(base, samples[-1], blocks[-1]) == chunks
    sizes = [len(data) for data in chunks]
    assert sizes[0] > 1.05 * sizes[1] > 1.05 * sizes[2], "base epochs tell something"


@pytest.mark.parametrize("values", FORMS)
def test_the_twin_reads_them(values: Values) -> None:
    samples, blocks, chunks = load(values)
    twin = packed_twin.Base(shape(values))
    for data, sample_P, block in zip(chunks, samples, blocks, strict=True):
        assert same(packed_twin.read(data, samples[-1].tolist(), blocks[-1].seed, twin)[0], blocks[-1])
        twin.add([(sample_P[i : i + CHUNK].tolist(), cut(block, i, i + CHUNK)) for i in range(0, 120, CHUNK)])
