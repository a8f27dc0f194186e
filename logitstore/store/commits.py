"""Commits: the small JSON objects, written last, that make shards exist; and reading what they vouch for."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import google_crc32c

from logitstore.checksums import canonical_json, crc32c_hex, is_intact, seal
from logitstore.errors import DamagedError
from logitstore.store.layout import COMMITS
from logitstore.store.objects import LocalObjects, OpenObject

_COMMIT_NAME = re.compile(r"(\d{4,})\.(\d{5,})\.json")
_NOT_IN_CHECKSUM = ("info",)
_REMEDY = "Restore it from a copy, or delete its commit and run the command that made the store again."
_CHECKED_BYTES = 1 << 18  # at a time: they stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What a commit says of one object."""

    crc32c: str
    """CRC-32C of its bytes, eight hexadecimal digits."""
    size: int
    """Its length in bytes."""

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The description of these bytes."""
        return cls(crc32c=crc32c_hex(data), size=len(data))


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One committed shard."""

    store_id: str
    epoch: int
    shard: int
    objects: Mapping[str, StoredObject]
    """By array name."""
    records: int
    """Positions in the shard."""
    kept: int
    """Kept classes in all of them."""
    skipped: int
    """Samples that could not be read and hold nothing."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """When, where and with what it was written; outside the checksum."""

    @property
    def key(self) -> str:
        """Key of the commit's own object."""
        return commit_key(self.epoch, self.shard)

    def to_bytes(self) -> bytes:
        """The commit's object: canonical JSON."""
        document = {
            "store_id": self.store_id,
            "epoch": self.epoch,
            "shard": self.shard,
            "objects": {name: {"crc32c": o.crc32c, "size": o.size} for name, o in self.objects.items()},
            "counts": {"records": self.records, "kept": self.kept, "skipped": self.skipped},
            "info": dict(self.info),
        }
        return canonical_json(seal(document, exclude=_NOT_IN_CHECKSUM))

    @classmethod
    def from_bytes(cls, data: bytes, *, store_id: str, epoch: int, shard: int, where: str) -> Self:
        """Parse a commit and make sure that it belongs to this shard of this store.

        Raises:
            DamagedError: altered, or of another shard or store.
        """
        try:
            document = json.loads(data)
        except ValueError as exc:
            raise DamagedError(f"The commit {where} is not JSON any more; restore it from a copy.") from exc
        if not isinstance(document, dict) or not is_intact(document, exclude=_NOT_IN_CHECKSUM):
            raise DamagedError(f"The commit {where} was altered: it differs from its own checksum.")
        if (document.get("epoch"), document.get("shard")) != (epoch, shard):
            raise DamagedError(
                f"The commit {where} is of epoch {document.get('epoch')}, shard {document.get('shard')}: "
                "shards were swapped."
            )
        if document.get("store_id") != store_id:
            raise DamagedError(f"The commit {where} belongs to another store, {document.get('store_id')}.")
        try:
            return cls(
                store_id=store_id,
                epoch=epoch,
                shard=shard,
                objects={name: StoredObject(**values) for name, values in document["objects"].items()},
                info=document["info"],
                **document["counts"],
            )
        except (TypeError, KeyError, AttributeError) as exc:
            raise DamagedError(f"The commit {where} lacks what a commit of this format has: {exc}.") from exc


def check_object(objects: LocalObjects, key: str, expected: StoredObject) -> OpenObject:
    """A committed object, compared with its commit and left open for reading.

    Raises:
        DamagedError: it is missing, or not what was committed.
    """
    where = f"{objects.root}/{key}"
    try:
        with readable(where):
            opened = objects.open(key)
            found = _describe(opened)
    except FileNotFoundError as exc:
        raise DamagedError(f"{where} is missing although its shard was committed. {_REMEDY}") from exc
    if found == expected:
        return opened
    if found.size < expected.size:
        what = f"is truncated or of another shard: {found.size} bytes, committed were {expected.size}"
    elif found.size > expected.size:
        what = f"is too long: {found.size} bytes, committed were {expected.size}"
    else:
        what = f"was altered: its CRC-32C is {found.crc32c}, committed was {expected.crc32c}"
    raise DamagedError(f"{where} {what}. {_REMEDY}")


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """What the system says of an object that it cannot read, a failing disk above all, as a DamagedError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise DamagedError(f"{where} cannot be read: {exc.strerror}. {_REMEDY}") from exc


def _describe(opened: OpenObject) -> StoredObject:
    checksum, size = google_crc32c.Checksum(), 0
    while part := opened.read(size, _CHECKED_BYTES):
        checksum.update(part)
        size += len(part)
    return StoredObject(crc32c=checksum.digest().hex(), size=size)


def shard_name(epoch: int, shard: int) -> str:
    """``EEEE.SSSSS``, the stem of a shard's commit and claim."""
    return f"{epoch:04d}.{shard:05d}"


def commit_key(epoch: int, shard: int) -> str:
    """Key of a shard's commit."""
    return f"{COMMITS}/{shard_name(epoch, shard)}.json"


def parse_commit_name(name: str) -> tuple[int, int] | None:
    """Epoch and shard of a commit's file name; None for any other name."""
    match = _COMMIT_NAME.fullmatch(name)
    if match is None:
        return None
    epoch, shard = int(match[1]), int(match[2])
    return (epoch, shard) if name == f"{shard_name(epoch, shard)}.json" else None
