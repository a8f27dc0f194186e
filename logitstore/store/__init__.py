"""The store on disk: a zarr v3 group of records, written once, shard by shard, and read in the order of writing.

Knows numpy, zarr and checksums; no torch and no views. docs/format.md specifies what lies on disk.

    manifest   what a store holds, and its id        layout    names, shapes, zarr metadata
    values     forms of stored log-probabilities     records   padding, masses
    dense      logits back from dense stores
    kernels    masses and visit order, compiled      shards    arrays <-> bytes of objects, through zarr
    objects    where bytes lie                       codecs/   how chunks are compressed
    claims     who may write                         commits   what makes a shard exist
    opening    metadata, checked                     reader    records at positions
    arrays     objects, checked and decoded          chunks    the same of one chunk, without zarr
    blocks     what a reader has in memory           cache     least recently used first out
    forms      how records lie in a store's objects: standard_form, or packed_form
    packed/    coding of packed records              packed_base  what they are coded with
    summary    what info says                        claiming  shard after shard, for whoever makes them
    ensemble   several stores of the same views, read as the mean of what their teachers say
    writer     create, claim, commit                 verify    every checksum again
"""

from logitstore.store.claims import Claim
from logitstore.store.commits import Commit
from logitstore.store.ensemble import Ensemble, mean_records
from logitstore.store.layout import choose_chunk_size, choose_shard_size
from logitstore.store.manifest import FORMAT_VERSION, WITNESS_EVERY, Manifest
from logitstore.store.opening import open_store
from logitstore.store.reader import Store
from logitstore.store.records import Records, ShardBlock, decode_records, encode_records
from logitstore.store.verify import VerifyReport, verify_store
from logitstore.store.writer import claim_shard, commit_shard, create_store, tidy

__all__ = [
    "FORMAT_VERSION",
    "WITNESS_EVERY",
    "Claim",
    "Commit",
    "Ensemble",
    "Manifest",
    "Records",
    "ShardBlock",
    "Store",
    "VerifyReport",
    "choose_chunk_size",
    "choose_shard_size",
    "claim_shard",
    "commit_shard",
    "create_store",
    "decode_records",
    "encode_records",
    "mean_records",
    "open_store",
    "tidy",
    "verify_store",
]
