"""Packed images: JPEGs one after the other in large shards, and an index that is mapped into memory.

Sample number i costs one entry of the index and one read, whatever N is, and no private memory grows with N: index,
labels and names stay in files. A split is there once its manifest is, which is written last. The format stands in
docs/packed.md; ``logitstore.pack`` writes it.

Fingerprint: that of the manifest: SHA-256 over the fingerprint of the source, the short side, the quality, and length
and CRC-32C of every image, in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from logitstore.checksums import canonical_json, is_intact
from logitstore.errors import DataError, DecodeError, SplitError
from logitstore.images.base import ImageSet, Progress
from logitstore.images.encoded import EncodedImages

FORMAT_VERSION = 1
MARK, MANIFEST = "pack.json", "manifest.json"
INDEX, LABELS, NAMES, NAME_ENDS = "index.npy", "labels.npy", "names.bin", "name_ends.npy"
ENTRY = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("crc32c", "<u4"), ("shard", "<u4"), ("height", "<u2"), ("width", "<u2")]
)
"""What the index holds of an image: where its bytes are, their checksum, and the size after decoding in pixels."""

_OPEN_SHARDS = 256  # file descriptors of one data set
_BLOCK = 1 << 20


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05}.bin"


def is_packed(path: Path) -> bool:
    """Whether a folder holds packed images."""
    return (path / MARK).is_file()


def open_packed(path: Path, split: str, *, whole: bool) -> PackedImages:
    """Open a split of packed images.

    Args:
        path: the folder.
        split: the split that is wanted.
        whole: take the only split whatever it is called.

    Raises:
        SplitError: there is no such split.
        DataError: it is not packed to its end, or its files are not what the manifest says.
    """
    present = packed_splits(path)
    if whole and len(present) == 1:
        (split,) = present
    if split not in present:
        if (path / split).is_dir():
            raise DataError(
                f"The {split} split of {path} is not packed to its end: the same logitstore pack again goes on with it."
            )
        if not present:
            raise DataError(f"{path} holds no split that is packed: run logitstore pack again.")
        raise SplitError(f"{path} has {', '.join(present)}, but no {split} split.")
    return PackedImages(path / split, read_manifest(path / split))


def packed_splits(path: Path) -> list[str]:
    """Names of the splits that are packed to their end."""
    return sorted(found.parent.name for found in path.glob(f"*/{MANIFEST}"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a split.

    Raises:
        DataError: it is damaged, or of another format version.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format_version"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}): restore it, or pack again.") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}, and this logitstore reads version {FORMAT_VERSION}: use the one "
            "that packed the images, or pack again."
        )
    if not is_intact(manifest):
        raise DataError(f"{path} differs from its own checksum: restore it, or pack again.")
    return dict(manifest)


def content_fingerprint(packing: Mapping[str, object], index: NDArray[np.void]) -> str:
    """The fingerprint of packed images.

    Args:
        packing: ``source``, ``short_side``, ``quality``.
        index: entries [N] of type ``ENTRY``.
    """
    digest = hashlib.sha256(b"logitstore pack 1\n" + canonical_json(dict(packing)) + b"\n")
    for start in range(0, len(index), _BLOCK):
        block = index[start : start + _BLOCK]
        digest.update(np.stack([block["length"], block["crc32c"]], axis=1).tobytes())
    return digest.hexdigest()


class PackedImages(EncodedImages):
    """One split of packed images.

    Args:
        folder: the split's.
        manifest: what ``read_manifest`` gives.

    Raises:
        DataError: an array is missing or not of the size that the manifest says.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        count = int(manifest["num_samples"])
        self._folder, self._manifest = folder, manifest
        super().__init__(
            name=manifest["name"],
            split=manifest["split"],
            num_samples=count,
            labels=self._mapped(LABELS, np.dtype("<i8")),
            class_names=manifest["class_names"],
            no_labels=manifest["no_labels"],
            flippable=manifest["flippable"],
            default_size=manifest["default_size"],
        )
        index = self._mapped(INDEX, ENTRY)
        if index is None:
            raise DataError(f"{folder / MANIFEST} names no {INDEX}: pack again.")
        self.index: NDArray[np.void] = index
        self._name_ends = self._mapped(NAME_ENDS, np.dtype("<u8"))
        if self._name_ends is not None:
            require_size(folder / NAMES, manifest["arrays"][NAMES]["bytes"], DataError)
        self.packing = manifest["packed"]
        # Shared by the copies that ``relabelled`` makes. A shard that falls out is closed by its last reader.
        self._shard = lru_cache(_OPEN_SHARDS)(partial(_open_shard, folder, manifest["shards"]))

    def _mapped(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """An array [N], read from its file as it is used; None where the split has no such array."""
        if name not in self._manifest["arrays"]:
            return None
        path = self._folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}): restore it, or pack again.") from error
        count = self._manifest["num_samples"]
        if array.shape != (count,) or array.dtype != dtype:
            raise DataError(
                f"{path} holds {array.dtype} {list(array.shape)}, not {dtype} [{count}]: restore it, or pack again."
            )
        return np.asarray(array)  # without numpy's subclass, each access to which costs more

    @property
    def num_classes(self) -> int | None:
        return self._manifest["num_classes"] if self.class_names is None else len(self.class_names)

    def image_name(self, i: int) -> str:
        if self._name_ends is None:
            return f"image {i}"
        start, stop = int(self._name_ends[i - 1]) if i else 0, int(self._name_ends[i])
        if not start <= stop <= self._manifest["arrays"][NAMES]["bytes"]:
            return f"image {i}"  # a damaged array, and a name may be wanted to say so
        with (self._folder / NAMES).open("rb") as file:
            file.seek(start)
            return file.read(stop - start).decode(errors="replace")

    def encoded(self, i: int) -> bytes:
        """The bytes of image ``i``, compared with their checksum.

        They are read, not mapped: whoever touches a page that is not in memory waits for it with Python's lock held,
        which ``pread`` lets go.

        Raises:
            DecodeError: they are damaged or missing.
        """
        shard, offset, length, crc = self._located(i)
        data = os.pread(shard.descriptor, length, offset)
        if len(data) != length or google_crc32c.value(data) != crc:
            raise DecodeError(
                f"{self.image_name(i)} of {self.name} is damaged: {length:,} bytes at {offset:,} of {shard.path} "
                "differ from their checksum; restore the file or pack again, or pass --skip-bad."
            )
        return data

    def ends(self, i: int) -> tuple[bytes, bytes, int]:
        """As of a whole JPEG: each image was decoded when it was packed. That its shard is there is looked at."""
        _, _, length, _ = self._located(i)
        return b"\xff\xd8\xff", b"\xff\xd9", length

    def _located(self, i: int) -> tuple[_Shard, int, int, int]:
        """In which shard an image is, where it begins, its length and its checksum."""
        offset, length, crc, number, _, _ = self.index[i].item()
        shards = self._manifest["shards"]
        if number >= len(shards) or offset + length > shards[number]["bytes"]:
            raise DecodeError(
                f"{self.image_name(i)} of {self.name} is damaged: its entry in {self._folder / INDEX} lies outside the "
                "shards; restore the file or pack again, or pass --skip-bad."
            )
        return self._shard(number), offset, length, crc

    def check(self, progress: Progress | None = None, *, skip_bad: bool = False) -> list[str]:
        """Whether all shards are there in full. Their bytes are compared with their checksums as they are read."""
        shards = self._manifest["shards"]
        for number, shard in enumerate(shards):
            require_size(self._folder / shard_name(number), shard["bytes"], DataError)
            if progress is not None:
                progress(self.num_samples * (number + 1) // len(shards), self.num_samples)
        return []

    def relabelled(self, class_names: Sequence[str] | None, *, num_classes: int | None = None) -> ImageSet:
        if class_names is not None and tuple(class_names) == self.class_names:
            return self  # the labels stay in their file
        return super().relabelled(class_names, num_classes=num_classes)

    def _fingerprint(self) -> str:
        return str(self._manifest["fingerprint"])


class _Shard:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


def _open_shard(folder: Path, shards: Sequence[Mapping[str, Any]], number: int) -> _Shard:
    path = folder / shard_name(number)
    require_size(path, shards[number]["bytes"], DecodeError)
    return _Shard(path)


def require_size(path: Path, expected: int, kind: type[DataError | DecodeError]) -> None:
    """Compare the size of a file with what the manifest says.

    Raises:
        DataError, DecodeError: it has another one, or is not there; which of the two, ``kind`` says.
    """
    try:
        found = path.stat().st_size
    except OSError as error:
        raise kind(f"{path} cannot be read ({error.strerror}): restore it, or pack again.") from error
    if found != expected:
        raise kind(f"{path} has {found:,} bytes instead of {expected:,}: restore it, or pack again.")
