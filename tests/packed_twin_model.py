"""What the twin of coded chunks knows of levels, counts and frequencies, and of records as they are stored."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from logitstore.store.blocks import Block
from logitstore.store.packed import RecordShape

LEVELS_PER_NAT = {"q8": 8, "q4": 4, "q2": 2, "f16": 8}
FALL = {8: 3790295335, 4: 3344923893, 2: 2605029347}
NO_MASS = 255
SYMBOLS, ENDS, BY_ITSELF = 41, 0, 40
TAILS, TAIL_BY_ITSELF = 26, 25


@dataclass
class Record:
    """What is coded of a view."""

    classes: list[int]
    levels: list[int]
    places: list[int]
    """Bits of float16 values, without sign."""
    tail: int
    tail_place: int


class Scale:
    """What levels mean."""

    def __init__(self, shape: RecordShape) -> None:
        n = LEVELS_PER_NAT[shape.values]
        exact, self.mass = 1 << 40, []
        for _ in range(256):
            self.mass.append(exact >> 16)
            exact = exact * FALL[n] >> 32
        if shape.floor > 0:
            last = max(k for k in range(254) if self.mass[k] >= shape.floor * self.mass[0])
            self.absent, self.shift = min(254, last + n), max(0, last.bit_length() - 4)
        else:
            self.absent, self.shift = 10 * n, n.bit_length() - 1
        self.level_of, self.first = levels_of_halves()


@cache
def levels_of_halves() -> tuple[list[int], list[int]]:
    """Level of each float16 by its bits, and the first bits of each level."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).tolist()
    levels = [min(254, round(8 * half)) for half in halves]
    return levels, [levels.index(k) for k in range(255)] + [len(levels)]


Counts = dict[str, Counter[tuple[int, ...]]]


def no_counts() -> Counts:
    return {name: Counter() for name in ("step", "risk", "hit", "n0", "n1", "m0", "m1", "tail")}


def blend(seen: Sequence[int], wider: Sequence[int], trust: int) -> list[int]:
    inverse = (1 << 45) // (sum(seen) + trust)
    return [(((count << 16) + trust * share) * inverse) >> 45 for count, share in zip(seen, wider, strict=True)]


def table(shares: Sequence[int], rest: int) -> list[int]:
    made = [1 + (share * ((1 << 16) - len(shares)) >> 16) for share in shares]
    made[rest] += (1 << 16) - sum(made)
    return made


class Frequencies:
    """Made anew of counts from time to time."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.chance: dict[tuple[int, int], int] = {}
        for z in range(48):
            usual = max(197, min(9830, 9830 * (z - 12) // 24))
            for support in range(4):
                hit, risk = counts["hit"][z, support], counts["risk"][z, support]
                self.chance[z, support] = max(1, ((hit << 16) + 6 * usual) // (risk + 6))
        self.none = [max(1, ((counts["n1"][b,] << 16) + 26214) // (counts["n0"][b,] + 4)) for b in range(16)]
        self.flag = [max(1, ((counts["m1"][b,] << 16) + 65536) // (counts["m0"][b,] + 2)) for b in range(16)]
        usual = [6553 // (1 + abs(s - 12)) for s in range(TAILS)]
        self.tail = [table(blend([counts["tail"][b, s] for s in range(TAILS)], usual, 8), 12) for b in range(8)]
        of_band: dict[int, list[int]] = defaultdict(lambda: [0] * SYMBOLS)
        of_gap: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0] * SYMBOLS)
        everywhere = [0] * SYMBOLS
        for (band, gap, _, symbol), count in counts["step"].items():
            for sums in (of_band[band], of_gap[band, gap], everywhere):
                sums[symbol] += count
        usual = [6342, *(21000 // (s + 2) for s in range(1, 40)), 211]
        anywhere = blend(everywhere, usual, 20)
        in_band = [blend(of_band[band], anywhere, 12) for band in range(16)]
        self._wider = lambda band, gap: blend(of_gap[band, gap], in_band[band], 10)
        self._steps: dict[tuple[int, int, int], list[int]] = {}

    def step(self, context: tuple[int, int, int]) -> list[int]:
        if context not in self._steps:
            seen = [self.counts["step"][(*context, symbol)] for symbol in range(SYMBOLS)]
            self._steps[context] = table(blend(seen, self._wider(*context[:2]), 8), 1)
        return self._steps[context]


def records_of(block: Block, shape: RecordShape) -> list[Record] | None:
    """Records of a block; None where they are not in order."""
    scale, no_class, found = Scale(shape), np.iinfo(shape.index_dtype).max, []
    for row in range(len(block.seed)):
        classes, values = block.index[0, row].tolist(), block.logp[0, row]
        kept = sum(cls != no_class for cls in classes)
        tail, tail_place = level_of(block.tail[row], scale)
        pairs = [level_of(value, scale) for value in values]
        levels, places = [level for level, _ in pairs[:kept]], [place for _, place in pairs[:kept]]
        proper = all(cls < shape.num_classes for cls in classes[:kept]) and tail >= 0
        proper &= all(level == NO_MASS for level, _ in pairs[kept:]) and all(0 <= level < NO_MASS for level in levels)
        proper &= places == sorted(places) if shape.values == "f16" else levels == sorted(levels)
        if shape.values in ("q4", "q2"):
            behind = list(zip(levels[1:], classes[1:kept], strict=True))
            proper &= behind == sorted(set(behind))
        if not proper:
            return None
        found.append(Record(classes[:kept], levels, places if shape.values == "f16" else [], tail, tail_place))
    return found


def level_of(value: Any, scale: Scale) -> tuple[int, int]:
    """Level and place of a stored value; -1 for what no level has."""
    if value.dtype == np.uint8:
        return int(value), 0
    bits = int(value.view(np.uint16))
    if bits == 0x7E00:
        return NO_MASS, 0
    place = bits & 0x7FFF
    if (bits != 0 and bits <= 0x8000) or place >= 0x7C00:
        return -1, 0
    return scale.level_of[place], place


def stored(levels: list[int], places: list[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Values of levels."""
    if dtype == np.uint8:
        return np.array(levels, np.uint8)
    bits = [0x7E00 if k == NO_MASS else place | 0x8000 if place else 0 for k, place in zip(levels, places, strict=True)]
    return np.array(bits, np.uint16).view(np.float16)
