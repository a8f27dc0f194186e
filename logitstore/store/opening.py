"""Opening a store: its metadata read, checked and understood before anything else is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from logitstore.errors import DamagedError, FormatError, StoreNotFoundError
from logitstore.store.layout import COMMITS, METADATA, array_checksum, array_layouts, read_manifest
from logitstore.store.objects import LocalObjects
from logitstore.store.reader import Store


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store for reading.

    Raises:
        StoreNotFoundError: there is nothing at this path.
        FormatError: what is there is no store, or one of another format version.
        DamagedError: the manifest or an array's metadata was altered.
    """
    root = Path(path)
    if not root.exists():
        raise StoreNotFoundError(
            f"There is no store at {root}; make one with `logitstore dump --teacher TEACHER --store {root}`."
        )
    objects = LocalObjects(root, scratch=COMMITS)
    group = _json(objects, METADATA)
    if group is None:
        raise FormatError(f"{root} is not a store: it has no {METADATA}.")
    manifest, checksums = read_manifest(group, where=str(root))
    documents = {name: _array_document(objects, name, checksums) for name in array_layouts(manifest)}
    return Store(objects, manifest, documents)


def _array_document(objects: LocalObjects, name: str, checksums: dict[str, str]) -> bytes:
    where = f"{objects.root}/{name}/{METADATA}"
    document = _json(objects, f"{name}/{METADATA}")
    if document is None:
        raise DamagedError(f"{where} is missing; restore it from a copy.")
    if array_checksum(document) != checksums.get(name):
        raise DamagedError(f"{where} was altered: it differs from the checksum in the manifest.")
    return objects.get(f"{name}/{METADATA}")


def _json(objects: LocalObjects, key: str) -> dict[str, Any] | None:
    try:
        document = json.loads(objects.get(key))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise DamagedError(f"{objects.root}/{key} cannot be read: {exc.strerror}; restore it from a copy.") from exc
    except ValueError as exc:
        raise DamagedError(f"{objects.root}/{key} is not JSON any more; restore it from a copy.") from exc
    if not isinstance(document, dict):
        raise FormatError(f"{objects.root}/{key} is not the metadata of a zarr group.")
    return document
