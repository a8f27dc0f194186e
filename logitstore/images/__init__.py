"""Data sets: numbered images, their labels and class names, and a fingerprint that tells one data set from another.

What lives here: finding the images, their order, decoding to RGB pixels, checking files before a long run. What does
not: augmentation (``views``), batches and threads (``loader``). Nothing here imports torch, except timm's data sets.

===============================  ====================================================================================
``--data``                       what it is
===============================  ====================================================================================
``digits``                       scikit-learn's 1,797 handwritten digits, with a fixed split into 1,437 and 360
a folder                         images in class folders, or without any; ``train/`` and ``val/`` in it are splits
a folder that ``pack`` left      its images, in their order, with their labels; the splits that were packed
``FILE.tar``                     the same tree in one tar file
``FILE.npz``                     ``images`` uint8 [N, H, W] or [N, H, W, 3], and if there are any ``labels``,
                                 ``class_names`` (or ``label_names``)
``torch/NAME``, ``hfds/NAME``    a random-access data set of ``timm.data.create_dataset``; ``NAME@FOLDER`` says where
                                 it lies (else ``runs/data`` for ``torch/``, Hugging Face's own cache for ``hfds/``)
===============================  ====================================================================================
"""

from __future__ import annotations

from pathlib import Path

from logitstore.errors import DataError
from logitstore.images.arrays import open_digits, open_npz
from logitstore.images.base import ImageSet, match_classes, named_by_number
from logitstore.images.files import open_folder, open_tar
from logitstore.images.packed import is_packed, open_packed

__all__ = ["ImageSet", "match_classes", "named_by_number", "open_images"]

_TIMM_PREFIXES = ("torch/", "hfds/", "hfids/", "tfds/", "wds/")


def open_images(data: str, *, split: str = "train", subset: int | None = None, whole: bool = False) -> ImageSet:
    """Open a data set.

    Args:
        data: ``digits``, a folder of images or of packed ones, a ``.tar`` or ``.npz`` file, or a timm data set name.
        split: ``train`` or ``val``, or the name of another split that the data set has. A data set without splits is
            all ``train``.
        subset: keep this many samples, evenly spaced in the data set's own order and renumbered; None keeps all.
        whole: where a data set has no splits, take all of it whatever ``split`` says (for a data set that was named
            for the one purpose, as by ``--val-data``).

    Raises:
        DataError: there is no such data set or no such split in it, it is empty, or it can only be streamed.
    """
    path = Path(data).expanduser()
    if data == "digits":
        images: ImageSet = open_digits(split)
    elif is_packed(path):
        images = open_packed(path, split, whole=whole)
    elif path.is_dir():
        images = open_folder(path, split, whole=whole)
    elif path.suffix == ".npz" and path.is_file():
        images = open_npz(path, split, whole=whole)
    elif path.suffix == ".tar" and path.is_file():
        images = open_tar(path, split, whole=whole)
    elif data.lower().startswith(_TIMM_PREFIXES):
        from logitstore.images.timm_sets import open_timm

        images = open_timm(data, split)
    else:
        raise DataError(
            f"No data set at {data}: give digits, an image folder, a .npz or .tar file, or a timm name such as "
            "torch/cifar10."
        )
    return images if subset is None else images.subset(subset)
