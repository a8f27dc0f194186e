"""Random-access data sets of ``timm.data.create_dataset``: ``torch/NAME`` and ``hfds/NAME``. Imports torch.

Fingerprint: torchvision's arrays and folders have that of arrays and folders. A Hugging Face data set has SHA-256
over its name, its split, its labels and class names, in order: its pixels are not looked at, and they may only change
together with its name or its count.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from logitstore.errors import DataError
from logitstore.images.arrays import ArrayImages
from logitstore.images.base import ImageSet
from logitstore.images.encoded import EncodedImages
from logitstore.images.files import FolderImages

_ROOT = "runs/data"
STREAMS = ("hfids", "tfds", "wds")
# Small enough to fetch without being asked to.
_DOWNLOADS = frozenset({"cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist"})
NOT_FLIPPABLE = frozenset({"mnist", "kmnist", "qmnist"})
_HF_SPLITS = {"train": ("train",), "val": ("validation", "val", "valid", "test")}


def open_timm(data: str, split: str) -> ImageSet:
    """Open ``torch/NAME[@FOLDER]`` or ``hfds/NAME[@FOLDER]``.

    Args:
        data: the name; the prefix in any case.
        split: ``train`` or ``val``. torchvision's small data sets give their test set as ``val``, and so does a
            Hugging Face one that has no other.
    """
    prefix, name, root = split_name(data)
    if prefix in STREAMS:
        raise DataError(
            f"{data} is a stream, and logitstore needs images that it can read in any order: logitstore pack --data "
            f"{data} OUT makes them, and then give OUT as --data."
        )
    if prefix == "torch":
        return _torchvision(name.lower(), Path(root or _ROOT), split)
    return _hugging_face(name, root, split)


def split_name(data: str) -> tuple[str, str, str | None]:
    """``PREFIX/NAME[@FOLDER]`` as prefix in lower case, name and folder; None where there is no folder."""
    prefix, _, rest = data.partition("/")
    name, _, root = rest.partition("@")
    return prefix.lower(), name, root or None


def candidates(split: str) -> tuple[str, ...]:
    """What data sets of Hugging Face and others may call a split, the likeliest first."""
    return _HF_SPLITS.get(split, (split,))


def create(name: str, root: str | None, split: str, **options: Any) -> Any:
    """What timm's ``create_dataset`` gives.

    Raises:
        DataError: it raises, whatever it is; from that.
    """
    from timm.data import create_dataset

    try:
        with contextlib.redirect_stdout(sys.stderr):  # readers talk, and standard output belongs to results
            return create_dataset(name, root=root, split=split, **options)
    except (Exception, SystemExit) as error:  # a dozen kinds, of five libraries
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"timm cannot open the {split} split of {name} ({text}).") from error


def _torchvision(name: str, root: Path, split: str) -> ImageSet:
    if name in _DOWNLOADS:
        root.mkdir(parents=True, exist_ok=True)
    dataset = create(f"torch/{name}", str(root), split, download=name in _DOWNLOADS)
    return wrap_torchvision(dataset, name=name, split=split)


def wrap_torchvision(dataset: Any, *, name: str, split: str) -> ImageSet:
    """A torchvision data set that keeps its images in ``data`` or their files in ``samples`` (or ``imgs``)."""
    classes = getattr(dataset, "wnids", None) or getattr(dataset, "classes", None)
    class_names = None if classes is None else [str(entry) for entry in classes]
    flippable = name not in NOT_FLIPPABLE
    pixels = getattr(dataset, "data", None)
    if pixels is not None and np.asarray(pixels).dtype == np.uint8:
        return ArrayImages(
            np.asarray(pixels),
            name=name,
            split=split,
            # QMNIST keeps a table whose first column is the class.
            labels=np.asarray(dataset.targets).reshape(len(pixels), -1)[:, 0],
            class_names=class_names,
            flippable=flippable,
        )
    samples = getattr(dataset, "samples", None) or getattr(dataset, "imgs", None)
    if not samples:
        raise DataError(f"torch/{name} keeps no list of files: give its image folder as --data.")
    root = Path(dataset.root)
    paths = [Path(path) for path, _ in samples]
    return FolderImages(
        root,
        [path.relative_to(root).as_posix() for path in paths],
        [path.stat().st_size for path in paths],
        name=name,
        split=split,
        labels=[label for _, label in samples],
        class_names=class_names,
        flippable=flippable,
    )


def _hugging_face(name: str, root: str | None, split: str) -> ImageSet:
    failures = []
    for candidate in candidates(split):
        try:
            dataset = create(f"hfds/{name}", root, candidate)
        except DataError as error:
            if isinstance(error.__cause__, ImportError):
                raise DataError(f"hfds/{name} needs Hugging Face's library: pip install datasets.") from error
            failures.append(error)
        else:
            return ReaderImages(dataset.reader, name=name.rpartition("/")[2], source=f"hfds/{name}", split=split)
    raise failures[0]


class ReaderImages(EncodedImages):
    """Images behind a random-access reader of timm.

    Args:
        reader: has ``len()``, ``[i]`` -> (file, label), and may have ``iter_targets()`` and ``class_to_idx``.
        name, split: see ``ImageSet``.
        source: what the fingerprint calls it.
    """

    def __init__(self, reader: Any, *, name: str, source: str, split: str) -> None:
        targets = list(reader.iter_targets()) if hasattr(reader, "iter_targets") else [t for _, t in reader]
        numbers: dict[str, int] = getattr(reader, "class_to_idx", None) or {}
        plain = all(isinstance(target, int | np.integer) and target >= 0 for target in targets)
        super().__init__(
            name=name,
            split=split,
            num_samples=len(reader),
            labels=targets if plain and targets else None,
            class_names=sorted(numbers, key=numbers.__getitem__) or None,
            no_labels="its labels are not one class number each",
        )
        self._reader = reader
        self._source = source
        self._lock = threading.Lock()

    def image_name(self, i: int) -> str:
        return f"image {i}"

    def encoded(self, i: int) -> bytes:
        with self._lock:  # readers promise nothing about threads
            file, _ = self._reader[i]
        with file:
            data: bytes = file.read()
        return data

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"logitstore timm 1\n{self._source}\n{self.split}\n{self.num_samples}\n".encode())
        digest.update("\n".join(self.class_names or ()).encode())
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()
