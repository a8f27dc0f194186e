"""ImageNet-ReaL: the reassessed labels of ImageNet's validation images, as timm ships them.

Source: Beyer et al., "Are we done with ImageNet?" (2020). An image has any number of right classes; the prediction is
right if it is one of them, top-5 if one of them is among the first five. Images without any are left out of the count.

Labels go by the original names of the files, so the images may lie in class folders or all in one. Shape suffixes:
N images, L right classes of an image.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DataError, InputError
from logitstore.images import ImageSet, match_classes

IMAGES = 50_000
CLASSES = 1_000
_NAME = re.compile(r"ILSVRC2012_val_([0-9]{8})\.JPEG")


def real_labels(images: ImageSet) -> NDArray[np.int64]:
    """The right classes of each image, in ImageNet's order of classes.

    Args:
        images: ImageNet's validation images or some of them, under their original file names.

    Returns:
        int64 [N, L], padded with -1.

    Raises:
        DataError: a file of another name, or no image that has ReaL labels.
    """
    by_number = _shipped_labels()
    chosen = [by_number[_number(images, i) - 1] for i in range(len(images))]
    if not any(chosen):
        raise DataError(f"None of the {len(images)} images of {images.name} has ReaL labels: take more of them.")
    label_NL = np.full((len(chosen), max(map(len, chosen))), -1, np.int64)
    for row, labels in zip(label_NL, chosen, strict=True):
        row[: len(labels)] = labels
    return label_NL


def _shipped_labels() -> list[Sequence[int]]:
    """Classes of the validation images 1 to 50,000."""
    from timm.data import RealLabelsImagenet

    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, IMAGES + 1)]
    by_name = RealLabelsImagenet(names).real_labels
    return [by_name[name] for name in names]


def _number(images: ImageSet, i: int) -> int:
    """Which validation image sample ``i`` is, from 1."""
    path = images.image_name(i)
    found = _NAME.fullmatch(path.rpartition("/")[2])
    number = int(found[1]) if found else 0
    if not 1 <= number <= IMAGES:
        raise DataError(
            f"--real goes by the file names of ImageNet's validation images, ILSVRC2012_val_00000001.JPEG to "
            f"ILSVRC2012_val_{IMAGES:08d}.JPEG, but {images.name} ({images.split}) has {path}: give these images under "
            "their original names, or leave --real out."
        )
    return number


def numbered_by_model(
    label_NL: NDArray[np.int64], class_names: Sequence[str] | None, num_classes: int
) -> NDArray[np.int64]:
    """ReaL labels by a model's own class numbers.

    Args:
        label_NL: classes in ImageNet's order, padded with -1.
        class_names: the model's: WordNet ids, or numbers 0 to 999, in any order; None means ImageNet's order.
        num_classes: how many it has.

    Raises:
        InputError: the model's classes are not those of ImageNet-1k.
    """
    from timm.data import ImageNetInfo

    if num_classes != CLASSES:
        raise InputError(
            f"--real is for models of ImageNet's {CLASSES} classes, and this one has {num_classes}: leave --real out."
        )
    try:
        imagenet_of_model = match_classes(ImageNetInfo().label_names(), class_names, num_classes=CLASSES)
    except InputError as exc:
        raise InputError(
            f"--real is for models of ImageNet's classes, named by WordNet ids or by their numbers, and this one's "
            f"begin with {', '.join((class_names or ())[:5])}: leave --real out."
        ) from exc
    if imagenet_of_model is None:
        return label_NL
    model_of_imagenet = np.full(CLASSES + 1, -1, np.int64)  # the last entry is what the padding points at
    model_of_imagenet[imagenet_of_model] = np.arange(CLASSES)
    return model_of_imagenet[label_NL]
