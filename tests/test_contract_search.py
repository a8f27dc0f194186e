"""The search for a smaller model, on tables of scores: no model is trained or timed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from contract_cases import SMALL, factors_of

from logitstore.views import Rng
from students.contract import (
    Bounds,
    Factors,
    NoCandidateError,
    Search,
    Space,
    Trial,
    carry_out,
    count_parameters,
    published_name,
    tightened,
)


def all_points(space: Space) -> list[tuple[int, ...]]:
    points = itertools.product(*(range(len(axis.values)) for axis in space.axes))
    return [point for point in points if space.allows(point)]


def speed(factors: Factors) -> float:
    """A machine on which channels take time and head dimension and windows decide a little."""
    work = sum(width * depth for width, depth in zip(factors.widths, factors.depths, strict=True))
    return 1e6 / (work * (factors.mlp_ratio + factors.mbconv_ratio) + factors.head_dim + sum(factors.windows))


class Bench:
    """A search on a table of scores, which checks what it is asked."""

    def __init__(self, space: Space, score: Callable[[Factors], float], *, seed: int = 0, **options: object) -> None:
        self.score_of = score
        self.rate: Callable[[Factors], float] = speed
        self.recorded: list[Trial] = []
        self.scored: list[Trial] = []
        values: dict[str, object] = {"target": Bounds(), "steps": 4, "candidates": 6}
        values |= {"throughput": speed(space.start), "draws": lambda number: Rng(seed * 1_000_003 + number)}
        values |= {"count": lambda factors: count_parameters(factors, 10)}
        self.search = Search(space, **{**values, **options})  # type: ignore[arg-type]

    def measure(self, trial: Trial) -> float:
        assert trial.parameters <= self.search.bounds.parameters, "timed although its parameters ruled it out"
        return self.rate(trial.factors)

    def score(self, trial: Trial) -> float:
        assert self.search.bounds.broken_by(trial.parameters, trial.throughput) is None
        self.scored.append(trial)
        return self.score_of(trial.factors)

    def run(self) -> Trial:
        return carry_out(self.search, measure=self.measure, score=self.score, record=self.recorded.append)


class TestBounds:
    def test_they_tighten_geometrically_to_the_target(self) -> None:
        start, target = Bounds(parameters=16e6, throughput=100), Bounds(parameters=1e6, throughput=200)
        steps = [tightened(start, target, step, 4) for step in (1, 2, 3, 4)]
        assert [bounds.parameters for bounds in steps] == pytest.approx([8e6, 4e6, 2e6, 1e6])
        assert [bounds.throughput for bounds in steps] == pytest.approx([100 * 2 ** (step / 4) for step in range(1, 5)])
        assert steps[-1] == target

    def test_what_the_start_keeps_to_stays(self) -> None:
        start, target = Bounds(parameters=16e6, throughput=100), Bounds(parameters=2e7, throughput=50)
        assert tightened(start, target, 1, 4) == target
        assert tightened(start, Bounds(), 1, 4) == Bounds(parameters=math.inf, throughput=0)

    def test_a_bound_that_is_broken_is_told(self) -> None:
        bounds = Bounds(parameters=1000, throughput=50)
        assert bounds.broken_by(1001) == "1,001 parameters, more than 1,000"
        assert bounds.broken_by(1000, 49.5) == "49.5 img/s, fewer than 50"
        assert bounds.broken_by(1000, 50) is None and bounds.broken_by(1000) is None


class TestSearch:
    @pytest.mark.parametrize("seed", range(4))
    def test_it_finds_the_optimum_of_a_planted_table(self, seed: int) -> None:
        """Each value of each factor is worth something at random; the best model within the bounds is counted out."""
        space = Space(start=SMALL, size=32)
        rng = Rng(seed)
        worth = [[rng.random() for _ in axis.values] for axis in space.axes]

        def score(factors: Factors) -> float:
            return sum(worth[place][number] for place, number in enumerate(space.point(factors)))

        parameters, rate = 100_000, 1.5 * speed(SMALL)
        meeting = [
            model
            for model in map(space.model, all_points(space))
            if count_parameters(model, 10) <= parameters and speed(model) >= rate
        ]
        best = max(map(score, meeting))
        assert 200 < len(meeting) < len(all_points(space)) / 2, "bounds that rule something out"
        bench = Bench(space, score, seed=seed, candidates=90, target=Bounds(parameters=parameters, throughput=rate))
        found = bench.run()
        assert found.score == pytest.approx(best)
        assert len(bench.scored) <= 4 * 90 < len(meeting)
        assert found.parameters <= parameters and found.throughput is not None and found.throughput >= rate

    @pytest.mark.parametrize(("name", "parameters"), [("11m_224", 11e6), ("5m_224", 5.4e6)])
    def test_the_published_can_be_reached(self, name: str, parameters: float) -> None:
        space = Space(start=factors_of("21m_224"), size=224)
        goal = space.point(factors_of(name))

        def score(factors: Factors) -> float:
            return -sum((one - other) ** 2 for one, other in zip(space.point(factors), goal, strict=True))

        found = Bench(
            space, score, candidates=60, target=Bounds(parameters=parameters), count=lambda f: count_parameters(f, 1000)
        ).run()
        assert published_name(found.factors, "tiny_vit_21m_224", 224) == f"tinyvit_{name[:-4]}"
        assert found.score == 0

    def test_each_step_keeps_to_its_own_bounds_and_no_model_comes_twice(self) -> None:
        space = Space(start=factors_of("21m_224"), size=224)
        target = Bounds(parameters=1.5e7, throughput=2.5 * speed(space.start))
        bench = Bench(space, lambda factors: sum(factors.widths), target=target)
        best = bench.run()
        trials = bench.search.trials
        assert trials == bench.recorded and [trial.number for trial in trials] == list(range(len(trials)))
        assert len({trial.factors for trial in trials}) == len(trials)
        assert [sum(trial.step == step for trial in bench.scored) for step in (1, 2, 3, 4)] == [6, 6, 6, 6]
        for trial in trials:
            bounds = bench.search.bounds_of(trial.step)
            assert trial.broken == bounds.broken_by(trial.parameters, trial.throughput)
            assert (trial.score is None) == (trial.broken is not None)
        assert any(trial.throughput is None for trial in trials), "ruled out by parameters, untimed"
        assert any(trial.throughput is not None and trial.broken for trial in trials), "ruled out by throughput"
        assert best.score == max(trial.score for trial in trials if trial.step == 4 and trial.score is not None)

    def test_it_goes_on_from_any_trial(self) -> None:
        space = Space(start=SMALL, size=32)
        options = {"target": Bounds(parameters=90_000, throughput=1.6 * speed(SMALL)), "candidates": 4, "steps": 3}
        whole = Bench(space, lambda factors: factors.widths[3] - factors.mlp_ratio, **options)
        best = whole.run()
        for done in range(len(whole.recorded) + 1):
            again = Bench(space, whole.score_of, **options)
            for trial in whole.recorded[:done]:
                again.search.tell(trial)
            assert again.run() == best
            assert [*whole.recorded[:done], *again.recorded] == whole.recorded

    def test_other_seeds_draw_others(self) -> None:
        space = Space(start=factors_of("21m_224"), size=224)
        drawn = []
        for seed in (0, 0, 1):
            bench = Bench(space, speed, seed=seed, target=Bounds(parameters=1.1e7))
            bench.run()
            drawn.append([trial.factors for trial in bench.recorded])
        assert drawn[0] == drawn[1] != drawn[2]

    def test_it_widens_where_near_models_break_a_bound(self) -> None:
        """Only models many notches below the start are fast enough."""
        space = Space(start=SMALL, size=32)
        bench = Bench(space, speed, target=Bounds(throughput=100), steps=1, candidates=2, throughput=1.0)
        bench.rate = lambda factors: 100.0 if sum(space.point(factors)) < 9 else 1.0
        best = bench.run()
        assert sum(space.point(SMALL)) == 15, "seven notches away, where two are drawn at first"
        assert best.throughput == 100 and len(bench.scored) == 2

    def test_what_is_too_slow_is_only_made_smaller(self) -> None:
        """The best of the first step is the slowest, so around it models of the second step lie below it."""
        space = Space(start=factors_of("21m_224"), size=224)
        target = Bounds(throughput=3 * speed(space.start))
        bench = Bench(space, lambda factors: -speed(factors), target=target, steps=2, candidates=12)
        bench.run()
        begun = bench.search.best(1)
        assert begun is not None and speed(begun.factors) < target.throughput
        centre = space.point(begun.factors)
        around = [trial for trial in bench.recorded if trial.step == 2 and trial.number % 2 == 0]
        assert len(around) >= 6
        for trial in around:
            assert all(one <= other for one, other in zip(space.point(trial.factors), centre, strict=True))

    def test_a_step_goes_on_with_fewer_than_were_wanted(self) -> None:
        """One model alone is fast enough."""
        space = Space(start=SMALL, size=32)
        bench = Bench(space, speed, target=Bounds(throughput=100), steps=1, candidates=2, throughput=1.0)
        bench.rate = lambda factors: 1.0 if bench.scored else 100.0
        assert bench.run() == next(trial for trial in bench.recorded if trial.score is not None)
        assert len(bench.scored) == 1 and len(bench.recorded) == 1 + 2 * 20

    def test_where_nothing_meets_the_bounds_it_says_what_came_nearest(self) -> None:
        space = Space(start=SMALL, size=32)
        bench = Bench(space, speed, target=Bounds(parameters=100_000, throughput=100), throughput=1.0, candidates=1)
        bench.rate = lambda factors: 2.5
        with pytest.raises(NoCandidateError, match=r"None of 20 candidates of step 1 meets .* reached 2\.5 img/s\."):
            bench.run()
        assert not bench.scored

    def test_a_target_below_the_smallest_model_is_refused(self) -> None:
        with pytest.raises(NoCandidateError, match=r"smallest model there is has [\d,]+ parameters, more than 1,000\."):
            Bench(Space(start=SMALL, size=32), speed, target=Bounds(parameters=1000))

    def test_of_equals_the_smaller_one_is_the_best(self) -> None:
        bench = Bench(Space(start=SMALL, size=32), lambda factors: 0.5, target=Bounds(parameters=100_000), steps=1)
        best = bench.run()
        assert best.parameters == min(trial.parameters for trial in bench.scored)
