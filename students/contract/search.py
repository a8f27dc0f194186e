"""Constrained local search: smaller candidates around the present model, those that meet both bounds, the best of them.

The bounds tighten geometrically from the start to the target. In each step candidates are drawn around the model that
the step began with, and in turn around the best one so far that meets the step's bounds; the best of all that meet
them, also of earlier steps, is what the next step begins with. Source: TinyViT, section 3.2.

What is drawn depends on the trials so far and on the generators that the search is handed, on nothing else, so a search
goes on from a list of its trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from students.contract.bounds import Bounds, tightened
from students.contract.factors import Factors
from students.contract.space import Point, Space

_RADIUS = 2
"""Notches that a candidate may lie from the bound or from its centre at first."""
_WIDEN_AFTER = 5
"""Rejected candidates of a step that widen its neighbourhood by a notch."""
_REJECTED = 20
"""So many rejected candidates for each one wanted, and a step goes on with those it has."""
_TRIES = 400
"""Draws for one candidate that was not drawn before; each twentieth widens the neighbourhood by a notch."""


class NoCandidateError(ValueError):
    """No candidate of a step meets its bounds."""


class Draws(Protocol):
    """A generator of random numbers."""

    def integers(self, low: int, high: int) -> int:
        """An integer in [low, high)."""

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options."""

    def shuffle(self, items: list[Any]) -> None:
        """Put items into a random order, in place."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate, and what became of it."""

    number: int
    """Of all candidates, from 0."""
    step: int
    """The step that drew it, from 1."""
    factors: Factors
    """What it is made of."""
    parameters: int
    """How many it has."""
    throughput: float | None = None
    """Images a second; None where its parameters ruled it out."""
    broken: str | None = None
    """The bound that ruled it out."""
    score: float | None = None
    """Its validation accuracy; None where it was ruled out."""


class Search:
    """The state of a search: its trials, and what to try next.

    Args:
        space: where candidates come from; its start is what is contracted.
        count: parameters of a model.
        throughput: of the start.
        target: the bounds of the last step.
        steps: in which the bounds tighten.
        candidates: to be scored in each step.
        draws: a generator for the candidate of each number.

    Raises:
        NoCandidateError: the smallest model of the space has too many parameters.
    """

    def __init__(
        self,
        space: Space,
        *,
        count: Callable[[Factors], int],
        throughput: float,
        target: Bounds,
        steps: int,
        candidates: int,
        draws: Callable[[int], Draws],
    ) -> None:
        self.space, self.count, self.target = space, count, target
        self.steps, self.candidates = steps, candidates
        self.start = Bounds(parameters=count(space.start), throughput=throughput)
        self.trials: list[Trial] = []
        self.step = 1
        self._draws = draws
        self._drawn = {space.point(space.start)}
        self._scored = self._rejected = 0
        self._origin = space.point(space.start)
        if (least := count(space.smallest())) > target.parameters:
            raise NoCandidateError(
                f"The smallest model there is has {least:,} parameters, more than {int(target.parameters):,}."
            )

    @property
    def bounds(self) -> Bounds:
        """Of the present step."""
        return self.bounds_of(self.step)

    def bounds_of(self, step: int) -> Bounds:
        """Of one step, numbered from 1."""
        return tightened(self.start, self.target, step, self.steps)

    def best(self, step: int) -> Trial | None:
        """The best trial of those up to a step that meet the step's bounds; of equals the one with fewer parameters."""
        bounds = self.bounds_of(step)
        meeting = [
            trial
            for trial in self.trials
            if trial.score is not None and trial.step <= step and bounds.allow(trial.parameters, trial.throughput)
        ]
        return max(meeting, key=lambda trial: (trial.score, -trial.parameters), default=None)

    def propose(self) -> Trial | None:
        """The next candidate; where it breaks the bound on parameters, it says so. None where the search is over.

        Raises:
            NoCandidateError: no candidate of the step meets its bounds.
        """
        while self.step <= self.steps:
            enough = self._scored >= self.candidates or self._rejected >= _REJECTED * self.candidates
            point = None if enough else self._draw()
            if point is None:
                self._end_step()
                continue
            factors = self.space.model(point)
            parameters = self.count(factors)
            return Trial(
                number=len(self.trials),
                step=self.step,
                factors=factors,
                parameters=parameters,
                broken=self.bounds.broken_by(parameters),
            )
        return None

    def tell(self, trial: Trial) -> None:
        """What became of the candidate that was proposed."""
        self.trials.append(trial)
        while self.step < trial.step:  # an earlier call ended steps
            self._end_step()
        self._drawn.add(self.space.point(trial.factors))
        if trial.broken is None:
            self._scored += 1
        else:
            self._rejected += 1

    def _end_step(self) -> None:
        best = self.best(self.step)
        if best is None:
            raise NoCandidateError(self._failure())
        self._origin = self.space.point(best.factors)
        self.step += 1
        self._scored = self._rejected = 0

    def _failure(self) -> str:
        bounds, drawn = self.bounds, [trial for trial in self.trials if trial.step == self.step]
        speeds = [trial.throughput for trial in drawn if trial.throughput is not None]
        many = sum(trial.throughput is None for trial in drawn)
        fastest = f"; the fastest of the others reached {max(speeds):,.4g} img/s" if speeds else ""
        return (
            f"None of {len(drawn)} candidates of step {self.step} meets its bounds ({bounds}): {many} had too "
            f"many parameters{fastest}."
        )

    def _draw(self) -> Point | None:
        """A model that was not drawn before; None where none is found."""
        number = len(self.trials)
        draws = self._draws(number)
        home = self.best(self.step)
        # Every second one lies around the best of this step; the others keep to where the step began.
        around = self._origin if home is None or number % 2 == 0 else self.space.point(home.factors)
        radius = _RADIUS + self._rejected // _WIDEN_AFTER
        for tried in range(_TRIES):
            point = self._near(around, radius + tried // 20, draws)
            if point not in self._drawn:
                return point
        return None

    def _near(self, centre: Point, radius: int, draws: Draws) -> Point:
        """A model some notches away, along some of the factors.

        Where the centre has too many parameters, notches are taken until the bound is met: in each round at most one
        more along an axis, and along one more factor. Windows and heads, which hardly have parameters, would else go
        down to nothing. Further notches lead down, too, as long as the centre is too slow, and else up or down.
        """
        bounds = self.bounds
        factors = list(self.space.factors_varied)
        draws.shuffle(factors)
        along = 1 + draws.integers(0, len(factors))
        point, rounds = centre, 0
        while self.count(self.space.model(point)) > bounds.parameters:
            below = self.space.neighbours(point, directions=(-1,))
            down = [near for factor, near in below if factor in factors[:along] and _distance(centre, near) <= rounds]
            if down:
                point = draws.choice(down)
            else:
                rounds, along = rounds + 1, along + (rounds > 0)
        directions = (-1,) if self._slow(centre) else (-1, 1)
        for _ in range(draws.integers(0 if rounds else 1, radius + 1)):
            if near := [near for _, near in self.space.neighbours(point, directions=directions)]:
                point = draws.choice(near)
        return point

    def _slow(self, point: Point) -> bool:
        """Whether a model that was tried, or the start, is slower than the step allows."""
        factors = self.space.model(point)
        known = [trial.throughput for trial in self.trials if trial.factors == factors]
        throughput = known[0] if known else self.start.throughput
        return throughput is not None and throughput < self.bounds.throughput


def carry_out(
    search: Search,
    *,
    measure: Callable[[Trial], float],
    score: Callable[[Trial], float],
    record: Callable[[Trial], None] | None = None,
) -> Trial:
    """All that is left of a search.

    Args:
        search: with the trials so far.
        measure: throughput of a candidate whose parameters meet the bound.
        score: validation accuracy of a candidate that meets both.
        record: is handed each trial when it is over.

    Returns:
        The best trial that meets the target.

    Raises:
        NoCandidateError: no candidate of a step meets its bounds.
    """
    while (trial := search.propose()) is not None:
        if trial.broken is None:
            throughput = measure(trial)
            trial = replace(trial, throughput=throughput)
            trial = replace(trial, broken=search.bounds.broken_by(trial.parameters, throughput))
        if trial.broken is None:
            trial = replace(trial, score=score(trial))
        if record is not None:
            record(trial)
        search.tell(trial)
    best = search.best(search.steps)
    assert best is not None, "each step ends with one that meets its bounds"
    return best


def _distance(one: Point, other: Point) -> int:
    """The most notches between two models along any axis."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
