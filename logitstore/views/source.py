"""Where a view's pixels come from, when not all of the image need be decoded."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """An image that is asked for a part of it: a view needs that of its crop alone."""

    @property
    def height(self) -> int:
        """Rows of the image as it is seen (after Exif's orientation)."""

    @property
    def width(self) -> int:
        """Columns of the image as it is seen."""

    def window(self, left: int, top: int, width: int, height: int) -> tuple[NDArray[np.uint8], int, int]:
        """A part of the decoded image that holds a box, and where the box is in it. The rest may stay undecoded.

        Args:
            left, top, width, height: the box, inside the image, in pixels.

        Returns:
            Pixels: uint8 [h, w, 3], C-contiguous, perhaps read-only, at least as large as the box; and the box's left
            and top in them.
        """
