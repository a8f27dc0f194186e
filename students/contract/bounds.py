"""The bounds on parameters and throughput, and how they tighten from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a model must keep to."""

    parameters: float = math.inf
    """The most it may have."""
    throughput: float = 0.0
    """The fewest images a second."""

    def allow(self, parameters: int, throughput: float | None) -> bool:
        """Whether a model keeps to them."""
        return parameters <= self.parameters and (throughput or 0.0) >= self.throughput

    def broken_by(self, parameters: int, throughput: float | None = None) -> str | None:
        """The bound that a model breaks, in words; None where it keeps to those that are known of it."""
        if parameters > self.parameters:
            return f"{parameters:,} parameters, more than {math.floor(self.parameters):,}"
        if throughput is not None and throughput < self.throughput:
            return f"{throughput:,.4g} img/s, fewer than {self.throughput:,.4g}"
        return None

    def __str__(self) -> str:
        parts = []
        if self.parameters < math.inf:
            parts.append(f"at most {math.floor(self.parameters):,} parameters")
        if self.throughput > 0:
            parts.append(f"at least {self.throughput:,.4g} img/s")
        return ", ".join(parts) or "none"


def tightened(start: Bounds, target: Bounds, step: int, steps: int) -> Bounds:
    """The bounds of one step: start * (target / start) ** (step / steps).

    A bound that the start keeps to does not tighten: it is the target's in each step.

    Args:
        start: parameters and throughput of the model that is contracted.
        target: the bounds of the last step.
        step: number of the step, from 1.
        steps: how many there are.
    """
    share = step / steps
    parameters, throughput = target.parameters, target.throughput
    if step < steps and parameters < start.parameters:
        parameters = start.parameters * (parameters / start.parameters) ** share
    if step < steps and throughput > start.throughput:
        throughput = start.throughput * (throughput / start.throughput) ** share
    return Bounds(parameters=parameters, throughput=throughput)
