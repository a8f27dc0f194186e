"""The models that one can be contracted to: a lattice below it, in which neighbours differ by a notch of one factor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from students.contract.factors import Factors

Point = tuple[int, ...]
"""A model of a space: for each axis, which of its values."""

_FIRST_WIDTH_NOTCH = 16
_RATIO_NOTCH = 0.5
_LEAST_RATIO = 1.0
_LEAST_HEAD, _LEAST_WINDOW = 8, 2
_STRIDES = (8, 16, 32)  # of the maps of the three attention stages


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One number among the factors, and the values it may take."""

    factor: str
    """Field of ``Factors``."""
    place: int | None
    """Place in the field where it is a tuple."""
    values: tuple[float, ...]
    """Ascending; the last one is the start's."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """All models that a start can be contracted to: no factor is larger than its own.

    Widths are multiples of the start's head dimension (the first one, which has no heads, of 16) and do not shrink from
    stage to stage; the head dimension is halved; ratios go down by a half to 1, depths by a block to 1. Windows are
    those that cut their map into so many equal parts, a pixel more or less.
    """

    start: Factors
    """The largest model."""
    size: int
    """Side of the images in pixels."""

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The dimensions of the space."""
        start = self.start
        notches = (_FIRST_WIDTH_NOTCH, *(start.head_dim,) * (len(start.widths) - 1))
        maps = [-(-self.size // stride) for stride in _STRIDES]
        lists: dict[str, list[set[float]]] = {
            "widths": [set(range(notch, width + 1, notch)) for notch, width in zip(notches, start.widths, strict=True)],
            "depths": [set(range(1, depth + 1)) for depth in start.depths],
            "windows": [_windows(side, own) for side, own in zip(maps, start.windows, strict=True)],
        }
        axes = []
        for factor, choices in lists.items():
            for place, below in enumerate(choices):
                own = getattr(start, factor)[place]
                axes.append(Axis(factor=factor, place=place, values=tuple(sorted({*below, own}))))
        for factor in ("mbconv_ratio", "mlp_ratio"):
            axes.append(Axis(factor=factor, place=None, values=_ratios(getattr(start, factor))))
        return (*axes, Axis(factor="head_dim", place=None, values=_halved(start.head_dim)))

    @property
    def factors_varied(self) -> tuple[str, ...]:
        """The factors that have more than one value here."""
        return tuple(dict.fromkeys(axis.factor for axis in self.axes if len(axis.values) > 1))

    def model(self, point: Point) -> Factors:
        """The model at a point."""
        values: dict[str, list[float]] = {}
        for axis, number in zip(self.axes, point, strict=True):
            values.setdefault(axis.factor, []).append(axis.values[number])
        single = {axis.factor for axis in self.axes if axis.place is None}
        return Factors(**{name: found[0] if name in single else tuple(found) for name, found in values.items()})  # type: ignore[arg-type]

    def point(self, factors: Factors) -> Point:
        """Where a model lies.

        Raises:
            ValueError: it lies outside the space.
        """
        found = []
        for axis in self.axes:
            value = getattr(factors, axis.factor)
            value = value if axis.place is None else value[axis.place]
            if value not in axis.values:
                place = "" if axis.place is None else f" {axis.place + 1}"
                raise ValueError(f"{axis.factor}{place} = {value:g} is not among {_shown(axis.values)}.")
            found.append(axis.values.index(value))
        if not self.allows(point := tuple(found)):
            raise ValueError(f"Widths must not shrink from stage to stage, got {factors.widths}.")
        return point

    def __contains__(self, factors: object) -> bool:
        try:
            self.point(factors)  # type: ignore[arg-type]
        except (ValueError, AttributeError):
            return False
        return True

    def allows(self, point: Point) -> bool:
        """Whether a point is a model: it lies on every axis, and widths do not shrink from stage to stage."""
        if not all(0 <= number < len(axis.values) for axis, number in zip(self.axes, point, strict=True)):
            return False
        widths = [axis.values[number] for axis, number in zip(self.axes, point, strict=True) if axis.factor == "widths"]
        return all(before <= after for before, after in pairwise(widths))

    def smallest(self) -> Factors:
        """The model with the least of everything."""
        return self.model((0,) * len(self.axes))

    def neighbours(self, point: Point, *, directions: tuple[int, ...] = (-1, 1)) -> Iterator[tuple[str, Point]]:
        """The models one notch away, with the factor that differs.

        Args:
            point: of a model.
            directions: -1 makes a factor smaller, 1 larger.
        """
        for place, axis in enumerate(self.axes):
            for direction in directions:
                near = (*point[:place], point[place] + direction, *point[place + 1 :])
                if self.allows(near):
                    yield axis.factor, near


def _windows(side: int, own: int) -> set[float]:
    """Sides of windows that cut a map into equal parts, up to the model's own."""
    return {window for parts in range(1, side + 1) if _LEAST_WINDOW <= (window := -(-side // parts)) <= own}


def _ratios(own: float) -> tuple[float, ...]:
    steps = int(max(0.0, own - _LEAST_RATIO) / _RATIO_NOTCH)
    return tuple(own - step * _RATIO_NOTCH for step in range(steps, -1, -1))


def _halved(own: int) -> tuple[float, ...]:
    values = [own]
    while values[0] % 2 == 0 and values[0] // 2 >= _LEAST_HEAD:
        values.insert(0, values[0] // 2)
    return tuple(values)


def _shown(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
