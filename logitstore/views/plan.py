"""What one view will be, as kernels hand it on: ``plan``, int64, and ``operands``, float64.

``plan`` holds the crop's left, top, width and height in pixels of the image, whether it is flipped, the number of
operations, and their codes, which are their places in ``spec.OPERATIONS``. ``operands`` holds the erased rectangle's
relative height (0: none), width, top and left, and the operations' arguments.
"""

from __future__ import annotations

LEFT, TOP, WIDTH, HEIGHT, FLIP, COUNT, CODES = range(7)
OPERANDS = 4
"""Where the arguments begin in ``operands``."""
