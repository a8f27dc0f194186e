"""Coded chunks that were damaged, exchanged or made up: refused with a clause, and never anything worse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from logitstore.store.packed import Base, decode_chunk
from tests.packed_cases import CHECKSUM, Case, copied, same, usual
from tests.packed_fuzz import ALTERED, HEADER, flipped, sized, with_fields

ROOT = Path(__file__).resolve().parents[1]
LONG = pytest.mark.slow


@pytest.fixture(scope="module")
def case() -> Case:
    return usual("q8", num_classes=40)


@pytest.fixture(scope="module")
def base(case: Case) -> Base:
    return case.base(2)


@pytest.fixture(scope="module")
def data(case: Case, base: Base) -> bytes:
    return case.encoded(base, 2)


HEADERS: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("nothing", lambda data: b"", "shorter than its header"),
    ("half a header", lambda data: data[:19], "shorter than its header"),
    ("zeros", lambda data: bytes(len(data)), "header was altered"),
    ("another form", lambda data: with_fields(data, form=3), "header was altered"),
    ("stored as they are", lambda data: with_fields(data, form=2), "shorter than what it should hold"),
    ("another flag", lambda data: with_fields(data, flags=2), "header was altered"),
    ("seeds of its own", lambda data: with_fields(data, flags=1), "shorter than what it should hold"),
    ("something reserved", lambda data: with_fields(data, reserved=1), "header was altered"),
    ("truncated", lambda data: data[:-1], "header was altered"),
    ("a length below the header's", lambda data: with_fields(data, length=19), "header was altered"),
    ("an odd length", lambda data: sized(data + b"x"), "ends within a word"),
    ("one record more", lambda data: with_fields(data, records=61), "holds 61 records, not 60"),
    ("another base", lambda data: with_fields(data, checksum=7), "model 00000007, this one is 01234567"),
    ("another checksum", lambda data: with_fields(data, content=7), "not those that were coded"),
    ("no words", lambda data: sized(data[: HEADER.size]), "not those that were coded"),
]


@pytest.mark.parametrize(("alter", "clause"), [(a, c) for _, a, c in HEADERS], ids=[name for name, _, _ in HEADERS])
def test_what_is_wrong_is_said(
    case: Case, base: Base, data: bytes, alter: Callable[[bytes], bytes], clause: str
) -> None:
    with pytest.raises(ValueError, match=clause) as caught:
        case.decoded(base, 2, alter(data))
    assert str(caught.value).startswith("the ") and "\n" not in str(caught.value)


def test_chunks_do_not_pass_for_others(case: Case, base: Base, data: bytes) -> None:
    """All have the same base, as their headers say; what they were coded for differs."""
    refused = "not those that were coded"
    with pytest.raises(ValueError, match=refused):
        case.decoded(base, 3, data)
    with pytest.raises(ValueError, match=refused):
        decode_chunk(data, case.samples(2)[::-1].copy(), case.seeds(2), base, checksum=CHECKSUM)
    with pytest.raises(ValueError, match=refused):
        decode_chunk(data, case.samples(2), case.seeds(3), base, checksum=CHECKSUM)
    for other in (base.upto(1), case.base(3), usual("q8", num_classes=41).base(2)):
        with pytest.raises(ValueError, match=refused):
            case.decoded(other, 2, data)


def test_records_stored_as_they_are_are_checked(case: Case, base: Base) -> None:
    """A chunk of noise, whose words would take more room; every byte of it counts."""
    rng = np.random.default_rng(0)
    block = copied(case.block(2))
    block.index[...], block.logp[...] = rng.integers(0, 40, block.index.shape), rng.integers(0, 255, block.logp.shape)
    data = case.encoded(base, 2, block)
    assert data[0] == 2 and same(case.decoded(base, 2, data), block)
    for at in range(HEADER.size, len(data)):
        with pytest.raises(ValueError, match="not those that were coded"):
            case.decoded(base, 2, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])


def test_every_flipped_bit_is_found(case: Case, base: Base, data: bytes) -> None:
    """But for those of the last word, where others would say the same."""
    block, unharmed = case.block(2), []
    for bit in range(8 * len(data)):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << bit % 8
        try:
            found = case.decoded(base, 2, bytes(wrong))
        except ValueError:
            continue
        assert same(found, block)
        unharmed.append(bit)
    assert all(bit >= 8 * (len(data) - 4) for bit in unharmed) and len(unharmed) < 32


def test_the_same_damage_is_made_again() -> None:
    """A trial that fails can be looked at."""
    once, again = ([alter(np.random.default_rng(3), bytes(range(99))) for alter in ALTERED.values()] for _ in range(2))
    assert once == again and flipped(np.random.default_rng(3), bytes(99)) != bytes(99)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param("--trials 400", {}, id="compiled"),
        pytest.param("--trials 40 --most 8 --strict", {"NUMBA_DISABLE_JIT": "1"}, id="plain Python"),
        pytest.param("--trials 100000 --seed 1", {}, id="compiled, long", marks=LONG),
        pytest.param("--trials 500 --seed 1 --strict", {"NUMBA_DISABLE_JIT": "1"}, id="plain, long", marks=LONG),
        pytest.param("--trials 10000 --seed 2", {"NUMBA_BOUNDSCHECK": "1"}, id="compiled with checks", marks=LONG),
    ],
)
def test_damage_of_every_kind_is_refused_or_harmless(options: str, environment: dict[str, str], tmp_path: Path) -> None:
    """In a process of its own, which may take its time, but not for ever; no place lies outside its array."""
    if "NUMBA_BOUNDSCHECK" in environment:
        environment = {**environment, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "tests.packed_fuzz", *options.split()],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    came: Counter[str] = Counter()
    for name, count in found.items():
        came[name.split(": ")[1]] += count
    assert sum(came.values()) == int(options.split()[1])
    assert came["refused"] > came["the same"] > 0 and came["other records"] > 0
    assert {name.split(": ")[0] for name in found} >= set(ALTERED) or sum(came.values()) < 100
