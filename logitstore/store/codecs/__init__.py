"""How the chunks of a store are compressed: one codec a module, and the table of those that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

import numpy as np

from logitstore.errors import FormatError
from logitstore.store.codecs.packed import PackedCodec
from logitstore.store.codecs.standard import StandardCodec


class Codec(Protocol):
    """What the store asks of a codec: a name, a configuration that goes through JSON, a zarr pipeline."""

    @property
    def name(self) -> str:
        """The codec's name in manifests."""
        ...

    @property
    def command(self) -> str:
        """The command that makes such stores."""
        ...

    @property
    def part(self) -> int:
        """Positions of which a shard must have a multiple."""
        ...

    @property
    def standard(self) -> StandardCodec:
        """Codec of the standard store of the same records; a standard codec itself."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values, ``name`` included."""
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; FormatError names an unknown field."""
        ...

    def pipeline(self, array: str, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
        """The zarr codecs, as metadata, of the chunks of one array: from array to bytes, checksum last."""
        ...


CODECS: dict[str, type[Codec]] = {"standard": StandardCodec, "packed": PackedCodec}


def codec_from_dict(values: Mapping[str, Any]) -> Codec:
    """The codec that a manifest describes; FormatError where this version does not know it."""
    name = values.get("name")
    if name not in CODECS:
        known = ", ".join(sorted(CODECS))
        raise FormatError(f"The store is written with the codec {name!r}; this version reads {known}; update it.")
    return CODECS[name].from_dict(values)
