"""A user's own transform: ``module:function``, called as ``f(image uint8 [H, W, 3], rng) -> view uint8 [3, S, S]``.

A transform replaces everything up to mixing. It must be a function of the image and of ``rng``
(``logitstore.views.Rng``) alone. It is imported when the user names it and at no other time: a spec that comes out of
a store's manifest renders only after the same name was given by the user.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ViewError

if TYPE_CHECKING:
    from logitstore.views.spec import ViewSpec

U8 = NDArray[np.uint8]
Transform = Callable[[U8, Any], U8]

_CHECKED_IMAGES, _CHECK_SEEDS = 8, (1, 2)

_named_by_user: dict[str, Transform] = {}


def load_transform(name: str) -> Transform:
    """Import a transform that the user named, from the Python path or the working directory.

    Raises:
        ViewError: the module does not import, or has no such function.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(import_module(module), attribute, None)
    except Exception as exc:
        raise ViewError(f"The transform {name} cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not callable(function):
        raise ViewError(f"The module {module} has no function {attribute}.")
    _named_by_user[name] = function
    return function  # type: ignore[no-any-return]


def loaded_transform(name: str) -> Transform:
    """The transform of this name, if the user named it in this process.

    Raises:
        ViewError: the user did not.
    """
    if name not in _named_by_user:
        raise ViewError(
            f"The view spec asks for the transform {name}; code is never imported on a file's word, "
            f"so name it yourself: --view {name}"
        )
    return _named_by_user[name]


def run_transform(name: str, pixels_HWC: U8, seed: int, out_3HW: U8) -> None:
    """One view by a user's transform, into ``out_3HW``.

    Raises:
        ViewError: the transform raised, or returned something else than uint8 of that shape.
    """
    from logitstore.views.rng import Rng

    if not pixels_HWC.flags.writeable:
        pixels_HWC = pixels_HWC.copy()  # many libraries take no read-only arrays
    try:
        view = loaded_transform(name)(pixels_HWC, Rng(seed))
    except ViewError:
        raise
    except Exception as exc:
        raise ViewError(f"The transform {name} raised {type(exc).__name__}: {exc}") from exc
    kind, shape = getattr(view, "dtype", type(view).__name__), getattr(view, "shape", ())
    if not isinstance(view, np.ndarray) or kind != np.uint8 or shape != out_3HW.shape:
        raise ViewError(
            f"The transform {name} returned {kind} {list(shape)}; it must return uint8 {list(out_3HW.shape)} "
            "(colour first, the height and width of --size)."
        )
    out_3HW[...] = view


def check_transform(spec: ViewSpec, images: Iterable[U8]) -> None:
    """Refuse a transform that is not a function of image and seed. A spec without one passes.

    The first few images are transformed under two seeds, then all again in the opposite order, so that state kept
    between calls shows.

    Args:
        spec: the spec that names the transform.
        images: the data set's, uint8 [H, W, 3]; asked for only where there is a transform.

    Raises:
        ViewError: two runs differ, an image was written to, or the result has another type or shape.
    """
    if spec.transform is None:
        return
    jobs = [
        (number, image, seed) for number, image in enumerate(islice(images, _CHECKED_IMAGES)) for seed in _CHECK_SEEDS
    ]
    first = [_checked_run(spec, image, seed) for _, image, seed in jobs]
    second = [_checked_run(spec, image, seed) for _, image, seed in reversed(jobs)][::-1]
    for (number, _, seed), one, other in zip(jobs, first, second, strict=True):
        if not np.array_equal(one, other):
            raise ViewError(
                f"The transform {spec.transform} gave two different views of image {number} for seed {seed}; "
                "it must draw from the rng it is handed and from nothing else, and keep nothing between calls."
            )


def _checked_run(spec: ViewSpec, image: U8, seed: int) -> U8:
    assert spec.transform is not None
    view = np.empty((3, spec.size, spec.size), np.uint8)
    handed = image.copy()
    run_transform(spec.transform, handed, seed, view)
    if not np.array_equal(handed, image):
        raise ViewError(f"The transform {spec.transform} changed the image it was handed; it must work on a copy.")
    return view
