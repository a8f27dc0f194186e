"""What a step asks of a model beside the one that learns: losses on what is inside of both.

A run has none of these unless it is asked for, see ``online``.

Shapes: B batch, C colours, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from torch import Tensor


class InnerLosses(NamedTuple):
    """Losses on what is inside of two models, scalars on the device; None where one has no weight."""

    attention: Tensor | None
    hidden: Tensor | None


InnerLoss = Callable[[Tensor, Tensor], InnerLosses]
"""From the views of a pass, uint8 [B, C, H, W], and the weights of its rows to the means over these weights."""


class Beside(Protocol):
    """A model beside the one that learns."""

    def watching(self) -> AbstractContextManager[InnerLoss]:
        """Watches one pass of the model that learns within the context; afterwards its losses can be asked for."""
