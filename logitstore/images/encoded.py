"""Data sets made of encoded images: decoding with the file's name in the message, and the check before a long run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import DataError, DecodeError
from logitstore.images.base import ImageSet, Pixels, Progress
from logitstore.images.decode import decode, ends_well
from logitstore.images.jpeg import Encoded
from logitstore.images.source import EncodedSource, ImageSource

_T = TypeVar("_T")
HEAD_BYTES, TAIL_BYTES = 16, 64
_CHECK_THREADS = 8
_CHECK_BLOCK = 256
_NAMED = 5


class EncodedImages(ImageSet):
    """A data set whose images are files, or as good as files."""

    @abstractmethod
    def encoded(self, i: int) -> Encoded:
        """The bytes of image ``i``; OSError where they cannot be read."""

    def ends(self, i: int) -> tuple[bytes, bytes, int]:
        """First and last bytes and the size of image ``i``, cheaper than all of it where that can be had."""
        data = self.encoded(i)
        return bytes(data[:HEAD_BYTES]), bytes(data[-TAIL_BYTES:]), len(data)

    def pixels(self, i: int) -> Pixels:
        return self._named(i, lambda: decode(self.encoded(i)))

    def source(self, i: int) -> ImageSource:
        data = self._named(i, lambda: self.encoded(i))
        return EncodedSource(data, lambda: self._named(i, lambda: decode(data)))

    def _named(self, i: int, step: Callable[[], _T]) -> _T:
        """What a step of reading an image gives; where it fails, the error names the image."""
        try:
            return step()
        except DecodeError:  # which says it all
            raise
        except Exception as error:  # Pillow's readers raise a dozen kinds on damaged files
            raise DecodeError(
                f"{self.image_name(i)} of {self.name} does not decode ({_reason(error)}): replace or remove the file, "
                "or pass --skip-bad."
            ) from error

    def check(self, progress: Progress | None = None, *, skip_bad: bool = False) -> list[str]:
        return check_encoded(self, np.arange(self.num_samples), progress, skip_bad=skip_bad)


def check_encoded(
    images: EncodedImages, samples: NDArray[np.int64], progress: Progress | None, *, skip_bad: bool
) -> list[str]:
    """``ImageSet.check`` of some of the samples.

    Header and trailer of each file are read; where they do not settle the matter (other formats, bytes after the end
    of a JPEG), the file is decoded.
    """
    bad: list[str] = []
    blocks = [samples[start : start + _CHECK_BLOCK] for start in range(0, len(samples), _CHECK_BLOCK)]
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        done = 0
        try:
            for block, names in zip(blocks, pool.map(lambda block: _bad_in(images, block), blocks), strict=True):
                bad += names
                done += len(block)
                if progress is not None:
                    progress(done, len(samples))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if bad and not skip_bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataError(
            f"{len(bad)} of the {len(samples)} images of {images.name} are damaged or no images: "
            f"{', '.join(bad[:_NAMED])}{more}; replace or remove them, or pass --skip-bad."
        )
    return bad


def _bad_in(images: EncodedImages, samples: Sequence[int] | NDArray[np.int64]) -> list[str]:
    return [images.image_name(int(i)) for i in samples if not _is_sound(images, int(i))]


def _is_sound(images: EncodedImages, i: int) -> bool:
    try:
        if ends_well(*images.ends(i)):
            return True
        images.pixels(i)
    except (OSError, DecodeError):
        return False
    return True


def _reason(error: Exception) -> str:
    # Pillow's "cannot identify image file <_io.BytesIO object at 0x...>" names a memory address.
    text = str(error).split(" <_io.")[0]
    return text or type(error).__name__
