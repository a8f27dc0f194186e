"""Coding of records in packed stores: what ``convert`` writes, chunk by chunk. docs/format.md defines it.

shape       what records look like           plain        records as levels, and back
base        what the base epochs tell        neighbours   classes that come together
statistics  counts, and frequencies          rangecoder   integers to words, and back
kernels     records, in both directions      chunk        header, checksums, body
"""

from logitstore.store.packed.base import Base
from logitstore.store.packed.chunk import chunk_bytes, coded_with, decode_chunk, encode_chunk
from logitstore.store.packed.shape import RecordShape
from logitstore.store.packed.state import BASE_RANKS

__all__ = ["BASE_RANKS", "Base", "RecordShape", "chunk_bytes", "coded_with", "decode_chunk", "encode_chunk"]
