"""Canonical JSON and CRC-32C: the two things every checksum of stores and packed images is made of.

A *sealed* document is a JSON object that carries its own CRC-32C in the field ``crc32c``, taken over the canonical
JSON of the document without that field and without the fields the format excludes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import google_crc32c

SEAL = "crc32c"


def canonical_json(value: object) -> bytes:
    """The one byte string of a JSON value: keys sorted, no white space, UTF-8, shortest round-trip floats, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def crc32c_hex(data: bytes | memoryview) -> str:
    """CRC-32C (Castagnoli) of some bytes as eight lower-case hexadecimal digits."""
    return f"{google_crc32c.value(bytes(data)):08x}"


def seal(document: Mapping[str, Any], *, exclude: Iterable[str] = ()) -> dict[str, Any]:
    """A copy of the document with its own checksum added; ``exclude`` names fields the checksum leaves out."""
    return {**document, SEAL: _checksum(document, exclude)}


def is_intact(document: Mapping[str, Any], *, exclude: Iterable[str] = ()) -> bool:
    """Whether a sealed document still has the content that its checksum was taken of."""
    return document.get(SEAL) == _checksum(document, exclude)


def _checksum(document: Mapping[str, Any], exclude: Iterable[str]) -> str:
    left_out = {SEAL, *exclude}
    return crc32c_hex(canonical_json({key: value for key, value in document.items() if key not in left_out}))
