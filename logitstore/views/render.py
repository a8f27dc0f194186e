"""From parameters to pixels: the chain crop, flip, operations, jitter, erasing, in this order.

Kernels live in ``resize``, ``affine``, ``ops`` and ``erase``; this module decides their order and their buffers. Value
tables that follow one another are composed and applied in one pass; histograms are pushed through a table that waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ViewError
from logitstore.views import ops
from logitstore.views.affine import affine
from logitstore.views.buffers import buffers
from logitstore.views.custom import loaded_transform, run_transform
from logitstore.views.draw import Drawer, ViewParams
from logitstore.views.erase import erase, noise_tables
from logitstore.views.mix import Mix, mix_batch
from logitstore.views.resize import crop_resize
from logitstore.views.source import Source
from logitstore.views.spec import GEOMETRIC, ViewSpec
from logitstore.views.tables import load_tables, sin_degrees

U8 = NDArray[np.uint8]
Matrix = tuple[float, float, float, float, float, float]

_OUT_OF_PLACE = frozenset(GEOMETRIC) | {"SharpnessIncreasing"}

_VALUE_TABLES: dict[str, Callable[[float], U8]] = {
    "Invert": lambda argument: ops.invert_lut(),
    "PosterizeIncreasing": lambda bits: ops.posterize_lut(int(bits)),
    "SolarizeIncreasing": lambda threshold: ops.solarize_lut(int(threshold)),
    "SolarizeAdd": lambda add: ops.solarize_add_lut(int(add)),
    "BrightnessIncreasing": ops.brightness_lut,
}
_HISTOGRAM_TABLES = {"AutoContrast": ops.autocontrast_lut, "Equalize": ops.equalize_lut}


def affine_matrix(name: str, argument: float, size: int) -> Matrix:
    """Where each output pixel comes from, as Pillow's ``Image.transform`` takes it.

    Args:
        name: one of ``spec.GEOMETRIC``.
        argument: degrees counter-clockwise in [-90, 90], shear factor, or fraction of the side to move by.
        size: height and width of the view, in pixels.
    """
    if name == "Rotate":
        sine_table = load_tables().sine
        sine = float(sin_degrees(float(argument), sine_table))
        cosine = float(sin_degrees(90.0 - abs(argument), sine_table))
        centre = size / 2.0
        shift_x = cosine * -centre + -sine * -centre + centre
        shift_y = sine * -centre + cosine * -centre + centre
        return cosine, -sine, shift_x, sine, cosine, shift_y
    if name == "ShearX":
        return 1.0, argument, 0.0, 0.0, 1.0, 0.0
    if name == "ShearY":
        return 1.0, 0.0, 0.0, argument, 1.0, 0.0
    if name == "TranslateXRel":
        return 1.0, 0.0, argument * size, 0.0, 1.0, 0.0
    assert name == "TranslateYRel", name
    return 1.0, 0.0, 0.0, 0.0, 1.0, argument * size


class _Canvas:
    """A view under work: the pixels, a spare buffer, and a value table that is not applied yet."""

    def __init__(self, view: U8, spare: U8, fill: tuple[int, int, int]) -> None:
        self.view = view
        self._spare = spare
        self._fill = fill
        self._table: U8 | None = None

    def apply(self, name: str, argument: float) -> None:
        """One operation; its value table may wait until ``settle``."""
        if name in _VALUE_TABLES:
            self._push(_VALUE_TABLES[name](argument))
        elif name in _HISTOGRAM_TABLES:
            counts = ops.histogram(self.view)
            if self._table is not None:
                counts = ops.push_histogram(counts, self._table)
            self._push(_HISTOGRAM_TABLES[name](counts))
        else:
            self.settle()
            self._apply_to_pixels(name, argument)

    def settle(self) -> None:
        """Bring the pixels up to date."""
        if self._table is not None:
            ops.apply_lut(self.view, self._table)
            self._table = None

    def _push(self, table: U8) -> None:
        self._table = table if self._table is None else ops.compose_lut(self._table, table)

    def _apply_to_pixels(self, name: str, argument: float) -> None:
        if name == "ContrastIncreasing":
            self._table = ops.contrast_lut(self.view, argument)
        elif name == "ColorIncreasing":
            ops.color(self.view, argument)
        else:
            if name == "SharpnessIncreasing":
                ops.sharpness(self.view, self._spare, argument)
            else:
                affine(self.view, self._spare, affine_matrix(name, argument, self.view.shape[1]), self._fill)
            self.view, self._spare = self._spare, self.view


def _check_pixels(pixels_HWC: U8) -> None:
    if pixels_HWC.dtype != np.uint8 or pixels_HWC.ndim != 3 or pixels_HWC.shape[2] != 3 or not pixels_HWC.size:
        raise ViewError(f"An image must be uint8 [H, W, 3], got {pixels_HWC.dtype} {list(pixels_HWC.shape)}.")


class Renderer:
    """Makes views from images and seeds. Holds no state, so that threads may share one.

    Args:
        spec: what may happen to a view.
        size: height and width of the views, in pixels, where they are not the spec's: the same crops, operations and
            rectangles at another resolution.

    Raises:
        ViewError: the spec names a transform that the user did not name in this process.
    """

    def __init__(self, spec: ViewSpec, *, size: int | None = None) -> None:
        self.spec = spec if size is None else replace(spec, size=size)
        self.size = self.spec.size
        self._drawer = Drawer(spec)
        self._noise = noise_tables(spec.noise_mean, spec.noise_std) if spec.erasing_prob else None
        if spec.transform is not None:
            loaded_transform(spec.transform)

    def params(self, height: int, width: int, seed: int) -> ViewParams:
        """What this seed does to an image of this height and width; not defined for a user's own transform."""
        return self._drawer.draw(seed, height, width)

    def render(self, pixels_HWC: U8, seed: int) -> U8:
        """One view before mixing.

        Args:
            pixels_HWC: the decoded image, uint8 [H, W, 3].
            seed: the view's seed, in [0, 2**32).

        Returns:
            uint8 [3, S, S].
        """
        view = np.empty((3, self.size, self.size), np.uint8)
        self.render_into(pixels_HWC, seed, view)
        return view

    def render_into(self, pixels_HWC: U8, seed: int, out_3HW: U8) -> None:
        """One view before mixing, into memory of the caller's: uint8 [3, S, S], C-contiguous.

        Raises:
            ViewError: image or memory has another type or shape, or the user's transform failed.
        """
        _check_pixels(pixels_HWC)
        self._check_out(out_3HW)
        if self.spec.transform is not None:
            run_transform(self.spec.transform, pixels_HWC, seed, out_3HW)
            return
        pixels_HWC = np.ascontiguousarray(pixels_HWC)
        params = self.params(pixels_HWC.shape[0], pixels_HWC.shape[1], seed)
        self._paint(pixels_HWC, params.crop[:2], params, seed, out_3HW)

    def render_source(self, source: Source, seed: int, out_3HW: U8) -> None:
        """The same view as ``render_into`` makes of the whole image, asking only for what is in the crop.

        Args:
            source: the image; a user's own transform is handed all of it.
            seed: the view's seed, in [0, 2**32).
            out_3HW: uint8 [3, S, S], C-contiguous, written.

        Raises:
            ViewError: pixels or memory have another type or shape, or the user's transform failed.
        """
        width, height = source.width, source.height
        if self.spec.transform is not None:
            self.render_into(source.window(0, 0, width, height)[0], seed, out_3HW)
            return
        self._check_out(out_3HW)
        params = self.params(height, width, seed)
        left, top, crop_width, crop_height = params.crop
        pixels_HWC, x0, y0 = source.window(left, top, crop_width, crop_height)
        _check_pixels(pixels_HWC)
        rows, columns = pixels_HWC.shape[:2]
        if not (0 <= x0 <= columns - crop_width and 0 <= y0 <= rows - crop_height):
            raise ViewError(
                f"A source was asked for {crop_height} x {crop_width} pixels, and gave {rows} x {columns} where they "
                f"begin at ({y0}, {x0})."
            )
        self._paint(np.ascontiguousarray(pixels_HWC), (x0, y0), params, seed, out_3HW)

    def mix(self, views_BCHW: U8, seeds_B: NDArray[np.uint32]) -> Mix:
        """Mix the pairs (0, 1), (2, 3), ... in place, as the spec says; see ``mix``."""
        return mix_batch(self.spec, views_BCHW, seeds_B)

    def _check_out(self, out_3HW: U8) -> None:
        if out_3HW.dtype != np.uint8 or out_3HW.shape != (3, self.size, self.size) or not out_3HW.flags.c_contiguous:
            raise ViewError(
                f"A view must be C-contiguous uint8 [3, {self.size}, {self.size}], "
                f"got {out_3HW.dtype} {list(out_3HW.shape)}."
            )

    def _paint(self, pixels_HWC: U8, corner: tuple[int, int], params: ViewParams, seed: int, out: U8) -> None:
        """``corner`` is the left and the top of the crop in ``pixels_HWC``, which may be a part of the image."""
        spare: U8 = buffers.take("spare view", np.uint8, *out.shape)  # type: ignore[assignment]
        # Each of these operations changes buffers; starting in the right one, the last leaves the view in ``out``.
        if sum(name in _OUT_OF_PLACE for name, _ in params.operations) % 2:
            canvas = _Canvas(spare, out, self.spec.fill)
        else:
            canvas = _Canvas(out, spare, self.spec.fill)
        crop_resize(pixels_HWC, *corner, *params.crop[2:], params.flip, canvas.view)
        for name, argument in params.operations:
            canvas.apply(name, argument)
        canvas.settle()
        assert canvas.view is out
        if params.erased is not None:
            assert self._noise is not None
            erase(out, params.erased, seed, self._noise)
