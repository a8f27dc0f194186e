"""Damaged chunks by the thousand: each is refused, or holds what it did; none crashes or goes on for ever.

python -m tests.packed_fuzz [--trials 1000] [--seed 0] [--most 60] [--strict]

Prints JSON: how many trials there were, by what was done and what came of it. --strict, with NUMBA_DISABLE_JIT=1, has
arrays refuse negative places, which NumPy and numba take to count from the end.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import config

from logitstore.store.blocks import Block
from logitstore.store.packed import Base, RecordShape, chunk
from logitstore.store.values import FORMS
from tests.packed_cases import Case, Kind, copied, same

HEADER = struct.Struct("<BBHIIII")
FIELDS = {"form": 0, "flags": 1, "reserved": 2, "length": 3, "checksum": 4, "content": 5, "records": 6}


@dataclass(frozen=True)
class Target:
    """A chunk, what it was coded with, and what is in it."""

    case: Case
    base: Base
    epoch: int
    data: bytes
    block: Block

    def decode(self, data: bytes, base: Base | None = None) -> Block:
        return self.case.decoded(self.base if base is None else base, self.epoch, data)


KINDS: tuple[tuple[int, int, int, Kind], ...] = (
    (0, 11, 5, "usual"),
    (2, 40, 10, "usual"),
    (3, 300, 30, "tied"),
    (1, 70_000, 6, "deep"),
)
"""Base epochs, classes, ranks, and what the teacher's logits are like."""


def targets(most: int) -> list[Target]:
    """Of all forms; with and without base epochs; stored as they are, too."""
    found = []
    for number, values in enumerate(FORMS):
        for levels, classes, topk, kind in KINDS:
            shape = RecordShape(topk=topk, num_classes=classes, values=values, floor=1e-3, logz=levels == 2)
            case = Case(shape=shape, num_samples=most, kind=kind, seed=number, skipped=0.1)
            base, block = case.base(levels), copied(case.block(levels))
            if levels == 2:
                block.seed[0] ^= 1
            found.append(Target(case, base, levels, case.encoded(base, levels, block), block))
        block = copied(block)
        block.index[0, 3, 0] = 70_001
        found.append(Target(case, base, levels, case.encoded(base, levels, block), block))
    return found


Rng = np.random.Generator


def with_fields(data: bytes, **changes: int) -> bytes:
    """Another header."""
    fields = list(HEADER.unpack_from(data))
    for name, value in changes.items():
        fields[FIELDS[name]] = value
    return HEADER.pack(*fields) + data[HEADER.size :]


def sized(data: bytes) -> bytes:
    """The length in the header made right."""
    return with_fields(data, length=len(data))


def flipped(rng: Rng, data: bytes, first: int = 0) -> bytes:
    out = bytearray(data)
    for at in rng.integers(first, len(data), rng.integers(1, 5)):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def noise(rng: Rng, count: int) -> bytes:
    """Random bytes, few or many of them alike."""
    kind = rng.integers(5)
    if kind < 2:
        return rng.bytes(count)
    unit = [b"\0", b"\xff", rng.bytes(int(rng.integers(1, 9)))][kind - 2]
    return (unit * count)[:count]


def overwritten(rng: Rng, data: bytes) -> bytes:
    at = int(rng.integers(HEADER.size, len(data)))
    new = noise(rng, int(rng.integers(1, len(data) - at + 1)))
    return data[:at] + new + data[at + len(new) :]


def moved(rng: Rng, data: bytes) -> bytes:
    """Words missing, or twice there."""
    at, by = (int(rng.integers(HEADER.size, len(data))) for _ in range(2))
    return sized(data[:at] + data[by:])


def relabelled(rng: Rng, data: bytes) -> bytes:
    """A field of the header is another; sometimes with bytes enough for it."""
    name = rng.choice(list(FIELDS))
    size = 8 if name in ("form", "flags") else 16 if name == "reserved" else 32
    old = HEADER.unpack_from(data)[FIELDS[name]]
    near = (old + int(rng.integers(-4, 5))) % (1 << size)
    value = near if rng.random() < 0.5 else int(rng.integers(1 << size))
    return with_fields(data, **{name: value}) + bytes(int(rng.integers(40)))


ALTERED: dict[str, Callable[[Rng, bytes], bytes]] = {
    "bits flipped": flipped,
    "bits of the body flipped": lambda rng, data: flipped(rng, data, HEADER.size),
    "truncated": lambda rng, data: data[: rng.integers(len(data))],
    "shorter by its own account": lambda rng, data: sized(data[: rng.integers(HEADER.size, len(data))]),
    "longer by its own account": lambda rng, data: sized(data + noise(rng, 2 * int(rng.integers(1, 40)))),
    "another header": relabelled,
    "overwritten": overwritten,
    "all noise": lambda rng, data: data[: HEADER.size] + noise(rng, len(data) - HEADER.size),
    "no body": lambda rng, data: sized(data[: HEADER.size]),
    "moved": moved,
    "nothing but noise": lambda rng, data: noise(rng, int(rng.integers(200))),
}


def attempt(decode: Callable[[], Block], block: Block) -> str:
    """What came of it; AssertionError where it is wrong."""
    try:
        found = decode()
    except ValueError as error:
        assert str(error) and "\n" not in str(error), "one clause"
        return "refused"
    assert same(found, block), "other records than those that were coded"
    return "the same"


def trial(rng: Rng, pool: list[Target]) -> tuple[str, str]:
    """One damaged chunk: what was done, and what came of it."""
    target = pool[rng.integers(len(pool))]
    name = str(rng.choice([*ALTERED, "another chunk", "a mixture", "another base", "its checksum made right"]))
    if name == "another base":
        other = target.base.upto(int(rng.integers(target.base.level + 1)))
        if rng.random() < 0.5:
            other = replace(target.case, seed=99).base(target.base.level)
        return name, attempt(lambda: target.decode(target.data, other), target.block)
    if name in ("another chunk", "a mixture"):
        other = pool[rng.integers(len(pool))]
        data = other.data if name == "another chunk" else sized(target.data[: HEADER.size] + other.data[HEADER.size :])
        expected = other.block if name == "another chunk" and other.case == target.case else target.block
        return name, attempt(lambda: target.decode(data), expected)
    if name == "its checksum made right":
        return name, unchecked(target, overwritten(rng, target.data))
    data = ALTERED[name](rng, target.data)
    return name, attempt(lambda: target.decode(data), target.block)


def unchecked(target: Target, data: bytes) -> str:
    """With a checksum that happens to fit whatever is decoded: records that a store could hold."""
    shape = target.case.shape
    kept, chunk._content_checksum = chunk._content_checksum, lambda block: 0
    try:
        block = target.decode(with_fields(data, content=0))
    except ValueError:
        return "refused"
    finally:
        chunk._content_checksum = kept
    assert [a if a is None else (a.dtype, a.shape) for a in vars(block).values()] == [
        a if a is None else (a.dtype, a.shape) for a in vars(target.block).values()
    ]
    if data[0] == 1:
        none = block.index == np.iinfo(shape.index_dtype).max
        assert (none | (block.index < shape.num_classes)).all(), "no such class"
        assert (np.diff(none.astype(int)) >= 0).all(), "a class behind padding"
    return "other records"


class Strict(np.ndarray):
    """An array that does not count from its end."""

    def __getitem__(self, place: Any) -> Any:
        self.check(place)
        return super().__getitem__(place)

    def __setitem__(self, place: Any, value: Any) -> None:
        self.check(place)
        super().__setitem__(place, value)

    @staticmethod
    def check(place: Any) -> None:
        for one in place if isinstance(place, tuple) else (place,):
            if isinstance(one, int | np.integer) and one < 0:
                raise IndexError(f"place {one}")


def strict(argument: Any) -> Any:
    """An argument of a kernel, with arrays that do not count from their ends."""
    if isinstance(argument, np.ndarray):
        return argument.view(Strict)
    return type(argument)(*map(strict, argument)) if isinstance(argument, tuple) else argument


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=60)
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    if options.strict:
        assert config.DISABLE_JIT, "compiled kernels take no such arrays"
        run = chunk.code_records
        chunk.code_records = lambda *arguments: run(*map(strict, arguments))
    pool = targets(options.most)
    found: Counter[str] = Counter()
    for number in range(options.trials):
        try:
            name, result = trial(np.random.default_rng([options.seed, number]), pool)
        except Exception as error:
            raise RuntimeError(f"trial {number} of seed {options.seed}") from error
        found[f"{name}: {result}"] += 1
    print(json.dumps(dict(sorted(found.items()))))


if __name__ == "__main__":
    main()
