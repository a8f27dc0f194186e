"""From the parts of a split to its arrays and its manifest, in memory that does not grow with the number of images."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from logitstore import __version__
from logitstore.cards import write_atomically
from logitstore.checksums import canonical_json, seal
from logitstore.errors import DataError
from logitstore.images.packed import (
    ENTRY,
    FORMAT_VERSION,
    INDEX,
    LABELS,
    MANIFEST,
    NAME_ENDS,
    NAMES,
    content_fingerprint,
)
from logitstore.pack.writer import NO_LABEL, part_array, remove_parts

_BLOCK = 1 << 20


def finish(
    folder: Path, parts: Sequence[Mapping[str, Any]], description: Mapping[str, Any], *, named: bool
) -> dict[str, Any]:
    """Put the parts of a split together and write its manifest.

    Args:
        folder: the split's.
        parts: the notes of all shards.
        description: fields of the manifest that the source decides, as ``write_manifest`` takes them, but for
            ``num_samples``, ``num_classes`` and ``shards``.
        named: whether samples have names of their own.

    Returns:
        The manifest.

    Raises:
        DataError: a part is damaged.
    """
    count = sum(part["images"] for part in parts)
    index = _created(folder / INDEX, ENTRY, count)
    labels = _created(folder / LABELS, np.dtype("<i8"), count)
    name_ends = _created(folder / NAME_ENDS, np.dtype("<u8"), count)
    done, name_bytes, least, most = 0, 0, 0, -1
    with (folder / NAMES).open("wb") as file:
        for number, part in enumerate(parts):
            rows, names = _read_part(folder, number, part)
            here = slice(done, done + len(rows))
            index[here], labels[here] = rows["entry"], rows["label"]
            name_ends[here] = rows["name_end"] + np.uint64(name_bytes)
            file.write(names.tobytes())
            done, name_bytes = here.stop, name_bytes + len(names)
            least, most = min(least, int(rows["label"].min())), max(most, int(rows["label"].max()))
    for array in (index, labels, name_ends):
        array.flush()
    if least == NO_LABEL:
        (folder / LABELS).unlink()
    if not named:
        (folder / NAMES).unlink()
        (folder / NAME_ENDS).unlink()
    shards = [{"bytes": part["bytes"], "sha256": part["sha256"]} for part in parts]
    num_classes = None if least == NO_LABEL else most + 1
    manifest = write_manifest(
        folder, {**description, "num_samples": count, "num_classes": num_classes, "shards": shards}
    )
    remove_parts(folder)
    return manifest


def write_manifest(folder: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a split whose shards and arrays are there; with it, the split is.

    Args:
        folder: the split's.
        description: ``name``, ``split``, ``num_samples``, ``num_classes``, ``class_names``, ``no_labels``,
            ``flippable``, ``default_size``, ``packed``, ``left_out`` and ``shards`` of the manifest.

    Returns:
        The manifest, with checksums of the arrays and the fingerprint.
    """
    index: NDArray[np.void] = np.load(folder / INDEX, mmap_mode="r")
    names = [name for name in (INDEX, LABELS, NAMES, NAME_ENDS) if (folder / name).exists()]
    manifest = seal(
        {
            **description,
            "format_version": FORMAT_VERSION,
            "fingerprint": content_fingerprint(description["packed"], index),
            "arrays": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)} for name in names
            },
            "versions": {"logitstore": __version__, "pillow": PIL.__version__, "python": platform.python_version()},
        }
    )
    write_atomically(folder / MANIFEST, lambda temporary: temporary.write_bytes(canonical_json(manifest)))
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _created(path: Path, dtype: np.dtype[Any], count: int) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count,))  # type: ignore[no-untyped-call, no-any-return]


def _read_part(folder: Path, number: int, part: Mapping[str, Any]) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    path = part_array(folder, number)
    if file_sha256(path) != part["array"]:
        raise DataError(f"{path} differs from its checksum: restore it, or remove {folder} and pack again.")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["rows"], arrays["names"]
