"""Where a view's pixels come from, when not all of the image need be decoded."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Source(Protocol):
    """An image that is asked for some of its rows: a view needs those of its crop alone."""

    @property
    def height(self) -> int:
        """Rows of the image as it is seen (after Exif's orientation)."""

    @property
    def width(self) -> int:
        """Columns of the image as it is seen."""

    def rows(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Rows [top, bottom) of the decoded image: uint8 [bottom - top, W, 3], C-contiguous, perhaps read-only.

        Others may stay undecoded. What is returned holds until the source is asked again.
        """
