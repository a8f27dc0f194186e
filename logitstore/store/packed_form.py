"""The packed form of a store: chunks of records coded with a model of the base epochs, one row of bytes each.

Shape suffix: P positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DamagedError, InputError
from logitstore.pcg import VisitOrder, view_seeds
from logitstore.store.arrays import OpenArray, StoredArray, decodable
from logitstore.store.blocks import Block
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.commits import Commit
from logitstore.store.kernels import visited
from logitstore.store.layout import array_layouts
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.packed import Base, coded_with, decode_chunk, encode_chunk
from logitstore.store.packed_base import BaseEpochs, Chunk
from logitstore.store.records import ShardBlock


class PackedForm:
    """Reads and writes ``packed`` and ``witness``.

    Args:
        objects: where the store's bytes lie.
        manifest: what it holds; its codec is a ``PackedCodec``.
        documents: ``zarr.json`` of each array by name.
        commit: gives a shard's commit, or raises what a read of the shard should.
        order: gives the order in which an epoch visits the samples.
    """

    def __init__(
        self,
        objects: LocalObjects,
        manifest: Manifest,
        documents: Mapping[str, bytes],
        commit: Callable[[int, int], Commit],
        order: Callable[[int], VisitOrder],
    ) -> None:
        assert isinstance(manifest.codec, PackedCodec)
        self.manifest, self.codec = manifest, manifest.codec
        self._commit, self._order = commit, order
        self._arrays = {
            name: StoredArray(objects, manifest, layout, documents[name])
            for name, layout in array_layouts(manifest).items()
        }
        self.base = BaseEpochs(manifest, self.codec, commit, self._base_chunks)

    @property
    def size(self) -> int:
        """Positions in a chunk."""
        return self.codec.chunk

    @property
    def model_bytes(self) -> int:
        """Memory at most that the model takes, once records are read."""
        return self.base.room()

    def open(self, epoch: int, shard: int, commit: Commit) -> _OpenShard:
        """One shard, compared with its commit."""
        arrays = {name: array.open(epoch, shard, commit.objects[name]) for name, array in self._arrays.items()}
        return _OpenShard(form=self, packed=arrays["packed"], witness=arrays["witness"].whole())

    def check(self, commit: Commit) -> None:
        """Refuse a shard that was coded with other base epochs than those that are there.

        Raises:
            IncompleteError: one of their shards is not there.
            DamagedError: one of them was altered or replaced.
        """
        checksum = self.base.checksum(self.codec.level(commit.epoch))
        opened = self._arrays["packed"].open(commit.epoch, commit.shard, commit.objects["packed"])
        with decodable(opened.where):
            named = coded_with(_row(opened, 0))
        if named != checksum:
            raise DamagedError(
                f"{opened.where} was coded with other base epochs (CRC-32C {named:08x}) than those that are there "
                f"({checksum:08x}): restore them from a copy, or convert again into another folder."
            )

    def arrays(self, epoch: int, shard: int, block: ShardBlock) -> dict[str, NDArray[Any]]:
        """A shard's records as coded chunks; the base epochs that they need must be committed.

        Raises:
            IncompleteError: a base epoch is not complete.
            InputError: these are no records that the form can hold.
        """
        layout = self._arrays["packed"].layout
        rows = np.zeros(layout.shape(len(block)), np.uint8)
        level = self.codec.level(epoch)
        base, checksum = self.base.at(level), self.base.checksum(level)
        first = shard * self.manifest.shard_size
        for number, row in enumerate(rows):
            here = slice(number * self.size, (number + 1) * self.size)
            records = Block(
                seed=block.seed[here],
                index=block.index[None, here],
                logp=block.logp[None, here],
                tail=block.tail[here],
                logz=None if block.logz is None else block.logz[here],
            )
            sample_P, seed_P = self.views(epoch, first + here.start, first + here.start + len(records.seed))
            try:
                data = encode_chunk(records, sample_P, seed_P, base, checksum=checksum)
            except ValueError as exc:
                where = f"epoch {epoch}, positions {first + here.start} to {first + here.stop}"
                raise InputError(f"The records at {where} cannot be packed: {exc}") from exc
            row[: len(data)] = np.frombuffer(data, np.uint8)
        return {"packed": rows, "witness": block.witness}

    def views(self, epoch: int, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Samples at positions of an epoch, and the seeds that the run seed gives their views."""
        sample_P = visited(self._order(epoch), start, stop)
        return sample_P, view_seeds(self.manifest.run_seed, epoch, sample_P)

    def _base_chunks(self, epoch: int, base: Base) -> Iterator[Callable[[], Chunk]]:
        for shard in range(self.manifest.num_shards):
            opened = self.open(epoch, shard, self._commit(epoch, shard))
            start, stop = self.manifest.shard_range(shard)
            for number in range(-(-(stop - start) // self.size)):
                yield partial(opened.chunk, number, base)


@dataclass(frozen=True, kw_only=True)
class _OpenShard:
    form: PackedForm
    packed: OpenArray
    witness: NDArray[np.uint32]

    def block(self, part: int) -> Block:
        return self.chunk(part, self.form.base.at(self.form.codec.level(self.packed.epoch)))[1]

    def whole(self) -> ShardBlock:
        start, stop = self.form.manifest.shard_range(self.packed.shard)
        blocks = [self.block(number) for number in range(-(-(stop - start) // self.form.size))]
        return ShardBlock(
            seed=np.concatenate([block.seed for block in blocks]),
            index=np.concatenate([block.index[0] for block in blocks]),
            logp=np.concatenate([block.logp[0] for block in blocks]),
            tail=np.concatenate([block.tail for block in blocks]),
            witness=self.witness,
            logz=np.concatenate([block.logz for block in blocks]) if self.form.manifest.logz else None,
        )

    def chunk(self, number: int, base: Base) -> Chunk:
        """One chunk, decoded with a model: its samples and records."""
        form, epoch = self.form, self.packed.epoch
        first, last = form.manifest.shard_range(self.packed.shard)
        start = first + number * form.size
        sample_P, seed_P = form.views(epoch, start, min(start + form.size, last))
        data = _row(self.packed, number)
        with decodable(self.packed.where):
            checksum = form.base.checksum(form.codec.level(epoch))
            return sample_P, decode_chunk(data, sample_P, seed_P, base, checksum=checksum)


def _row(packed: OpenArray, number: int) -> NDArray[np.uint8]:
    """The bytes of a chunk, however another program may have cut the array."""
    part, row = divmod(number, packed.array.chunk[0])
    return np.concatenate(list(packed.part(part)[:, row]))
