"""From images and seeds to views: what is drawn (``draw``) is painted (``paint``), or a user's own transform runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import ViewError
from logitstore.views.buffers import flat, with_arena
from logitstore.views.custom import loaded_transform, run_transform
from logitstore.views.draw import Drawer, ViewParams
from logitstore.views.erase import noise_tables
from logitstore.views.mix import Mix, mix_batch
from logitstore.views.paint import paint
from logitstore.views.plan import HEIGHT, LEFT, TOP
from logitstore.views.source import Source
from logitstore.views.spec import ViewSpec
from logitstore.views.tables import load_tables

U8 = NDArray[np.uint8]


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
        erases = spec.erasing_prob > 0
        self._noise = noise_tables(spec.noise_mean, spec.noise_std) if erases else np.empty((3, 0), np.uint8)
        self._fill, self._sine = np.array(spec.fill, np.uint8), load_tables().sine
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
        plan, operands = self._drawer.plan(seed, *pixels_HWC.shape[:2])
        self._paint(pixels_HWC, (int(plan[LEFT]), int(plan[TOP])), (plan, operands), seed, out_3HW)

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
        plan, operands = self._drawer.plan(seed, height, width)
        left, top, crop_width, crop_height = plan[: HEIGHT + 1].tolist()
        pixels_HWC, x0, y0 = source.window(left, top, crop_width, crop_height)
        _check_pixels(pixels_HWC)
        rows, columns = pixels_HWC.shape[:2]
        if not (0 <= x0 <= columns - crop_width and 0 <= y0 <= rows - crop_height):
            raise ViewError(
                f"A source was asked for {crop_height} x {crop_width} pixels, and gave {rows} x {columns} where they "
                f"begin at ({y0}, {x0})."
            )
        self._paint(np.ascontiguousarray(pixels_HWC), (x0, y0), (plan, operands), seed, out_3HW)

    def mix(self, views_BCHW: U8, seeds_B: NDArray[np.uint32]) -> Mix:
        """Mix the pairs (0, 1), (2, 3), ... in place, as the spec says; see ``mix``."""
        return mix_batch(self.spec, views_BCHW, seeds_B)

    def _check_out(self, out_3HW: U8) -> None:
        if out_3HW.dtype != np.uint8 or out_3HW.shape != (3, self.size, self.size) or not out_3HW.flags.c_contiguous:
            raise ViewError(
                f"A view must be C-contiguous uint8 [3, {self.size}, {self.size}], "
                f"got {out_3HW.dtype} {list(out_3HW.shape)}."
            )

    def _paint(
        self,
        pixels_HWC: U8,
        corner: tuple[int, int],
        plan: tuple[NDArray[np.int64], NDArray[np.float64]],
        seed: int,
        out_3HW: U8,
    ) -> None:
        """``corner`` is the left and the top of the crop in ``pixels_HWC``, which may be a part of the image."""
        with_arena(
            paint, flat(pixels_HWC), 3 * pixels_HWC.shape[1], *corner, *plan, self.size, self._fill, self._noise,
            np.uint64(seed), self._sine, out_3HW.reshape(-1),
        )  # fmt: skip
