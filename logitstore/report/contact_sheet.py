"""A contact sheet: pictures, each with the teacher's most probable classes as bars.

``contact_sheet`` shows replayed views. They come from the same loader that training uses, mixed with their neighbours
where mixing is on, so the sheet shows what the teacher saw. ``draw_sheet`` draws any panels. Drawing is matplotlib's,
through its objects: no window, no global figure.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitstore.drawing import require_matplotlib
from logitstore.errors import InputError
from logitstore.loader import ViewLoader
from logitstore.views import ViewSpec

if TYPE_CHECKING:
    from logitstore.images import ImageSet
    from logitstore.store import Store

COLUMNS = 6
BARS = 5
DEFAULT_VIEWS = 18
_CELL_INCHES = (1.9, 3.0)
_COLOUR, _LABEL_COLOUR = "#a6cee3", "#fdbf6f"


def contact_sheet(
    store: Store,
    images: ImageSet,
    out: str | Path,
    *,
    epoch: int = 0,
    positions: Sequence[int] | None = None,
) -> Path:
    """Draw replayed views with the teacher's top classes and write the picture.

    Args:
        store: an open store.
        images: the data set it was dumped from; another one is refused by the loader.
        out: file to write; its suffix chooses the format (``.png``, ``.pdf``, ``.svg``).
        epoch: number of the epoch, from 0.
        positions: which positions of the epoch's visit order; the first 18 when absent.

    Returns:
        the path written.

    Raises:
        InputError: matplotlib is absent, a position or the epoch does not exist, or the suffix is unknown.
        WitnessError: a view is not the one the teacher saw.
    """
    require_matplotlib()
    if positions is None:
        positions = range(min(DEFAULT_VIEWS, store.num_samples))
    outside = [position for position in positions if not 0 <= position < store.num_samples]
    if outside or not positions or not 0 <= epoch < store.num_epochs:
        raise InputError(
            f"A contact sheet of epoch {epoch}, positions {list(positions)[:8]} is asked for, but the store has epochs "
            f"0 to {store.num_epochs - 1} and positions 0 to {store.num_samples - 1}; name some of those."
        )
    teacher = store.manifest.teacher.get("name", "the teacher")
    label = "" if images.labels is None else " (orange: the label)"
    panels = list(_replay(store, images, epoch, positions))
    title = f"Views of epoch {epoch} as {teacher} saw them, and what it said{label}"
    return draw_sheet(panels, out, title=title, names=store.class_names)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture and what the teacher says of it, ready to draw."""

    title: str
    """Above the picture."""
    view_3HW: NDArray[np.uint8]
    """The picture."""
    index_K: NDArray[Any]
    """Classes, most probable first."""
    prob_K: NDArray[Any]
    """Their probabilities."""
    label: int
    """The class whose bar has another colour; -1 for none."""


def draw_sheet(panels: Sequence[Panel], out: str | Path, *, title: str, names: Sequence[str] | None) -> Path:
    """Draw panels in rows and write the picture.

    Args:
        panels: at least one.
        out: file to write; its suffix chooses the format (``.png``, ``.pdf``, ``.svg``).
        title: above all.
        names: of the classes; None shows their numbers.

    Returns:
        the path written.

    Raises:
        InputError: matplotlib is absent, or the suffix is unknown.
    """
    figure_class = require_matplotlib()
    rows = -(-len(panels) // COLUMNS)
    columns = min(COLUMNS, len(panels))
    figure = figure_class(figsize=(columns * _CELL_INCHES[0], rows * _CELL_INCHES[1]), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[2, 1] * rows)
    for axes in grid.flat:
        axes.set_axis_off()
    for cell, panel in enumerate(panels):
        row, column = divmod(cell, columns)
        _draw(grid[2 * row, column], grid[2 * row + 1, column], panel, names)
    figure.suptitle(title, fontsize=9, parse_math=False)
    path = Path(out)
    try:
        with warnings.catch_warnings():
            # A script that the font lacks is drawn as boxes; names stand in the report as well.
            warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
            figure.savefig(path, dpi=110)
    except ValueError as exc:  # an unknown suffix
        raise InputError(f"The contact sheet {path} cannot be written: {exc}; use .png, .pdf or .svg.") from exc
    return path


def _replay(store: Store, images: ImageSet, epoch: int, positions: Sequence[int]) -> Iterator[Panel]:
    spec = ViewSpec.from_dict(store.manifest.view)
    loader = ViewLoader(images, spec, store=store, batch_size=2, workers=0)
    for position in positions:
        # A view may be mixed with its neighbour, so both are made.
        even = position - position % 2
        batch = next(iter(loader.batches(epoch, even, min(even + 2, store.num_samples))))
        row = position - even
        records = batch.records
        assert records is not None, "a loader with a store gives records"
        kept = int(records.kept[row])
        title = f"sample {int(batch.sample_B[row])}"
        if batch.own_B[row] < 1:
            title += f", {batch.own_B[row]:.0%} its own"
        yield Panel(
            title=title,
            view_3HW=batch.views_BCHW[row],
            index_K=records.index[row, :kept],
            prob_K=records.prob[row, :kept],
            label=int(batch.label_B[row]),
        )


def _draw(top: Any, bottom: Any, view: Panel, names: Sequence[str] | None) -> None:
    top.imshow(view.view_3HW.transpose(1, 2, 0), interpolation="nearest")
    top.set_title(view.title, fontsize=7, parse_math=False)  # names may hold dollar signs
    bars = min(BARS, len(view.index_K))
    places = np.arange(bars)
    colours = [_LABEL_COLOUR if index == view.label else _COLOUR for index in view.index_K[:bars]]
    bottom.barh(places, view.prob_K[:bars], color=colours, height=0.85)
    bottom.set_xlim(0, 1)
    bottom.set_ylim(BARS - 0.5, -0.5)
    for place, index, prob in zip(places, view.index_K[:bars], view.prob_K[:bars], strict=True):
        name = str(names[int(index)]) if names else f"class {int(index)}"
        bottom.text(0.02, place, f"{name[:18]}  {prob:.1%}", fontsize=6, va="center", parse_math=False)
