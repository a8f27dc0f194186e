"""What is packed: a data set with random access, or a stream that can be read once, from its beginning.

Both give jobs, one a sample and in order, that threads may do. A stream has no fingerprint before it was read, so a
digest of what it gave is kept beside each shard: when a run goes on, the samples that are packed already are read again
and must give the same digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from logitstore.errors import DecodeError
from logitstore.images import ImageSet, open_images
from logitstore.images.encoded import EncodedImages
from logitstore.images.streams import Stream, is_stream, open_stream, stream_pixels
from logitstore.loader.ordered import Job
from logitstore.pack.config import PackConfig
from logitstore.pack.encode import JPEG_HEAD, encode, packed_size
from logitstore.pack.writer import Image


class Made(NamedTuple):
    """What a job gives."""

    image: Image | None
    """What is packed; None for what did not decode, or needs not be packed again."""
    content: str = ""
    """Of a sample of a stream: what it is, for the digest."""


class _Result:
    """Where a thread leaves what it made."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make, self._made = make, Made(None)

    def run(self) -> None:
        self._made = self._make()

    def get(self) -> Made:
        return self._made


def _job(make: Callable[[], Made]) -> Job[Made]:
    result = _Result(make)
    return Job(tasks=[result.run], result=result.get)


class SetSource:
    """A data set with random access.

    Args:
        images: all of it.
        config: what is asked for.
    """

    named = True

    def __init__(self, images: ImageSet, config: PackConfig) -> None:
        part = images if config.subset is None else images.subset(config.subset)
        self._images, self._part, self._config = images, part, config
        self.total: int | None = part.num_samples
        self.identity = part.fingerprint

    def check(self, progress: Callable[[int, int], object]) -> list[str]:
        """See ``ImageSet.check``."""
        return self._part.check(progress, skip_bad=self._config.skip_bad)

    def jobs(self, done: int) -> Iterator[Job[Made]]:
        for number in range(done, self._part.num_samples):
            yield _job(partial(self._make, number * self._images.num_samples // self._part.num_samples))

    def _make(self, i: int) -> Made:
        images, config = self._images, self._config
        try:
            pixels = images.pixels(i)
            height, width = pixels.shape[:2]
            data = b""
            if isinstance(images, EncodedImages) and packed_size(height, width, config.short_side) == (height, width):
                data = bytes(images.encoded(i))
            if not data.startswith(JPEG_HEAD):
                try:
                    data, height, width = encode(pixels, short_side=config.short_side, quality=config.quality)
                except ValueError as error:
                    raise DecodeError(f"{images.image_name(i)} of {images.name} cannot be packed: {error}.") from error
        except DecodeError:
            if not config.skip_bad:
                raise
            return Made(None)
        label = None if images.labels is None else int(images.labels[i])
        return Made(Image(data, height, width, label, images.image_name(i)))

    def description(self, digest: str) -> dict[str, Any]:
        images, config = self._images, self._config
        return {
            "name": images.name,
            "class_names": None if images.class_names is None else list(images.class_names),
            "no_labels": images.no_labels,
            "flippable": images.flippable,
            "default_size": images.default_size,
            "packed": {"source": self.identity, "short_side": config.short_side, "quality": config.quality},
        }


class StreamSource:
    """A stream, read once from its beginning, in its own order.

    Args:
        stream: what is read.
        config: what is asked for.
    """

    named = False

    def __init__(self, stream: Stream, config: PackConfig) -> None:
        self._stream, self._config = stream, config
        limits = [limit for limit in (stream.total, config.subset) if limit is not None]
        self.total: int | None = min(limits, default=None)
        self.identity = f"{stream.name}, {stream.split}" + (f", first {config.subset}" if config.subset else "")

    def check(self, progress: Callable[[int, int], object]) -> list[str]:
        """Nothing: a stream shows its images when it is read."""
        return []

    def jobs(self, done: int) -> Iterator[Job[Made]]:
        for number, (image, label) in enumerate(islice(self._stream, self._config.subset)):
            yield _job(partial(self._make, number, image, label, packed=number < done))

    def _make(self, number: int, image: Any, label: int | None, *, packed: bool) -> Made:
        config = self._config
        try:
            try:
                pixels = np.ascontiguousarray(stream_pixels(image))
                content = f"{pixels.shape[0]} {pixels.shape[1]} {google_crc32c.value(pixels.tobytes()):08x} {label}"
                if packed:
                    return Made(None, content)
                data, height, width = encode(pixels, short_side=config.short_side, quality=config.quality)
            except Exception as error:  # of a dozen kinds, as Pillow's readers raise on damaged files
                raise DecodeError(
                    f"Image {number} of {self._stream.name} cannot be packed ({error}): mend it, or pass --skip-bad."
                ) from error
        except DecodeError:
            if not config.skip_bad:
                raise
            return Made(None, "bad")
        return Made(Image(data, height, width, label, None), content)

    def description(self, digest: str) -> dict[str, Any]:
        stream, config = self._stream, self._config
        return {
            "name": stream.title,
            "class_names": stream.class_names,
            "no_labels": "its labels are not one class number each",
            "flippable": stream.flippable,
            "default_size": 224,
            "packed": {"source": digest, "short_side": config.short_side, "quality": config.quality},
        }


def open_source(config: PackConfig, split: str) -> SetSource | StreamSource:
    """The data set that a configuration names.

    Args:
        config: what is asked for.
        split: the split, as the data set calls it.

    Raises:
        DataError: there is no such data set, or no such split in it.
    """
    if is_stream(config.data):
        return StreamSource(open_stream(config.data, split), config)
    return SetSource(open_images(config.data, split=split), config)


def extended(digest: str, content: str) -> str:
    """The digest of a stream that gave one sample more."""
    return hashlib.sha256(f"{digest}\n{content}".encode()).hexdigest()
