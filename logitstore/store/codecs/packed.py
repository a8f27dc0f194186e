"""Codec ``packed``: records coded by a range coder with a model of the first epochs; one array of bytes holds them.

What is coded, and how, is in ``logitstore.store.packed``. Here is what a manifest says of it. A packed store is made of
a standard one by ``logitstore convert`` and names that store's codec, so that converting back gives the same store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from logitstore.errors import FormatError, InputError
from logitstore.store.codecs.standard import StandardCodec

VERSION = 1
MAX_CHUNK = 4096
"""Positions coded together: their counts have settled by then, and a batch decodes little that it does not need."""

MAX_BASE = 8
"""Base epochs at most."""

_FIELDS = {"name", "version", "base", "chunk", "source"}


@dataclass(frozen=True, kw_only=True)
class PackedCodec:
    """Records coded with what the base epochs tell of their samples."""

    name: ClassVar[str] = "packed"
    command: ClassVar[str] = "convert"

    base: tuple[int, ...]
    """The base epochs, in the order of coding: each is coded with what those before it tell, all others with all."""
    chunk: int
    """Positions coded together: a power of two."""
    source: StandardCodec = field(default_factory=StandardCodec)
    """Codec of the standard store that this one was made from, or is as good as."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.base) <= MAX_BASE or len(set(self.base)) < len(self.base):
            raise InputError(f"Codec 'packed' needs 1 to {MAX_BASE} base epochs and none twice, got {self.base}.")
        if not all(isinstance(epoch, int) and epoch >= 0 for epoch in self.base):
            raise InputError(f"The base epochs of codec 'packed' must be numbers of epochs, got {self.base}.")
        if not isinstance(self.chunk, int) or self.chunk < 1 or self.chunk & (self.chunk - 1):
            raise InputError(f"The chunk of codec 'packed' must be a power of two, got {self.chunk!r}.")

    @property
    def part(self) -> int:
        """Positions of which a shard must have a multiple."""
        return self.chunk

    @property
    def standard(self) -> StandardCodec:
        """Codec of the standard store of the same records."""
        return self.source

    def level(self, epoch: int) -> int:
        """Number of base epochs that an epoch is coded with."""
        return self.base.index(epoch) if epoch in self.base else len(self.base)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return {
            "name": self.name,
            "version": VERSION,
            "base": list(self.base),
            "chunk": self.chunk,
            "source": self.source.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The codec that ``to_dict`` described."""
        if (version := values.get("version")) != VERSION:
            raise FormatError(f"This logitstore reads version {VERSION} of codec 'packed', not {version}; update it.")
        if unknown := sorted(set(values) - _FIELDS):
            raise FormatError(f"Codec 'packed' has no field {unknown[0]!r}; update logitstore.")
        source = values["source"]
        if (name := source.get("name")) != StandardCodec.name:
            raise FormatError(f"Codec 'packed' stands for a standard store, not for one of codec {name!r}.")
        return cls(base=tuple(values["base"]), chunk=values["chunk"], source=StandardCodec.from_dict(source))

    def pipeline(self, array: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """Witnesses as in the standard store; coded bytes in a zstd frame, where the zeros behind them vanish."""
        if array == "packed":
            return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1, "checksum": True}}]
        return self.source.pipeline(array, dtype)
