"""Parts of a contraction by themselves: the journal, the front, times taken in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from contract_cases import factors_of
from helpers import small_disk

from logitstore import speed
from logitstore.contract.journal import Entry, Journal
from logitstore.contract.result import parameters_of, pareto, throughput_of
from logitstore.speed import TimedModel, relative_speed
from students.contract import Trial


class TestJournal:
    def test_speeds_are_kept_for_the_same_model_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        first = Journal(path, {"seed": 0})
        assert first.throughput is None and not path.exists()
        trial = Trial(number=0, step=1, factors=factors_of("11m_224"), parameters=1)
        first.begin(50.0)
        first.time(trial, 75.0)
        again = Journal(path, {"seed": 0})
        assert (again.throughput, again.throughput_of(trial)) == (50.0, 75.0)
        assert again.throughput_of(replace(trial, factors=factors_of("5m_224"))) is None
        assert again.throughput_of(replace(trial, number=1)) is None
        entry = Entry(trial=replace(trial, throughput=75.0, score=0.5), accuracy={"top1": 10})
        again.add(entry)
        assert Journal(path, {"seed": 0}).entries == [entry]

    def test_a_torn_first_line_is_no_journal_yet(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        path.write_text('{"search": {"se')
        assert Journal(path, {}).throughput is None and path.read_bytes() == b""

    def test_a_line_that_a_full_disk_cuts_short_is_no_line(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        journal = Journal(path, {"seed": 0})
        journal.begin(50.0)
        trial = Trial(number=0, step=1, factors=factors_of("11m_224"), parameters=1, broken="a bound")
        with small_disk(path.stat().st_size + 20), pytest.raises(OSError, match="No space left"):
            journal.add(Entry(trial=trial))
        again = Journal(path, {"seed": 0})
        assert again.throughput == 50.0 and not again.entries
        again.add(Entry(trial=trial))
        assert Journal(path, {"seed": 0}).entries == [Entry(trial=trial)]


def test_the_front_is_what_nothing_beats() -> None:
    def entry(number: int, parameters: int, throughput: float, score: float) -> Entry:
        factors = factors_of("11m_224")
        return Entry(
            trial=Trial(
                number=number, step=1, factors=factors, parameters=parameters, throughput=throughput, score=score
            )
        )

    rows = [(10, 5, 0.5), (20, 5, 0.5), (20, 9, 0.4), (5, 1, 0.1), (10, 5, 0.5)]
    entries = [entry(number, *row) for number, row in enumerate(rows)]

    def front(*costs: Callable[[Entry], float]) -> list[int]:
        return [entry.trial.number for entry in pareto(entries, *costs)]

    assert front(parameters_of) == [0, 3, 4]
    assert front(throughput_of) == [0, 1, 2, 4]
    assert front(parameters_of, throughput_of) == [0, 2, 3, 4]


class Clock(TimedModel):
    """Takes the seconds that it is told, in turn."""

    def __init__(self, seconds: list[float], turns: list[TimedModel]) -> None:
        self.left, self.turns = seconds, turns

    def seconds(self) -> float:
        self.turns.append(self)
        return self.left.pop(0)


def test_what_slows_both_models_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_LEAST_PAIRS", 9)
    monkeypatch.setattr(speed, "_SECONDS_OF_PAIRS", 0.0)
    machine = [1.0, 1.0, 3.0, 8.0, 8.0, 2.0, 50.0, 1.0, 1.0]
    turns: list[TimedModel] = []
    model, reference = Clock([0.5 * slow for slow in machine], turns), Clock(machine.copy(), turns)
    assert relative_speed(model, reference) == pytest.approx(2.0)
    assert not model.left and not reference.left
    assert turns[:6] == [model, reference, reference, model, model, reference], "none is always the first"
