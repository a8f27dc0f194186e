"""Views: what may happen to an image (``spec``), what does for one seed (``draw``), and the pixels (``render``).

Everything up to the uint8 view is a function of the image, the seed and the spec alone: integers or IEEE float64
with ``+ - * /``, square root, comparison and floor, no library's generator and no libm. Describing views needs no
numba; rendering does, so those names load when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from logitstore.views.source import Source
from logitstore.views.spec import OPERATIONS, ViewSpec, view_spec

# Not lazy: the function must take the name that its module of the same name would otherwise have here.
from logitstore.views.witness import crc32c, witness

if TYPE_CHECKING:
    from logitstore.views.centre import centre_view
    from logitstore.views.custom import check_transform
    from logitstore.views.mix import Mix
    from logitstore.views.render import Renderer
    from logitstore.views.rng import Rng

__all__ = [
    "OPERATIONS",
    "Mix",
    "Renderer",
    "Rng",
    "Source",
    "ViewSpec",
    "centre_view",
    "check_transform",
    "crc32c",
    "view_spec",
    "witness",
]

_HOMES = {
    "Mix": "mix",
    "Renderer": "render",
    "Rng": "rng",
    "centre_view": "centre",
    "check_transform": "custom",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
