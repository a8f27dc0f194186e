"""What every data set offers, whatever it is made of.

Shape suffixes: N samples, H height, W width, C channels (3).
"""

from __future__ import annotations

import copy
import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitstore.errors import DataError, InputError
from logitstore.images.jpeg import Pixels as Pixels
from logitstore.images.source import ImageSource

Progress = Callable[[int, int], object]

_NUMBER = re.compile(r"0|[1-9][0-9]*")


class ImageSet(ABC):
    """Samples 0..N-1 in an order of the data set's own. Safe to read from many threads.

    Args:
        name: what to call it; never a path.
        split: the split that was opened.
        num_samples: N, at least 1.
        labels: class numbers [N], or None.
        class_names: one name per class, or None.
        no_labels: why ``labels`` is None, to end a sentence with.
        flippable: whether a mirrored image still shows the same class.
        default_size: height and width of views where the user gives none, in pixels.
    """

    packing: Mapping[str, object] | None = None
    """How the images were packed (``source``, ``short_side``, ``quality``); None where they are as they came."""

    def __init__(
        self,
        *,
        name: str,
        split: str,
        num_samples: int,
        labels: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        no_labels: str = "give a data set that has labels",
        flippable: bool = True,
        default_size: int = 224,
    ) -> None:
        if num_samples < 1:
            raise DataError(f"The {split} split of {name} holds no images.")
        self.name = name
        self.split = split
        self.num_samples = num_samples
        self.labels: NDArray[np.int64] | None = None if labels is None else np.asarray(labels, np.int64)
        self.class_names = None if class_names is None else tuple(class_names)
        self.flippable = flippable
        self.default_size = default_size
        self.no_labels = no_labels

    def __len__(self) -> int:
        return self.num_samples

    @abstractmethod
    def image_name(self, i: int) -> str:
        """What to call sample ``i`` in a message: its file's name where there is one."""

    @abstractmethod
    def pixels(self, i: int) -> Pixels:
        """The decoded image, uint8 [H, W, 3], read-only.

        Raises:
            DecodeError: the image does not decode; the message names it.
        """

    def source(self, i: int) -> ImageSource:
        """The image, to be asked for a part of it; what nobody asks for may stay undecoded.

        Raises:
            DecodeError: the image does not decode; the message names it. What is found only on decoding, the source
                raises when it is asked.
        """
        return ImageSource(self.pixels(i))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, hexadecimal, of what makes this data set this one; where it lies is no part of it."""
        return self._fingerprint()

    @abstractmethod
    def _fingerprint(self) -> str: ...

    @property
    def num_classes(self) -> int | None:
        """Classes that the names, else the labels, speak of; None without either."""
        if self.class_names is not None:
            return len(self.class_names)
        return None if self.labels is None else int(self.labels.max()) + 1

    def require_labels(self, purpose: str) -> NDArray[np.int64]:
        """The labels [N].

        Args:
            purpose: what they are for, in the infinitive ("to train without a store").

        Raises:
            DataError: the data set has none.
        """
        if self.labels is None:
            raise DataError(f"{self.name} ({self.split}) has no labels {purpose}: {self.no_labels}.")
        return self.labels

    def check(self, progress: Progress | None = None, *, skip_bad: bool = False) -> list[str]:
        """Look for images that will not decode, before a long run; fast, so not exhaustive.

        Args:
            progress: called with (images looked at, N) now and then, from the calling thread.
            skip_bad: return what was found instead of raising.

        Returns:
            Names of bad images, in the data set's order; empty where images are held as arrays.

        Raises:
            DataError: there are bad images; the message names the first few.
        """
        return []

    def subset(self, count: int) -> ImageSet:
        """``count`` samples evenly spaced in the data set's order: new sample j is old sample floor(j N / count).

        Raises:
            InputError: ``count`` is below 1 or above N.
        """
        if not 1 <= count <= self.num_samples:
            raise InputError(f"A subset of {self.name} must have 1 to {self.num_samples} images, got {count}.")
        if count == self.num_samples:
            return self
        samples = np.arange(count, dtype=np.int64) * self.num_samples // count
        return _Subset(self, samples, title=f"subset {count}")

    def select(self, samples: ArrayLike) -> ImageSet:
        """Some samples, renumbered in the order given: new sample j is old sample ``samples[j]``.

        Raises:
            DataError: there are none.
        """
        chosen = np.asarray(samples, np.int64)
        return _Subset(self, chosen, title=f"selection {chosen.tolist()}")

    def relabelled(self, class_names: Sequence[str] | None, *, num_classes: int | None = None) -> ImageSet:
        """The same images with labels that number ``class_names``, matched by name.

        Where one side has no names, labels stay as they are.

        Args:
            class_names: the model's, or None where it has none.
            num_classes: how many the model has, where classes named by numbers may be its class numbers; see
                ``match_classes``.

        Raises:
            InputError: a class of the data set is not among ``class_names``.
        """
        mapping = match_classes(class_names, self.class_names, num_classes=num_classes)
        if mapping is None:
            return self
        other = copy.copy(self)
        other.class_names = tuple(class_names or map(str, range(num_classes or 0)))
        other.labels = None if self.labels is None else mapping[self.labels]
        return other

    def describe(self) -> dict[str, object]:
        """What a store's manifest says of it: count, fingerprint, class names; of packed images also how they were."""
        names = None if self.class_names is None else list(self.class_names)
        packing = {} if self.packing is None else {"packed": dict(self.packing)}
        return {"count": self.num_samples, "fingerprint": self.fingerprint, "class_names": names, **packing}


class _Subset(ImageSet):
    def __init__(self, base: ImageSet, samples: NDArray[np.int64], *, title: str) -> None:
        self._base, self._samples, self._title = base, samples, title
        self.packing = base.packing
        super().__init__(
            name=base.name,
            split=base.split,
            num_samples=len(samples),
            labels=None if base.labels is None else base.labels[self._samples],
            class_names=base.class_names,
            no_labels=base.no_labels,
            flippable=base.flippable,
            default_size=base.default_size,
        )

    def image_name(self, i: int) -> str:
        return self._base.image_name(int(self._samples[i]))

    def pixels(self, i: int) -> Pixels:
        return self._base.pixels(int(self._samples[i]))

    def source(self, i: int) -> ImageSource:
        return self._base.source(int(self._samples[i]))

    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self._title} of {self._base.fingerprint}".encode()).hexdigest()

    def check(self, progress: Progress | None = None, *, skip_bad: bool = False) -> list[str]:
        from logitstore.images.encoded import EncodedImages, check_encoded

        if isinstance(self._base, EncodedImages):
            return check_encoded(self._base, self._samples, progress, skip_bad=skip_bad)
        return []


def match_classes(
    teacher_names: Sequence[str] | None, data_names: Sequence[str] | None, *, num_classes: int | None = None
) -> NDArray[np.int64] | None:
    """The teacher's number of each class of a data set, matched by name. The teacher may know more classes.

    Args:
        teacher_names: one name per class, or None.
        data_names: those of the data set, or None.
        num_classes: the teacher's C, where data classes that are named by numbers may be the teacher's class numbers
            (see ``named_by_number``): when measuring on test sets that come so. Where something is to be learnt or
            stored, leave it None: folders may just as well be numbered for another reason.

    Returns:
        int64 array, one entry per data class; None where one side has no names and there is nothing to match.

    Raises:
        InputError: a class of the data set is unknown to the teacher, or its name stands there twice.
    """
    if num_classes is not None and named_by_number(teacher_names, data_names):
        return _numbers(data_names or (), num_classes)
    if teacher_names is None or data_names is None:
        return None
    counts = Counter(teacher_names)
    if unknown := [name for name in data_names if name not in counts]:
        raise InputError(
            f"{len(unknown)} of the data set's {len(data_names)} classes are not among the model's "
            f"{len(teacher_names)} ({_first(unknown)}; the model's begin with {_first(list(teacher_names))}): rename "
            "the class folders, take a model of these classes, or give the images without class folders."
        )
    if repeated := [name for name in data_names if counts[name] > 1]:
        raise InputError(f"The teacher has several classes called {_first(repeated)}: give its classes unique names.")
    numbers = {name: number for number, name in enumerate(teacher_names)}
    return np.array([numbers[name] for name in data_names], np.int64)


def named_by_number(teacher_names: Sequence[str] | None, data_names: Sequence[str] | None) -> bool:
    """Whether class names of a data set can be a teacher's class numbers, as in ImageNet-V2's folders 0 to 999.

    All of them are whole numbers without leading zeros, and none of the teacher's names is one.
    """
    if not data_names or not all(map(_NUMBER.fullmatch, data_names)):
        return False
    return not any(map(_NUMBER.fullmatch, teacher_names or ()))


def _numbers(data_names: Sequence[str], num_classes: int) -> NDArray[np.int64]:
    if outside := [name for name in data_names if int(name) >= num_classes]:
        raise InputError(
            f"The data set's classes are named by numbers, of which {len(outside)} ({_first(outside)}) are no class "
            f"numbers of a model whose {num_classes} classes count from 0: give a model of these classes, or rename "
            "the class folders."
        )
    return np.array([int(name) for name in data_names], np.int64)


def _first(names: list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
