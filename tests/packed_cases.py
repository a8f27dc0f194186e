"""Records for the tests of packed chunks: epochs of samples whose views are alike, or odd in some way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from logitstore.pcg import view_seeds
from logitstore.store import encode_records
from logitstore.store.blocks import Block
from logitstore.store.packed import Base, RecordShape, decode_chunk, encode_chunk
from logitstore.store.values import FORMS

Kind = Literal["usual", "tied", "sure", "deep", "empty"]
SPREAD: dict[Kind, float] = {"usual": 3.0, "tied": 0.0, "sure": 300.0, "deep": 40.0, "empty": 3.0}
"""Of logits: classes of one code, one class at p = 1, codes at the end of what a byte holds. The last keeps nothing."""
CHECKSUM = 0x01234567


@dataclass(frozen=True, kw_only=True)
class Case:
    """Views of a few samples."""

    shape: RecordShape
    num_samples: int
    kind: Kind = "usual"
    seed: int = 0
    skipped: float = 0.05

    def samples(self, epoch: int) -> NDArray[np.int64]:
        """In the order of positions."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def seeds(self, epoch: int) -> NDArray[np.uint32]:
        """That follow from epoch and sample."""
        return view_seeds(self.seed, epoch, self.samples(epoch))

    def block(self, epoch: int) -> Block:
        """All records of an epoch, as the teacher's logits would have them; classes that views share are likely."""
        shape, count = self.shape, self.num_samples
        rng = np.random.default_rng([self.seed, epoch, 1])
        class_NM, logit_NM = self._samples_logits()
        logit_NM = np.round(logit_NM + rng.normal(size=logit_NM.shape) * SPREAD[self.kind] / 8, 2)
        order_NM = np.lexsort((class_NM, -logit_NM))
        class_NM, logit_NM = (np.take_along_axis(array, order_NM, axis=1) for array in (class_NM, logit_NM))
        logp_NM = (logit_NM - np.logaddexp.reduce(logit_NM, axis=1, keepdims=True)).astype(np.float32)
        given = min(shape.topk, logp_NM.shape[1])
        kept_N = rng.integers(1, given, count, endpoint=True)
        kept_N[rng.random(count) < self.skipped] = 0
        kept_N *= self.kind != "empty"
        outside_NM = np.arange(logp_NM.shape[1]) >= kept_N[:, None]
        with np.errstate(divide="ignore"):
            tail_N = np.log(np.where(outside_NM, np.exp(logp_NM), 0).sum(axis=1))
        index, logp, tail = encode_records(
            index_BK=class_NM[:, :given],
            logp_BK=logp_NM[:, :given],
            tail_B=tail_N.astype(np.float32),
            kept_B=kept_N,
            topk=shape.topk,
            values=shape.values,
            num_classes=shape.num_classes,
        )
        at = self.samples(epoch)
        logz = rng.normal(size=count).astype(np.float32) if shape.logz else None
        return Block(seed=self.seeds(epoch), index=index[at][None], logp=logp[at][None], tail=tail[at], logz=logz)

    def _samples_logits(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Classes that a sample may have, a few more than are kept, and what they would have without augmentation."""
        rng = np.random.default_rng(self.seed)
        ranks = min(self.shape.num_classes, 2 * self.shape.topk + 3)
        chosen = [rng.choice(self.shape.num_classes, ranks, replace=False) for _ in range(self.num_samples)]
        return np.stack(chosen), rng.normal(size=(self.num_samples, ranks)) * SPREAD[self.kind]

    def base(self, levels: int, *, chunk: int = 1 << 20) -> Base:
        """Learnt from epochs 0 to ``levels`` - 1."""
        base = Base(self.shape, self.num_samples)
        for epoch in range(levels):
            whole, at = self.block(epoch), range(0, self.num_samples, chunk)
            base.add((self.samples(epoch)[i : i + chunk], cut(whole, i, i + chunk)) for i in at)
        return base

    def encoded(self, base: Base, epoch: int, block: Block | None = None) -> bytes:
        """An epoch as one chunk."""
        block = self.block(epoch) if block is None else block
        return encode_chunk(block, self.samples(epoch), self.seeds(epoch), base, checksum=CHECKSUM)

    def decoded(self, base: Base, epoch: int, data: bytes) -> Block:
        """An epoch from its chunk."""
        return decode_chunk(data, self.samples(epoch), self.seeds(epoch), base, checksum=CHECKSUM)


def usual(values: Any = "q8", *, num_samples: int = 60, **options: Any) -> Case:
    """A case of eleven classes of which five are kept."""
    shape = {"topk": 5, "num_classes": 11, "floor": 1e-3, "logz": False, **options}
    return Case(shape=RecordShape(values=values, **shape), num_samples=num_samples)


@st.composite
def cases(draw: st.DrawFn, *, most: int = 40) -> Case:
    """Of any shape."""
    num_classes = draw(st.sampled_from([11, 2, 40, 1, 3, 300, 1000, 65_535, 65_536, 100_000]))
    shape = RecordShape(
        topk=draw(st.integers(1, min(num_classes, draw(st.sampled_from([8, 60]))))),
        num_classes=num_classes,
        values=draw(st.sampled_from(FORMS)),
        floor=draw(st.sampled_from([1e-3, 0.0, 0.4])),
        logz=draw(st.booleans()),
    )
    return Case(
        shape=shape,
        num_samples=draw(st.integers(1, most)),
        kind=draw(st.sampled_from(get_args(Kind))),
        seed=draw(st.integers(0, 2**32 - 1)),
        skipped=draw(st.sampled_from([0.0, 0.3])),
    )


def cut(block: Block, start: int, stop: int) -> Block:
    """Some positions of a block."""
    return Block(
        seed=block.seed[start:stop],
        index=block.index[:, start:stop],
        logp=block.logp[:, start:stop],
        tail=block.tail[start:stop],
        logz=None if block.logz is None else block.logz[start:stop],
    )


def copied(block: Block) -> Block:
    """The same in memory of its own."""
    return Block(**{name: None if array is None else array.copy() for name, array in vars(block).items()})


def same(one: Block, other: Block) -> bool:
    """Whether two blocks agree in every bit."""
    return vars(one).keys() == vars(other).keys() and all(
        a is b is None or (a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )
