"""Coded chunks read by a twin that was written after docs/format.md: the document says all that a reader needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.store.blocks import Block
from logitstore.store.packed import Base, encode_chunk
from logitstore.store.values import FORMS, Values
from tests import packed_twin
from tests.packed_cases import CHECKSUM, Case, cases, copied, cut, same, usual

Part = tuple[list[int], Block]


def check(case: Case, epochs: list[Block], chunk: int, *, last: int | None = None) -> set[int]:
    """Code epochs, each with those before it as base epochs; the twin learns only from what it reads. Forms found."""
    base, twin, forms = Base(case.shape, case.num_samples), packed_twin.Base(case.shape), set()
    for epoch, block in enumerate(epochs):
        parts: list[Part] = []
        for start in range(0, case.num_samples, chunk):
            here = slice(start, start + chunk)
            sample_P, seed_P, part = (
                case.samples(epoch)[here],
                case.seeds(epoch)[here],
                cut(block, start, start + chunk),
            )
            data = encode_chunk(part, sample_P, seed_P, base, checksum=CHECKSUM)
            found, form = packed_twin.read(data, sample_P.tolist(), seed_P, twin)
            assert same(found, part)
            forms.add(form)
            parts.append((sample_P.tolist(), found))
        if epoch < len(epochs) - 1:
            base.add([(np.array(samples), part) for samples, part in parts])
            twin.add(parts)
    return forms


@settings(max_examples=30)
@given(case=cases(most=25), levels=st.integers(0, 3), chunk=st.sampled_from([1, 8, 100]))
def test_the_twin_reads_any_chunk(case: Case, levels: int, chunk: int) -> None:
    if case.shape.num_classes > 1000:  # it looks at all classes
        case, levels = replace(case, num_samples=min(case.num_samples, 3)), min(levels, 1)
    check(case, [case.block(epoch) for epoch in range(levels + 1)], chunk)


@pytest.mark.parametrize("values", FORMS)
def test_epochs_with_every_way_to_code_a_class(values: Values) -> None:
    """Many samples of few classes, so that most are neighbours; counts of as many chunks as count, and one more."""
    case = usual(values, num_samples=170, num_classes=40, topk=8, floor=0.0)
    assert check(case, [case.block(epoch) for epoch in range(4)], 10) == {1}


@pytest.mark.parametrize("values", ["q4", "f16"])
def test_a_chunk_longer_than_what_is_learnt_from(values: Values) -> None:
    case = usual(values, num_samples=1100, topk=3)
    assert check(case, [case.block(epoch) for epoch in range(2)], 2000) == {1}


@pytest.mark.parametrize("values", ["q8", "f16"])
@pytest.mark.parametrize("floor", [0.0, 0.4])
def test_base_records_that_have_a_class_at_every_rank(values: Values, floor: float) -> None:
    """No teacher gives such; their levels add up to more than any view has."""
    case = replace(usual(values, num_classes=40, topk=34, floor=floor), skipped=0.0)
    epochs = [copied(case.block(epoch)) for epoch in range(3)]
    for block, deepest in zip(epochs[:2], (250, 254), strict=True):
        block.index[:] = 7
        block.logp[:] = deepest if values == "q8" else -deepest / 8
    assert check(case, epochs, 20) == {1}


@pytest.mark.parametrize("values", FORMS)
def test_chunks_stored_as_they_are(values: Values) -> None:
    """Of records that are not in order nothing is learnt; of others, that would only have taken more room, all."""
    case = replace(usual(values, num_samples=64, num_classes=300, topk=4, logz=True), skipped=0.0)
    epochs = [copied(case.block(epoch)) for epoch in range(3)]
    rng = np.random.default_rng(0)
    short = epochs[0]
    short.index[0, 32:] = np.sort(rng.permuted(np.tile(np.arange(300), (32, 1)), axis=1)[:, :4], axis=1)
    noise = rng.uniform(0.0, 31, (32, 4)) if values == "f16" else rng.integers(0, 255, (32, 4))
    noise.sort(axis=1)
    short.logp[0, 32:] = -noise if values == "f16" else noise
    odd = epochs[1]
    odd.index[0, 3, 0] = 301
    assert check(case, epochs, 8) == {1, 2}
