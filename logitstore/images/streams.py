"""Data sets of ``timm.data.create_dataset`` that can only be read once through, in their own order: ``hfids/NAME``,
``tfds/NAME``, ``wds/NAME``. They are no ``ImageSet``: a store's order needs sample number i at any time. Packing makes
one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from logitstore.errors import DataError
from logitstore.images.base import Pixels
from logitstore.images.decode import repeat_grey, upright_rgb
from logitstore.images.timm_sets import NOT_FLIPPABLE, STREAMS, candidates, create, split_name

_LIBRARIES = {"hfids": "datasets", "tfds": "tensorflow-datasets", "wds": "webdataset"}


class Stream:
    """Images and labels in an order of the stream's own, which must be the same each time.

    Args:
        pairs: gives (image, target) from the beginning each time it is iterated: a Pillow image or uint8 [H, W],
            [H, W, 1] or [H, W, 3], and a class number.
        name: what to call it; never a path.
        split: as the stream calls it.
        total: samples, where it is known.
        class_names: one name per class, or None.
        flippable: see ``ImageSet``.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[Any, Any]],
        *,
        name: str,
        split: str,
        total: int | None = None,
        class_names: list[str] | None = None,
        flippable: bool = True,
    ) -> None:
        self.name, self.split, self.total, self.class_names = name, split, total, class_names
        self.flippable = flippable
        self._pairs = pairs

    @property
    def title(self) -> str:
        """The name without what kind of stream it is."""
        return self.name.rpartition("/")[2] or "images"

    def __iter__(self) -> Iterator[tuple[Any, int | None]]:
        """Images with their labels; None for targets that are no class number.

        Raises:
            DataError: the stream breaks off.
        """
        given = 0
        try:
            for image, target in self._pairs:
                plain = isinstance(target, int | np.integer) and target >= 0
                yield image, int(target) if plain else None
                given += 1
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # of any kind: five libraries and a network
            text = " ".join(str(error).split()) or type(error).__name__
            raise DataError(
                f"{self.name} ({self.split}) broke off after {given} images ({text}): the same command goes on from "
                "the last whole shard."
            ) from error


def is_stream(data: str) -> bool:
    """Whether a data set's name is that of a stream."""
    return data.partition("/")[0].lower() in STREAMS


def open_stream(data: str, split: str) -> Stream:
    """Open ``hfids/NAME[@FOLDER]``, ``tfds/NAME[@FOLDER]`` or ``wds/NAME[@FOLDER]``.

    Args:
        data: the name; the prefix in any case.
        split: ``train`` or ``val``, or what the data set calls it: for ``wds/``, also an expression as
            ``shard-{0000..0099}.tar``.

    Raises:
        DataError: it cannot be opened.
    """
    prefix, name, root = split_name(data)
    failures: list[DataError] = []
    for candidate in candidates(split):
        try:
            reader, total = _reader(f"{prefix}/{name}", root, candidate)
            numbers: dict[str, int] = getattr(reader, "class_to_idx", None) or {}
            stream = Stream(
                reader,
                name=f"{prefix}/{Path(name).name if Path(name).is_absolute() else name}",
                split=candidate,
                total=total,
                class_names=sorted(numbers, key=numbers.__getitem__) or None,
                flippable=name.lower() not in NOT_FLIPPABLE,
            )
            if total is None:  # then a split that is not there may show only when it is read
                next(iter(stream), None)
        except DataError as error:
            if isinstance(error.__cause__, ImportError) or "install" in str(error):
                raise DataError(f"{prefix}/ needs another library: pip install {_LIBRARIES[prefix]}.") from error
            failures.append(error)
        else:
            return stream
    raise failures[0]


def _reader(name: str, root: str | None, split: str) -> tuple[Any, int | None]:
    """timm's reader, and how many samples it gives where it knows."""
    # Images as they are: turning and converting them is decided here, for all data sets alike.
    options = {"input_img_mode": ""}
    try:
        reader = create(name, root, split, **options).reader
    except DataError as error:
        if "num_samples" not in str(error):
            raise
        # It wants to be told how many there are, but only needs that in training.
        return create(name, root, split, **options, num_samples=1).reader, None
    return reader, len(reader) or None


def stream_pixels(image: Any) -> Pixels:
    """RGB pixels of what a stream gives: uint8 [H, W, 3].

    Raises:
        ValueError: it is no image.
        OSError: it does not decode.
    """
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise ValueError(f"{array.dtype} {list(array.shape)} is no image")
    return array if array.ndim == 3 and array.shape[2] == 3 else repeat_grey(array.reshape(array.shape[:2]))
