"""Whether pictures can be drawn. Drawing is matplotlib's, through its objects: no window, no global figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logitstore.errors import InputError

_SUFFIXES = (".png", ".pdf", ".svg")


def require_matplotlib() -> Any:
    """matplotlib's ``Figure``.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise InputError(
            "A picture needs matplotlib, which is not installed; run: pip install 'logitstore[report]'."
        ) from exc
    return Figure


def require_drawing(out: str | Path) -> None:
    """Refuse, before any work is done, a picture that could not be drawn.

    Raises:
        InputError: matplotlib is absent, the suffix is unknown, or there is no such folder.
    """
    require_matplotlib()
    path = Path(out)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"The picture {path} must end in .png, .pdf or .svg.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} for the picture {path.name}: make it first.")
