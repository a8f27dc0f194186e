"""A coded chunk: a header with checksums, what is stored as it is, and the range coder's words. docs/format.md.

Shape suffixes: P positions of a chunk, K ranks.
"""

from __future__ import annotations

import struct
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from logitstore.jit import wrapping
from logitstore.store.blocks import Block
from logitstore.store.packed.base import Base
from logitstore.store.packed.kernels import code_records
from logitstore.store.packed.plain import PlainRecords
from logitstore.store.packed.shape import RecordShape
from logitstore.store.packed.state import Space
from logitstore.store.packed.statistics import Counts, Frequencies

_HEADER = struct.Struct("<BBHIIII")
_CODED, _AS_THEY_ARE = 1, 2
_OWN_SEEDS = 1


def chunk_bytes(shape: RecordShape, positions: int) -> int:
    """Most bytes that a chunk of so many positions takes."""
    return _HEADER.size + positions * shape.record_bytes


def encode_chunk(
    block: Block, sample_P: NDArray[np.int64], derived_seed_P: NDArray[np.uint32], base: Base, *, checksum: int
) -> bytes:
    """Code the records of a chunk.

    Args:
        block: the records as they are stored, in one group of ranks.
        sample_P: samples at its positions.
        derived_seed_P: the seeds that follow from run seed, epoch and sample; seeds that equal them take no room.
        base: what the chunk is coded with.
        checksum: 32 bits that name the base.
    """
    shape = base.shape
    own_seeds = not np.array_equal(block.seed, derived_seed_P)
    plain: list[NDArray[Any]] = [block.seed] if own_seeds else []
    if block.logz is not None:
        plain.append(block.logz)
    records = PlainRecords.of(block, shape)
    form, parts = _CODED, [*plain]
    if records is not None:
        parts.append(coded(records, sample_P, base)[0])
    if records is None or sum(part.nbytes for part in parts) > len(sample_P) * shape.record_bytes:
        form, parts = _AS_THEY_ARE, [*plain, block.index[0], block.logp[0], block.tail]
    body = b"".join(_little(part) for part in parts)
    flags = _OWN_SEEDS if own_seeds else 0
    length = _HEADER.size + len(body)
    header = _HEADER.pack(form, flags, 0, length, checksum, _content_checksum(block), len(sample_P))
    return header + body


def decode_chunk(
    data: bytes | NDArray[np.uint8],
    sample_P: NDArray[np.int64],
    derived_seed_P: NDArray[np.uint32],
    base: Base,
    *,
    checksum: int,
) -> Block:
    """The records of a coded chunk.

    Args:
        data: the chunk, whatever follows it.
        sample_P: samples at its positions.
        derived_seed_P: the seeds that follow from run seed, epoch and sample.
        base: what the chunk was coded with.
        checksum: 32 bits that name the base.

    Raises:
        ValueError: the chunk was altered, or coded with something else.
    """
    shape, count = base.shape, len(sample_P)
    whole = np.frombuffer(data, np.uint8).data
    if len(whole) < _HEADER.size:
        raise ValueError("the chunk is shorter than its header")
    form, flags, reserved, length, named, content, records = _HEADER.unpack_from(whole)
    if form not in (_CODED, _AS_THEY_ARE) or flags & ~_OWN_SEEDS or reserved:
        raise ValueError("the chunk's header was altered")
    if not _HEADER.size <= length <= len(whole):
        raise ValueError("the chunk's header was altered")
    if records != count:
        raise ValueError(f"the chunk holds {records} records, not {count}")
    if named != checksum:
        raise ValueError(f"the chunk was coded with the model {named:08x}, this one is {checksum:08x}")
    body = _Reader(whole[_HEADER.size : length])
    seed = body.take(np.dtype(np.uint32), (count,)) if flags & _OWN_SEEDS else derived_seed_P
    logz = body.take(np.dtype(np.float32), (count,)) if shape.logz else None
    if form == _CODED:
        index, logp, tail = _decoded(body.rest(), sample_P, base)
    else:
        index = body.take(shape.index_dtype, (count, shape.topk))
        logp = body.take(shape.value_dtype, (count, shape.topk))
        tail = body.take(shape.value_dtype, (count,))
    block = Block(seed=seed, index=index[None], logp=logp[None], tail=tail, logz=logz)
    if _content_checksum(block) != content:
        raise ValueError("the records are not those that were coded")
    return block


def coded_with(data: bytes | NDArray[np.uint8]) -> int:
    """The 32 bits that name the base a chunk was coded with.

    Raises:
        ValueError: the chunk is shorter than its header.
    """
    if len(data) < _HEADER.size:
        raise ValueError("the chunk is shorter than its header")
    return int(_HEADER.unpack(bytes(data[: _HEADER.size]))[4])


def coded(records: PlainRecords, sample_P: NDArray[np.int64], base: Base) -> tuple[NDArray[np.uint16], Counts]:
    """The words of some records, and the counts after them."""
    topk = records.index_PK.shape[1]
    # A step takes at most 40 bits, a class 64, a value within its level 14, a tail 40.
    words = np.zeros(len(sample_P) * (8 * topk + 8) + 8, np.uint16)
    counts = base.counts
    return words[: _run(False, words, records, sample_P, base, counts)], counts


def _decoded(words: NDArray[np.uint16], sample_P: NDArray[np.int64], base: Base) -> tuple[NDArray[Any], ...]:
    records = PlainRecords.empty(len(sample_P), base.shape)
    _run(True, words, records, sample_P, base, base.counts)
    return (records.index_PK, *records.values(base.shape))


def _run(
    decoding: bool,
    words: NDArray[np.uint16],
    records: PlainRecords,
    sample_P: NDArray[np.int64],
    base: Base,
    counts: Counts,
) -> int:
    space = Space.of(base.shape.num_classes, base.level)
    with wrapping():
        return int(
            code_records(
                decoding,
                words,
                records.chunk(sample_P),
                base.model,
                base.shape.scale,
                counts,
                Frequencies.empty(),
                space,
            )
        )


def _content_checksum(block: Block) -> int:
    """CRC-32C of the arrays as they are stored, one after the other."""
    crc = 0
    for array in (block.seed, block.index, block.logp, block.tail, block.logz):
        if array is not None:
            crc = google_crc32c.extend(crc, _little(array))
    return int(crc)


def _little(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


class _Reader:
    """Arrays out of the body of a chunk."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The next array."""
        count = int(np.prod(shape))
        if self._at + count * dtype.itemsize > len(self._data):
            raise ValueError("the chunk is shorter than what it should hold")
        array = np.frombuffer(self._data, dtype.newbyteorder("<"), count, self._at)
        self._at += array.nbytes
        return array.astype(dtype).reshape(shape)

    def rest(self) -> NDArray[np.uint16]:
        """All that is left, as words."""
        left = len(self._data) - self._at
        if left % 2:
            raise ValueError("the chunk ends within a word")
        return self.take(np.dtype(np.uint16), (left // 2,))
