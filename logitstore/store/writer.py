"""Making a store: creation, claims on shards, commits. Whatever is killed here, the same calls again complete it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from logitstore.errors import ClaimLostError, DamagedError, FormatError, InputError
from logitstore.store.claims import Claim, acquire, claim_key, sweep
from logitstore.store.commits import Commit, StoredObject
from logitstore.store.layout import COMMITS, METADATA, array_checksum, array_layouts, metadata_documents
from logitstore.store.manifest import Manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.opening import open_store
from logitstore.store.owner import this_process
from logitstore.store.reader import Store
from logitstore.store.records import ShardBlock, kept_counts

_CREATION_CLAIM = f"{COMMITS}/manifest.claim"
_POLL_S = 0.1


def create_store(path: str | os.PathLike[str], manifest: Manifest) -> Store:
    """Create a store, or open the one that this manifest describes and make room for its epochs.

    Several processes may do this at once. What killed processes left behind is cleaned up.

    Args:
        path: folder of the store; absent, empty, or holding the same store.
        manifest: what the store is to hold. An existing store keeps its ``versions`` and never shrinks.

    Raises:
        MismatchError: another store is there.
        FormatError: something else is there.
    """
    root = Path(path)
    objects = LocalObjects(root, scratch=COMMITS)
    if not objects.exists(METADATA):
        _require_ours(objects, manifest)
    while not _is_current(objects, manifest):
        with _creation_claim(objects) as claim:
            _write_metadata(objects, manifest, claim)
    store = open_store(root)
    tidy(store)
    return store


def claim_shard(store: Store, epoch: int, shard: int) -> Claim | None:
    """Claim a shard before working on it.

    Returns:
        The claim, to be used as a context manager, or None where the shard is committed or another process works on it.
    """
    store.shard_range(shard)
    if not 0 <= epoch < store.num_epochs:
        raise InputError(f"There is no epoch {epoch}; {store.path} has room for epochs 0..{store.num_epochs - 1}.")
    if store.is_committed(epoch, shard):
        return None
    claim = acquire(store.objects, claim_key(epoch, shard), epoch=epoch, shard=shard)
    if claim is not None and store.is_committed(epoch, shard):
        claim.release()
        return None
    return claim


def commit_shard(
    store: Store, claim: Claim, block: ShardBlock, info: Mapping[str, Any] | None = None, *, read_back: bool = False
) -> Commit:
    """Write a claimed shard and commit it; the claim is given back.

    Args:
        store: the store.
        claim: from ``claim_shard``.
        block: the shard's arrays, encoded.
        info: what the commit should say besides about its making (JSON values); not part of any checksum.
        read_back: decode what was written, as a reader would, and compare it with ``block`` before it counts.

    Raises:
        ClaimLostError: another process took the shard over or committed it; nothing that counts was written.
        DamagedError: what was written does not read back.
    """
    commit = _put_objects(store, claim, block, info or {})
    if read_back:
        _require_written(store, commit, block)
    if not store.objects.create(commit.key, commit.to_bytes(), guard=claim.check):
        raise ClaimLostError(f"Another process committed {store.path}/{commit.key} first; its shard stays.")
    claim.release()
    if store.complete:
        tidy(store)
    return commit


def tidy(store: Store) -> None:
    """Remove what killed processes left: temporary files, claims on committed shards."""
    store.objects.sweep()
    if store.objects.exists(_CREATION_CLAIM) and (abandoned := acquire(store.objects, _CREATION_CLAIM)) is not None:
        abandoned.release()
    done = {Path(commit).stem for commit in store.objects.list(COMMITS) if commit.endswith(".json")}
    sweep(store.objects, done.__contains__)


def _put_objects(store: Store, claim: Claim, block: ShardBlock, info: Mapping[str, Any]) -> Commit:
    arrays = store.form.arrays(claim.epoch, claim.shard, block)
    encoded = store.coder.encode(claim.epoch, claim.shard, arrays)
    layouts = array_layouts(store.manifest)
    for name, data in encoded.items():
        store.objects.put(layouts[name].key(claim.epoch, claim.shard), data, guard=claim.check)
    kept = kept_counts(block.index)
    me = this_process()
    standard = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": me.host,
        "pid": me.pid,
        "token": claim.token,
        "versions": store.manifest.versions,
    }
    return Commit(
        store_id=store.store_id,
        epoch=claim.epoch,
        shard=claim.shard,
        objects={name: StoredObject.of(data) for name, data in encoded.items()},
        records=len(block),
        kept=int(kept.sum()),
        skipped=int((kept == 0).sum()),
        info={**standard, **info},
    )


def _require_written(store: Store, commit: Commit, block: ShardBlock) -> None:
    """Refuse to commit objects from which a reader would get anything else than the block, to the bit."""
    written = store.form.open(commit.epoch, commit.shard, commit).whole().arrays()
    for name, array in block.arrays().items():
        if array.dtype != written[name].dtype or array.tobytes() != written[name].tobytes():
            raise DamagedError(
                f"Epoch {commit.epoch}, shard {commit.shard} of {store.path} does not read back as it was written "
                f"({name}); it was not committed. Check memory and disk, and run the same command again."
            )


def _require_ours(objects: LocalObjects, manifest: Manifest) -> None:
    """Refuse a file, or a folder with anything in it that an interrupted creation would not have left."""
    if objects.root.exists() and not objects.root.is_dir():
        raise FormatError(f"{objects.root} is a file, not a folder. Choose another path.")
    ours = {COMMITS, METADATA, *array_layouts(replace(manifest, logz=True))}
    if strange := [name for name in objects.list() if name not in ours]:
        raise FormatError(f"{objects.root} is not empty and no store: it holds {strange[0]}. Choose another path.")


def _is_current(objects: LocalObjects, manifest: Manifest) -> bool:
    """Whether the store exists, with all metadata, and has room for the manifest's epochs."""
    if not objects.exists(METADATA):
        return False
    store = open_store(objects.root)
    store.manifest.require_same(manifest, where=str(objects.root))
    _require_our_layout(store)
    if store.num_epochs < manifest.num_epochs:
        return False
    return all(objects.get(key) == data for key, data in metadata_documents(store.manifest).items())


def _require_our_layout(store: Store) -> None:
    """Refuse to rewrite the metadata of arrays whose shards this version would encode in another way."""
    for name, layout in array_layouts(store.manifest).items():
        ours = layout.document(store.num_epochs, store.manifest.codec)
        if array_checksum(ours) != array_checksum(json.loads(store.documents[name])):
            raise FormatError(
                f"The array {name} of {store.path} is encoded otherwise than this logitstore would; "
                "it can be read, but only the program that began it can continue it."
            )


def _write_metadata(objects: LocalObjects, manifest: Manifest, claim: Claim) -> None:
    """Bring all metadata to what the manifest says; the group's own comes last and makes it so."""
    if objects.exists(METADATA):
        stored = open_store(objects.root).manifest
        stored.require_same(manifest, where=str(objects.root))
        manifest = replace(stored, num_epochs=max(stored.num_epochs, manifest.num_epochs))
    for key, data in metadata_documents(manifest).items():
        objects.put(key, data, guard=claim.check)


@contextlib.contextmanager
def _creation_claim(objects: LocalObjects) -> Iterator[Claim]:
    while (claim := acquire(objects, _CREATION_CLAIM)) is None:
        time.sleep(_POLL_S)
    with claim:
        yield claim
