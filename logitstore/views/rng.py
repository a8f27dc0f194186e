"""Random numbers for transforms that users write: the same PCG32 as everywhere, at Python's pace.

Compiled draws do not use this class; they call ``logitstore.pcg`` directly (see ``stages``).
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any

import numpy as np

from logitstore.errors import InputError
from logitstore.pcg import pcg32_next
from logitstore.views.stages import CUSTOM, start
from logitstore.views.tables import load_tables, normal_quantile


class Rng:
    """A stream of draws that is a function of the view's seed alone.

    Args:
        seed: the view's seed, in [0, 2**32).
    """

    def __init__(self, seed: int) -> None:
        with np.errstate(over="ignore"):
            self._state, self._inc = start(np.uint64(seed), np.uint64(CUSTOM))

    def bits(self) -> int:
        """32 random bits, as an integer in [0, 2**32)."""
        with np.errstate(over="ignore"):
            self._state, bits = pcg32_next(np.uint64(self._state), np.uint64(self._inc))
        return int(bits)

    def integers(self, low: int, high: int) -> int:
        """An integer in [low, high), at most 2**31 of them; probabilities are equal to within 2**-32.

        Raises:
            InputError: the range is empty or too wide.
        """
        if not 0 < high - low <= 1 << 31:
            raise InputError(f"Rng.integers needs low < high at most 2**31 apart, got {low} and {high}.")
        return low + (self.bits() * (high - low) >> 32)

    def random(self) -> float:
        """A number in [0, 1), a multiple of 2**-32."""
        return self.bits() / 4294967296.0

    def uniform(self, low: float, high: float) -> float:
        """A number between ``low`` and ``high``."""
        return low + (high - low) * self.random()

    def normal(self, mean: float = 0.0, std: float = 1.0) -> float:
        """A normal number from the package's quantile table (within 4.4 deviations of the mean)."""
        return mean + std * float(normal_quantile(np.int64(self.bits()), load_tables().normal))

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options, each equally likely."""
        return options[self.integers(0, len(options))]

    def shuffle(self, items: MutableSequence[Any]) -> None:
        """Put the items into a random order, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = self.integers(0, last + 1)
            items[last], items[other] = items[other], items[last]
