"""Image folders, and the same tree in a tar file.

Order: folders are walked from the top, the entries of each in natural order (numbers by value, letters without regard
to case, then by code point), so it never depends on how a file system lists them. Hidden entries are left out.

Labels: the folders right below the top are the classes, in natural order, when every image lies in one and there are
at least two. Otherwise the images have no labels.

Splits: ``train/`` and ``val/`` (or ``training/``, ``validation/``, ``valid/``) right below the top are splits.

Fingerprint: SHA-256 over the names, relative to the split's folder, and the sizes of all images, in order.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitstore.errors import DataError, SplitError
from logitstore.images.decode import SUFFIXES
from logitstore.images.encoded import HEAD_BYTES, TAIL_BYTES, EncodedImages

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
_ALL_SPLIT_NAMES = frozenset(name for names in SPLIT_NAMES.values() for name in names)
_OTHER_SPLIT_NAMES = frozenset({"test", "testing", "eval", "evaluation", "extra", "unlabeled", "unlabelled"})


class FolderImages(EncodedImages):
    """Image files below one folder.

    Args:
        root: the folder.
        names: paths of the images relative to it, with ``/``, in order.
        sizes: of the files, in bytes.
        name, split: see ``ImageSet``.
        labels, class_names: as given; where both are None they are read off the class folders.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        sizes: Sequence[int],
        *,
        name: str,
        split: str,
        labels: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        flippable: bool = True,
    ) -> None:
        if labels is None and class_names is None:
            labels, class_names = class_folders(names)
        super().__init__(
            name=name,
            split=split,
            num_samples=len(names),
            labels=labels,
            class_names=class_names,
            no_labels="its images do not all lie in two or more class folders",
            flippable=flippable,
        )
        self._root = root
        self._names = names
        self._sizes = sizes

    def image_name(self, i: int) -> str:
        return _printable(self._names[i])

    def encoded(self, i: int) -> bytes:
        return self._read(i, 0, None)

    def ends(self, i: int) -> tuple[bytes, bytes, int]:
        tail = min(TAIL_BYTES, self._sizes[i])
        return self._read(i, 0, HEAD_BYTES), self._read(i, self._sizes[i] - tail, tail), self._sizes[i]

    def _read(self, i: int, start: int, length: int | None) -> bytes:
        with (self._root / self._names[i]).open("rb", buffering=0) as file:
            if start:
                file.seek(start)
            return (file.readall() if length is None else file.read(length)) or b""

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(b"logitstore files 1\n")
        for name, size in zip(self._names, self._sizes, strict=True):
            digest.update(b"%s\0%d\n" % (os.fsencode(name), size))
        return digest.hexdigest()


class TarImages(FolderImages):
    """Image files in one uncompressed tar file, read in place: ``offsets`` are where their bytes begin."""

    def __init__(
        self, path: Path, names: Sequence[str], sizes: Sequence[int], offsets: Sequence[int], *, name: str, split: str
    ) -> None:
        super().__init__(path, names, sizes, name=name, split=split)
        self._offsets = offsets

    def _read(self, i: int, start: int, length: int | None) -> bytes:
        with self._root.open("rb", buffering=0) as file:
            file.seek(self._offsets[i] + start)
            return file.read(self._sizes[i] - start if length is None else length) or b""


def open_folder(root: Path, split: str, *, whole: bool) -> FolderImages:
    """Open an image folder; see the head of this module."""
    tops = {entry.name: entry for entry in _listing(root) if entry.is_dir()}
    found = {name: lambda entry=entry: any(True for _ in _walk(entry.path, "", ())) for name, entry in tops.items()}
    folder = choose_split(found, split, whole=whole, where=str(root))
    start = root / folder if folder else root
    names, sizes = [], array("q")
    for name, size in _walk(str(start), "", ()):
        names.append(name)
        sizes.append(size)
    if not names:
        raise DataError(f"{start} holds no images: formats are {', '.join(sorted(SUFFIXES))}.")
    return FolderImages(start, names, sizes, name=_title(root), split=split)


def open_tar(path: Path, split: str, *, whole: bool) -> TarImages:
    """Open a tar file that holds an image folder."""
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = str(PurePosixPath(member.name))
                if member.isreg() and not _hidden(name) and PurePosixPath(name).suffix.lower() in SUFFIXES:
                    members[name] = (member.size, member.offset_data)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{path} cannot be read as an uncompressed tar file ({error}): unpack it instead.") from error
    members = _unwrapped(members)
    tops = {name.partition("/")[0] for name in members if "/" in name}
    folder = choose_split(dict.fromkeys(tops, lambda: True), split, whole=whole, where=str(path))
    prefix = f"{folder}/" if folder else ""
    names = sorted((name.removeprefix(prefix) for name in members if name.startswith(prefix)), key=_path_key)
    if not names:
        raise DataError(f"{path} holds no images: formats are {', '.join(sorted(SUFFIXES))}.")
    sizes, offsets = zip(*(members[prefix + name] for name in names), strict=True)
    return TarImages(path, names, sizes, offsets, name=path.stem, split=split)


def _unwrapped(members: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Without a folder that holds nothing but folders and that everything lies in, as archivers like to put it."""
    while members:
        top = next(iter(members)).partition("/")[0] + "/"
        if top[:-1].lower() in _ALL_SPLIT_NAMES or not all(n.startswith(top) and n.count("/") > 1 for n in members):
            break
        members = {name.removeprefix(top): entry for name, entry in members.items()}
    return members


def choose_split(tops: Mapping[str, Callable[[], bool]], split: str, *, whole: bool, where: str) -> str | None:
    """Which folder holds a split; None for all of it, where there are no splits.

    Args:
        tops: the folders right below the top, each with a function that tells whether there are images in it.
        split: the split that is wanted.
        whole: take everything where there are no splits.
        where: the data set, for messages.
    """
    by_name = {name.lower(): name for name in sorted(tops, reverse=True)}
    present = [name for name in by_name if name in _ALL_SPLIT_NAMES]
    others = [name for name in by_name if name not in _ALL_SPLIT_NAMES | _OTHER_SPLIT_NAMES]
    if len(present) == 1 and (beside := [by_name[name] for name in others if tops[by_name[name]]()]):
        # "train" may well be a vehicle.
        raise DataError(
            f"{where} holds {present[0]}/ beside other folders with images ({', '.join(sorted(beside)[:3])}), so it "
            "may be a split or a class: give the folder of the split itself, or rename the class."
        )
    for name in SPLIT_NAMES.get(split, (split,)):
        if name in by_name:
            return by_name[name]
    if present:
        raise SplitError(f"{where} has {', '.join(sorted(present))}, but no {split} split.")
    if split == "train" or whole:
        return None
    raise SplitError(f"{where} has no {split} split: put {split}/ beside train/, or name its data with --val-data.")


def class_folders(names: Sequence[str]) -> tuple[NDArray[np.int64] | None, list[str] | None]:
    """Labels and class names that relative paths show; (None, None) where they show none."""
    found: dict[str, int] = {}
    numbers = array("q")
    for name in names:
        top, slash, _ = name.partition("/")
        if not slash:
            return None, None
        numbers.append(found.setdefault(top, len(found)))
    if len(found) < 2:
        return None, None
    classes = sorted(found, key=natural_key)
    renumbered = np.empty(len(classes), np.int64)
    renumbered[[found[name] for name in classes]] = np.arange(len(classes))
    return renumbered[np.array(numbers)], [_printable(name) for name in classes]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts "img2" before "img10" and "a" before "B"; ties (as "A" and "a") by code point."""
    parts = re.split("([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _path_key(path: str) -> list[tuple[list[str | int], str]]:
    return [natural_key(part) for part in path.split("/")]


def _printable(name: str) -> str:
    """The name, with bytes that are no UTF-8 replaced."""
    return os.fsencode(name).decode(errors="replace")


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _listing(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: natural_key(e.name))
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be read ({error.strerror}).") from error


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, int]]:
    """Names and sizes of the images below a folder. ``above`` stops links that lead back up."""
    for entry in _listing(folder):
        try:
            if entry.is_dir():
                stat = entry.stat()
                if (own := (stat.st_dev, stat.st_ino)) not in above:
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, own))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122 (a million times)
                yield prefix + entry.name, entry.stat().st_size
        except OSError as error:
            raise DataError(f"{entry.path} cannot be read ({error.strerror}): mend or remove it.") from error


def _title(root: Path) -> str:
    """A folder's own name; that of the one above for ``imagenet/train``."""
    path = root.resolve()
    return path.parent.name if path.name.lower() in _ALL_SPLIT_NAMES and path.parent.name else path.name or "images"
