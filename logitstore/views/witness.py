"""Witnesses: CRC-32C over a view's pixels, kept for one position in 64 and compared while training."""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def witness(view_3HW: NDArray[np.uint8]) -> int:
    """CRC-32C of a view's bytes in C order.

    Args:
        view_3HW: the view, uint8 [3, H, W], mixed where mixing is on.

    Returns:
        The checksum, in [0, 2**32).
    """
    assert view_3HW.dtype == np.uint8
    return int(google_crc32c.value(view_3HW.tobytes(order="C")))


crc32c = witness
