"""Maps [C, C] of values in [-1, 1] side by side: red for 1, white for 0, blue for -1.

Drawing is matplotlib's, through its objects: no window, no global figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from logitstore.drawing import require_drawing, require_matplotlib
from logitstore.report.pearson import averaged_down

LARGEST = 1_000
"""Rows and columns that are drawn; larger maps are averaged down."""
_PANEL_INCHES = 4.6


def draw_maps(maps: Mapping[str, NDArray[np.float32]], out: str | Path, *, title: str) -> Path:
    """Draw maps side by side, all on one scale, and write the picture.

    Args:
        maps: their titles and values.
        out: file to write; its suffix chooses the format.
        title: of the picture.

    Returns:
        the path written.

    Raises:
        InputError: see ``require_drawing``.
    """
    require_drawing(out)
    figure = require_matplotlib()(figsize=(_PANEL_INCHES * len(maps) + 0.8, _PANEL_INCHES + 0.8), layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, map_CC) in zip(panels, maps.items(), strict=True):
        classes = len(map_CC)
        shown = axes.imshow(
            averaged_down(map_CC, LARGEST),
            cmap="RdBu_r",
            vmin=-1,
            vmax=1,
            interpolation="nearest",
            extent=(-0.5, classes - 0.5, classes - 0.5, -0.5),
        )
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    figure.colorbar(shown, ax=list(panels), shrink=0.8).ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=10)
    path = Path(out)
    figure.savefig(path, dpi=200)
    return path
