"""A reader of coded chunks in plain integers, written after docs/format.md and nothing else. Slow."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from logitstore.store.blocks import Block
from logitstore.store.packed import RecordShape
from tests.packed_twin_model import (
    BY_ITSELF,
    ENDS,
    NO_MASS,
    TAIL_BY_ITSELF,
    Counts,
    Frequencies,
    Record,
    Scale,
    no_counts,
    records_of,
    stored,
)

Choose = Callable[[Sequence[int] | int, int], int]
"""Takes parts, or how many there are of equal ones, and what a coder would choose; gives what is chosen."""


def decoder(words: Sequence[int]) -> Choose:
    """Chooses what the words say."""
    ahead = iter(words)
    low = sum(next(ahead, 0) << shift for shift in (32, 16, 0))
    width = 1 << 48

    def choose(parts: Sequence[int] | int, _: int) -> int:
        nonlocal low, width
        total = parts if isinstance(parts, int) else sum(parts)
        part = width // total
        value = min(low // part, total - 1)
        if isinstance(parts, int):
            chosen, first, count = value, value, 1
        else:
            chosen, first = 0, 0
            while first + parts[chosen] <= value:
                first += parts[chosen]
                chosen += 1
            count = parts[chosen]
        low, width = low - part * first, part * count
        while width < 1 << 32:
            low, width = low << 16 | next(ahead, 0), width << 16
        return chosen

    return choose


def known(_: Sequence[int] | int, chosen: int) -> int:
    """Chooses what a record has: for the counts of records that are known."""
    return chosen


@dataclass
class Base:
    """What base epochs tell."""

    shape: RecordShape
    scale: Scale = field(init=False)
    epochs: list[dict[int, Record]] = field(default_factory=list)
    """Records by sample."""
    counts: list[Counts] = field(default_factory=lambda: [no_counts()])
    """By level."""
    slots: dict[int, list[list[int]]] = field(default_factory=lambda: defaultdict(list))
    seen: Counter[int] = field(default_factory=Counter)
    records: int = 0

    def __post_init__(self) -> None:
        self.scale = Scale(self.shape)

    @property
    def level(self) -> int:
        return len(self.epochs)

    def add(self, chunks: Sequence[tuple[Sequence[int], Block]]) -> None:
        """One more base epoch."""
        epoch: dict[int, Record] = {}
        counts = {name: Counter(counter) for name, counter in self.counts[-1].items()}
        for number, (samples, block) in enumerate(chunks):
            records = records_of(block, self.shape)
            if records is None:
                records = [Record([], [], [], NO_MASS, 0)] * len(samples)
            elif number < 16:
                after = Coder(self, known).run(samples, records)[1]
                for name, counter in after.items():
                    counter.subtract(self.counts[-1][name])
                    counts[name].update(counter)
            epoch.update(zip(samples, records, strict=True))
        for record in epoch.values():  # in the order of positions
            self._look_at(record.classes[:12])
        self.epochs.append(epoch)
        self.counts.append(counts)

    def _look_at(self, classes: list[int]) -> None:
        if self.records == 1 << 18:
            return
        self.records += 1
        for k, cls in enumerate(classes):
            self.seen[cls] += 1
            slots = self.slots[cls]
            for j, other in enumerate(classes):
                if j == k:
                    continue
                places = [i for i, slot in enumerate(slots) if slot[0] == other]
                if not places:
                    if len(slots) == 64:
                        slots.pop()
                    slots.append([other, 0])
                at = places[0] if places else len(slots) - 1
                slots[at][1] += 1
                smaller = [i for i in range(at) if slots[i][1] < slots[at][1]]
                if smaller:
                    slots[at], slots[smaller[0]] = slots[smaller[0]], slots[at]

    def neighbours(self, cls: int) -> list[tuple[int, int]]:
        slots = self.slots.get(cls, [])[:32]
        return [(other, max(1, 1024 * count // (self.seen[cls] + 1))) for other, count in slots]

    def expected(self, sample: int) -> dict[int, tuple[int, int]]:
        """Level and support by class."""
        levels: dict[int, list[int]] = defaultdict(list)
        for epoch in self.epochs:
            for cls, level in list(zip(epoch[sample].classes, epoch[sample].levels, strict=True))[:32]:
                levels[cls].append(level)
        n, absent = self.level, self.scale.absent
        views = {cls: min(n, len(found)) for cls, found in levels.items()}
        return {
            cls: (min(254, (sum(found) + (n - v) * absent + n // 2) // n), max(0, 4 * v // n - 1))
            for (cls, found), v in zip(levels.items(), views.values(), strict=True)
        }


class Coder:
    """Goes through the events of records."""

    def __init__(self, base: Base, choose: Choose) -> None:
        self.base, self.scale, self.shape, self.choose = base, base.scale, base.shape, choose
        self.counts = {name: Counter(counter) for name, counter in base.counts[-1].items()}
        self.frequencies = Frequencies(self.counts)
        self.learning = True

    def count(self, name: str, *place: int) -> None:
        if self.learning:
            self.counts[name][place] += 1

    def run(self, samples: Sequence[int], records: Sequence[Record] | None = None) -> tuple[list[Record], Counts]:
        """All records of a chunk, and the counts behind them. What is known of them already, if anything."""
        found = []
        for p, sample in enumerate(samples):
            if p in (16, 32, 64, 128, 256, 512, 1024):
                self.frequencies = Frequencies(self.counts)
            self.learning = p < 1024
            found.append(self.record(sample, None if records is None else records[p]))
        return found, self.counts

    def record(self, sample: int, true: Record | None) -> Record:
        scale, shape = self.scale, self.shape
        expected = self.base.expected(sample)
        left_over, out = list(expected), set(expected)
        found = Record([], [], [], NO_MASS, 0)
        level, left, bound, place = 0, scale.mass[0], 0, 0
        for rank in range(shape.topk):
            before = level
            band = 0 if rank == 0 else 1 + min(14, level >> scale.shift)
            room = bound - level
            room = 0 if room <= 0 else 1 if room <= 3 else 2 if room <= 9 else 3
            gap = 7
            if left_over:
                distance = min(expected[cls][0] for cls in left_over) - level
                gap = next((i for i, end in enumerate((-8, -3, 0, 3, 7, 14)) if distance < end), 6)
            symbol = ENDS
            if true and rank < len(true.classes):
                symbol = min(BY_ITSELF, 1 + true.levels[rank] - before)
            symbol = self.choose(self.frequencies.step((band, gap, room)), symbol)
            self.count("step", band, gap, room, symbol)
            if symbol == ENDS:
                break
            level = before + symbol - 1
            if symbol == BY_ITSELF:
                level = self.choose(255, true.levels[rank] if true else 0)
            if shape.values == "f16":
                least = max(scale.first[level], place) if rank else scale.first[level]
                place = least + self.choose(scale.first[level + 1] - least, true.places[rank] - least if true else 0)
                found.places.append(place)
            left -= scale.mass[level]
            while bound < 254 and scale.mass[bound] > left:
                bound += 1
            tied = shape.values in ("q4", "q2") and rank > 1 and level == before
            least = found.classes[-1] + 1 if tied else 0
            cls = self.cls(expected, left_over, out, found.classes, level, least, true.classes[rank] if true else -1)
            found.classes.append(cls)
            found.levels.append(level)
        band = min(7, bound >> scale.shift)
        symbol = TAIL_BY_ITSELF
        if true and true.tail != NO_MASS and 0 <= true.tail - bound + 12 <= 24:
            symbol = true.tail - bound + 12
        symbol = self.choose(self.frequencies.tail[band], symbol)
        self.count("tail", band, symbol)
        found.tail = bound + symbol - 12
        if symbol == TAIL_BY_ITSELF:
            found.tail = self.choose(256, true.tail if true else 0)
        if shape.values == "f16" and found.tail != NO_MASS:
            least, end = scale.first[found.tail], scale.first[found.tail + 1]
            found.tail_place = least + self.choose(end - least, true.tail_place - least if true else 0)
        return found

    def cls(
        self,
        expected: dict[int, tuple[int, int]],
        left_over: list[int],
        out: set[int],
        listed: list[int],
        level: int,
        least: int,
        true: int,
    ) -> int:
        """Which class is next."""
        if left_over:
            band = min(15, level >> self.scale.shift)
            keys = [(min(47, max(0, level - expected[c][0] + 24)), expected[c][1]) for c in left_over]
            chances = [self.frequencies.chance[key] * (c >= least) for c, key in zip(left_over, keys, strict=True)]
            which = left_over.index(true) if true in left_over else len(left_over)
            which = self.choose([*chances, self.frequencies.none[band]], which)
            for key in keys:
                self.count("risk", *key)
            self.count("n0", band)
            if which < len(left_over):
                self.count("hit", *keys[which])
                cls = left_over[which]
                left_over[which], left_over[-1] = left_over[-1], cls
                return left_over.pop()
            self.count("n1", band)
        score: Counter[int] = Counter()
        for one in listed:
            for other, weight in self.base.neighbours(one):
                score[other] += weight
        scored = sorted(c for c in score if c >= least and c not in out and c not in listed)
        if scored:
            band = min(15, len(listed))
            chance = self.frequencies.flag[band]
            flag = self.choose([chance, (1 << 16) - chance], int(true not in scored)) == 0
            self.count("m0", band)
            if flag:
                self.count("m1", band)
                return scored[self.choose([score[c] for c in scored], scored.index(true) if true >= 0 else 0)]
        classes = range(min(least, self.shape.num_classes - 1), self.shape.num_classes)
        parts = [4 * (self.base.seen.get(c, 0) + 1) for c in classes]
        return classes[self.choose(parts, true - classes[0])]


def read(data: bytes, samples: Sequence[int], derived: np.ndarray, base: Base) -> tuple[Block, int]:
    """The records of a chunk, and its form; without any check but of the checksum's place."""
    shape, count = base.shape, len(samples)
    form, flags, reserved, length, _, _, records = struct.unpack_from("<BBHIIII", data)
    assert form in (1, 2) and flags in (0, 1) and reserved == 0 and length == len(data) and records == count
    at = 20

    def take(dtype: Any, number: int) -> np.ndarray:
        nonlocal at
        array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<"), number, at).astype(dtype)
        at += array.nbytes
        return array

    seed = take(np.uint32, count) if flags else derived
    logz = take(np.float32, count) if shape.logz else None
    if form == 2:
        index = take(shape.index_dtype, count * shape.topk).reshape(1, count, shape.topk)
        logp = take(shape.value_dtype, count * shape.topk).reshape(1, count, shape.topk)
        return Block(seed=seed, index=index, logp=logp, tail=take(shape.value_dtype, count), logz=logz), form
    found, _ = Coder(base, decoder(take(np.uint16, (length - at) // 2).tolist())).run(samples)
    index = np.full((1, count, shape.topk), np.iinfo(shape.index_dtype).max, shape.index_dtype)
    logp = np.empty((1, count, shape.topk), shape.value_dtype)
    for row, record in enumerate(found):
        missing = shape.topk - len(record.classes)
        index[0, row, : len(record.classes)] = record.classes
        places = record.places if shape.values == "f16" else [0] * len(record.levels)
        logp[0, row] = stored(record.levels + [NO_MASS] * missing, places + [0] * missing, shape.value_dtype)
    tail = stored([r.tail for r in found], [r.tail_place for r in found], shape.value_dtype)
    return Block(seed=seed, index=index, logp=logp, tail=tail, logz=logz), form
