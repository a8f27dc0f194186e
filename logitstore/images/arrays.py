"""Data sets held in memory: ``.npz`` files and scikit-learn's digits.

Fingerprint: SHA-256 over the shape and the bytes of the images, in order. Labels are no part of it: a store holds
what a teacher saw.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitstore.errors import DataError, SplitError
from logitstore.images.base import ImageSet, Pixels
from logitstore.images.decode import repeat_grey
from logitstore.pcg import pcg32_hash

_DIGITS_DOMAIN = 0x64696769  # "digi"
_DIGITS_VAL = 360


class ArrayImages(ImageSet):
    """Images of one shape in one array: uint8 [N, H, W] or [N, H, W, 3]; the other arguments as in ``ImageSet``."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        *,
        name: str,
        split: str,
        labels: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        flippable: bool = True,
        default_size: int = 224,
    ) -> None:
        super().__init__(
            name=name,
            split=split,
            num_samples=len(images),
            labels=labels,
            class_names=class_names,
            flippable=flippable,
            default_size=default_size,
        )
        self._images = np.ascontiguousarray(images).view()
        self._images.flags.writeable = False

    def image_name(self, i: int) -> str:
        return f"image {i}"

    def pixels(self, i: int) -> Pixels:
        image = self._images[i]
        return image if image.ndim == 3 else repeat_grey(image)

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(f"logitstore arrays 1\n{list(self._images.shape)}\n".encode())
        digest.update(self._images.data)
        return digest.hexdigest()


def open_digits(split: str) -> ArrayImages:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels: 1,437 to train, 360 to validate, in the original order."""
    from sklearn.datasets import load_digits

    data, labels = load_digits(return_X_y=True)
    values = data.reshape(-1, 8, 8).astype(np.int64)  # 0..16
    is_val = _digits_val(labels.astype(np.int64))
    if split not in ("train", "val"):
        raise SplitError(f"digits has the splits train and val, not {split}.")
    keep = is_val if split == "val" else ~is_val
    return ArrayImages(
        ((values * 255 + 8) // 16).astype(np.uint8)[keep],
        name="digits",
        split=split,
        labels=labels[keep],
        class_names=[str(digit) for digit in range(10)],
        flippable=False,
        default_size=32,
    )


def _digits_val(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which digits validate: of each class a fifth, those with the lowest hash of their number; 360 altogether.

    Where a fifth is no whole number, the classes with the largest remainders get one more, lower digits first.
    """
    counts = np.bincount(labels, minlength=10)
    shares, remainders = np.divmod(counts * _DIGITS_VAL, len(labels))
    by_remainder = np.argsort(-remainders, kind="stable")
    shares[by_remainder[: _DIGITS_VAL - shares.sum()]] += 1
    hashes = pcg32_hash(_DIGITS_DOMAIN, np.arange(len(labels)))
    is_val = np.zeros(len(labels), bool)
    for digit, share in enumerate(shares):
        members = np.flatnonzero(labels == digit)
        is_val[members[np.argsort(hashes[members], kind="stable")[:share]]] = True
    return is_val


def open_npz(path: Path, split: str, *, whole: bool) -> ArrayImages:
    """``images``, and if present ``labels`` and ``class_names`` or ``label_names``, of a ``.npz`` file."""
    if split != "train" and not whole:
        raise SplitError(f"{path} has no {split} split: name a second .npz file with --val-data.")
    arrays = _read_npz(path)
    images, labels = arrays.get("images"), arrays.get("labels")
    if images is None or images.dtype != np.uint8 or not _is_image_shape(images.shape):
        found = "no images" if images is None else f"images {images.dtype} {list(images.shape)}"
        raise DataError(f"{path} has {found}: it must have images of type uint8, [N, H, W] or [N, H, W, 3].")
    names = arrays.get("class_names", arrays.get("label_names"))
    if names is not None and names.ndim != 1:
        raise DataError(f"{path} has class names of shape {list(names.shape)}: they must be a list, a name a class.")
    class_names = None if names is None else [str(name) for name in names.tolist()]
    if labels is not None:
        _check_labels(path, labels, len(images), class_names)
    if images.shape[-1] == 1 and images.ndim == 4:
        images = images[..., 0]
    return ArrayImages(images, name=path.stem, split=split, labels=labels, class_names=class_names)


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with file:
            return {key: file[key] for key in ("images", "labels", "class_names", "label_names") if key in file}
    # RuntimeError: encrypted, or compressed by a method that Python does not know.
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # What numpy does not know it takes for a pickle, and its text advises to run it.
        problem = "it is no archive of plain arrays" if "pickle" in str(error) else error
        raise DataError(f"{path} cannot be read ({problem}): save plain arrays with numpy.savez.") from error


def _is_image_shape(shape: tuple[int, ...]) -> bool:
    return 0 not in shape[1:] and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)))


def _check_labels(path: Path, labels: NDArray[np.generic], count: int, class_names: Sequence[str] | None) -> None:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} has labels {labels.dtype} {list(labels.shape)}: they must be whole numbers, one for each of the "
            f"{count} images."
        )
    if count == 0:  # which has a message of its own
        return
    low, high = int(labels.min()), int(labels.max())  # type: ignore[call-overload]
    if low < 0 or (class_names is not None and high >= len(class_names)):
        bound = "" if class_names is None else f" and below {len(class_names)}, the number of class names"
        raise DataError(f"{path} has labels from {low} to {high}: they must be at least 0{bound}.")
