"""The manifest: everything that defines what a store holds, and the store id that is its hash.

It knows no file and no array: ``layout`` turns it into zarr metadata. No times, hosts or paths belong in here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from logitstore.checksums import canonical_json
from logitstore.errors import FormatError, InputError, MismatchError
from logitstore.store.codecs import Codec, codec_from_dict
from logitstore.store.codecs.standard import StandardCodec
from logitstore.store.values import FORMS, Values, index_dtype, value_dtype

FORMAT_VERSION = 1
WITNESS_EVERY = 64
"""A witness is kept for one position in this many."""

NO_MASS_CUT = 1.0
_OPTIONAL = {"mass": NO_MASS_CUT, "gain": 0.0, "views_from": None}
"""Fields that a manifest may lack, and what they then are."""

_NOT_IN_ID = ("versions", "num_epochs")
_FREE_FIELDS = ("inference", "teacher", "dataset", "view", "versions")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds and how it was made. Validated on construction; fields of dicts are JSON values."""

    num_samples: int
    """N, the samples of the data set, at least 1."""
    num_epochs: int
    """E, the epochs there is room for, at least 1. Not part of the store id: it may grow."""
    num_classes: int
    """C, the teacher's classes, at least 1."""
    topk: int
    """K, the classes a record has room for, in [1, C]."""
    floor: float
    """Classes below this probability are not kept, the most probable one excepted; in [0, 1)."""
    values: Values
    """How log-probabilities are stored: ``q8``, ``q4``, ``q2`` in steps of 1/8, 1/4, 1/2 nat, or ``f16``."""
    run_seed: int
    """The seed of the visit order and of all views, in [0, 2**64)."""
    shard_size: int
    """Positions in a shard: a power of two, a multiple of 64, of the chunk and of the inference batch."""
    chunk_size: int
    """Positions compressed together: a power of two."""
    mass: float = NO_MASS_CUT
    """Only the fewest classes that hold this probability together are kept; in (0, 1]. 1, no cut, is not written."""
    gain: float = 0.0
    """Only classes are kept that lower the divergence by so many nat each, as do all before them; at least 0. 0, no
    cut, is not written."""
    views_from: str | None = None
    """Store id of the store whose views these are, where the run seed does not give their seeds; else not written."""
    logz: bool = False
    """Whether the log-sum-exp of the logits is kept."""
    inference: Mapping[str, Any] = field(default_factory=dict)
    """``batch_size`` (a power of two), ``dtype``, ``device_type``, ``threads``."""
    teacher: Mapping[str, Any] = field(default_factory=dict)
    """``name``, ``sha256`` of the weights, ``preprocessing``."""
    dataset: Mapping[str, Any] = field(default_factory=dict)
    """``count``, ``fingerprint``, ``class_names``."""
    view: Mapping[str, Any] = field(default_factory=dict)
    """The view spec."""
    versions: Mapping[str, Any] = field(default_factory=dict)
    """Versions of the software that made the store. Not part of the store id."""
    codec: Codec = field(default_factory=StandardCodec)
    """How chunks are compressed."""
    format_version: int = FORMAT_VERSION
    """Version of docs/format.md."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"This store has format version {self.format_version}; this logitstore reads version {FORMAT_VERSION}. "
                "Use the logitstore that wrote it."
            )
        for name in ("floor", "mass", "gain"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in _FREE_FIELDS:
            object.__setattr__(self, name, _plain(getattr(self, name), name))
        self._check_numbers()
        self._check_sizes()

    def _check_numbers(self) -> None:
        for name, low, high in (
            ("num_samples", 1, 1 << 62),
            ("num_epochs", 1, 1 << 31),
            ("num_classes", 1, (1 << 32) - 1),
            ("topk", 1, self.num_classes),
            ("run_seed", 0, (1 << 64) - 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InputError(f"{name} must be an integer in {low}..{high}, got {value!r}.")
        if not 0.0 <= self.floor < 1.0:
            raise InputError(f"floor must lie in [0, 1), got {self.floor}.")
        if not 0.0 < self.mass <= 1.0:
            raise InputError(f"mass must lie in (0, 1], got {self.mass}.")
        if not 0.0 <= self.gain < math.inf:
            raise InputError(f"gain must be at least 0, got {self.gain}.")
        if self.values not in FORMS:
            raise InputError(f"values must be one of {', '.join(FORMS)}, got {self.values!r}.")
        if not isinstance(self.views_from, str | None):
            raise InputError(f"views_from must be a store id, got {self.views_from!r}.")
        if not isinstance(self.logz, bool):
            raise InputError(f"logz must be true or false, got {self.logz!r}.")

    def _check_sizes(self) -> None:
        batch = self.inference.get("batch_size", 1)
        for name, value in (
            ("shard size", self.shard_size),
            ("chunk size", self.chunk_size),
            ("inference batch", batch),
        ):
            if not isinstance(value, int) or value < 1 or value & (value - 1):
                raise InputError(f"The {name} must be a power of two, got {value!r}.")
        for name, part in (
            ("", WITNESS_EVERY),
            ("the chunk, ", self.chunk_size),
            ("the inference batch, ", batch),
            ("the codec's chunk, ", self.codec.part),
        ):
            if self.shard_size % part:
                raise InputError(f"The shard size {self.shard_size} must be a multiple of {name}{part}.")

    @cached_property
    def store_id(self) -> str:
        """SHA-256, in hexadecimal, of the manifest's canonical JSON without ``versions`` and ``num_epochs``."""
        return hashlib.sha256(canonical_json(self._identity())).hexdigest()

    @cached_property
    def records_id(self) -> str:
        """Store id of the standard store of the same records: what is stored, however it is coded."""
        return dataclasses.replace(self, codec=self.codec.standard).store_id

    @property
    def num_shards(self) -> int:
        """Shards in one epoch."""
        return -(-self.num_samples // self.shard_size)

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 where that cannot hold C classes and the padding."""
        return index_dtype(self.num_classes)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of ``logp`` and ``tail``."""
        return value_dtype(self.values)

    def shard_range(self, shard: int) -> tuple[int, int]:
        """First position of a shard, and the one after its last."""
        if not 0 <= shard < self.num_shards:
            raise InputError(f"There is no shard {shard}; an epoch has shards 0..{self.num_shards - 1}.")
        start = shard * self.shard_size
        return start, min(start + self.shard_size, self.num_samples)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON values. What stores did not have at first is there only where it says something."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name, nothing in _OPTIONAL.items():
            if values[name] == nothing:
                del values[name]
        return {**values, "codec": self.codec.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``; FormatError for another format version, an unknown, absent or bad field."""
        if (version := values.get("format_version")) != FORMAT_VERSION:
            raise FormatError(
                f"This store has format version {version}; this logitstore reads version {FORMAT_VERSION}. "
                "Use the logitstore that wrote it."
            )
        for name, nothing in _OPTIONAL.items():
            if name in values and values[name] == nothing:
                raise FormatError(f"The manifest holds {name} {nothing}, which is written by leaving it out.")
        names = {item.name for item in dataclasses.fields(cls)} - (_OPTIONAL.keys() - values.keys())
        if wrong := sorted(names.symmetric_difference(values)):
            state = "lacks" if wrong[0] in names else "has the unknown"
            raise FormatError(f"The manifest {state} field {wrong[0]!r}; it was not written by this format version.")
        try:
            return cls(**{**values, "codec": codec_from_dict(values["codec"])})
        except (InputError, ValueError, TypeError, AttributeError, KeyError) as exc:
            raise FormatError(f"The manifest holds a value that this format version cannot have: {exc}") from exc

    def require_same(self, present: Manifest, *, where: str) -> None:
        """Refuse with both sides side by side unless ``present`` describes the same store.

        Args:
            present: what the caller is about to do now.
            where: path of the store, for the message.

        Raises:
            MismatchError: with the first differing fields.
        """
        if self.store_id == present.store_id:
            return
        if self.codec.name != present.codec.name:
            raise MismatchError(
                f"The codec of the store at {where}",
                stored=self.codec.name,
                present=present.codec.name,
                remedy="Dump into a standard store; logitstore convert makes a packed one of it elsewhere, and adds "
                "what was dumped since.",
            )
        ours, theirs = dict(_flatten(self._identity())), dict(_flatten(present._identity()))
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        shown = names[:_SHOWN_DIFFERENCES]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        raise MismatchError(
            f"What the store at {where} was made with ({', '.join(shown)}{more})",
            stored=", ".join(f"{name} = {_short(ours.get(name))}" for name in shown),
            present=", ".join(f"{name} = {_short(theirs.get(name))}" for name in shown),
            remedy="Use the stored settings, or another path for a new store.",
        )

    def _identity(self) -> dict[str, Any]:
        return {name: value for name, value in self.to_dict().items() if name not in _NOT_IN_ID}


_SHOWN_DIFFERENCES = 4
_ABSENT = "absent"


def _plain(value: Any, where: str) -> Any:
    """The value as JSON gives it back: dicts, lists, str, int, float, bool, None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and np.isfinite(value)):
        return value
    raise InputError(f"Manifest field {where!r} holds {value!r}, which JSON cannot hold.")


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flatten(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _short(value: object) -> str:
    text = _ABSENT if value is None else str(value)
    return text if len(text) <= 72 else f"{text[:69]}..."
