"""Coded chunks are the same bytes with the JIT on and off, and either reads the other's. As a script it prints them."""

from __future__ import annotations

import json

from logitstore.store.values import FORMS
from tests.helpers import printed_without_jit
from tests.packed_cases import same, usual


def chunks() -> dict[str, str]:
    """Small chunks by what they hold, hexadecimal."""
    coded = {}
    for values in FORMS:
        case = usual(values, num_samples=24, num_classes=40, logz=True)
        base = case.base(2, chunk=10)
        for level in (0, 2):
            data = case.encoded(base.upto(level), 2)
            assert same(case.decoded(base.upto(level), 2, data), case.block(2))
            coded[f"{values}, {level} base epochs"] = data.hex()
    return coded


def test_chunks_are_the_same_without_the_jit() -> None:
    assert printed_without_jit(__file__) == chunks()


if __name__ == "__main__":
    print(json.dumps(chunks()))
