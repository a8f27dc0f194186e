"""What a contraction finds, and how it is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from logitstore.contract.journal import Entry
from students.contract import Bounds, Factors


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: what candidates had to keep to, and which was the best of them."""

    number: int
    """From 1."""
    bounds: Bounds
    """On parameters and throughput."""
    trained: int
    """Candidates that were trained in this step."""
    rejected: int
    """Candidates that broke a bound."""
    best: int
    """Number of the best candidate of this and earlier steps that meets the bounds: what the next step begins with."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; a bound that there is not is null."""
        parameters, throughput = self.bounds.parameters, self.bounds.throughput
        return {
            "step": self.number,
            "max_parameters": None if parameters == math.inf else math.floor(parameters),
            "min_throughput": throughput or None,
            "trained": self.trained,
            "rejected": self.rejected,
            "best": self.best,
        }


@dataclass(frozen=True, kw_only=True)
class ContractResult:
    """All candidates, and the one that is left."""

    out: str
    """The folder of the search."""
    model: str
    """timm's name of the start."""
    data: str
    """The data set's name."""
    size: int
    """Side of the images in pixels."""
    device: str
    """What speeds were measured on."""
    start: Factors
    """What the start is made of."""
    start_parameters: int
    """How many it has."""
    start_throughput: float
    """Images a second of its forward pass."""
    steps: tuple[Step, ...]
    """In their order."""
    entries: tuple[Entry, ...]
    """All candidates, in the order in which they were drawn."""
    names: dict[int, str]
    """Candidates that are published models, by number."""
    best: Entry
    """The best candidate that meets the target."""
    checkpoint: str
    """Its weights after the short training."""
    command: str
    """How to train it in earnest."""
    picture: str | None = None
    """The picture that was drawn."""

    @property
    def trained(self) -> tuple[Entry, ...]:
        """The candidates that were trained."""
        return tuple(entry for entry in self.entries if entry.trial.score is not None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        front = self._front()
        plain = ("out", "model", "data", "size", "device", "start_parameters", "start_throughput", "checkpoint",
                 "command", "picture")  # fmt: skip
        return {
            **{name: getattr(self, name) for name in plain},
            "start": self.start.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "candidates": [
                {
                    **entry.to_dict(),
                    "name": self.names.get(entry.trial.number),
                    "front": entry.trial.number in front,
                }
                for entry in self.entries
            ],
            "best": {**self.best.to_dict(), "name": self.names.get(self.best.trial.number)},
        }

    def lines(self) -> dict[str, Any]:
        """For people: the steps, the candidates that were trained, the best one."""
        best, front = self.best.trial, self._front()
        start = f"{self.start}: {self.start_parameters:,} parameters, {self.start_throughput:,.4g} img/s"
        report: dict[str, Any] = {
            "from": f"{self.model}, {start}",
            "speed": f"forward pass at {self.size} px on {self.device}, in turns with the start",
            "steps": [
                {"step": step.number, "bounds": str(step.bounds), "trained": step.trained, "rejected": step.rejected,
                 "best": step.best}
                for step in self.steps
            ],
            "candidates": [self._row(entry, front) for entry in self.trained],
            "best": f"candidate {best.number}{self._named(best.number)}, {best.factors}",
            "parameters": f"{best.parameters:,} ({best.parameters / self.start_parameters:.1%} of the start's)",
            "throughput": f"{best.throughput:,.4g} img/s ({(best.throughput or 0) / self.start_throughput:.2f}x)",
            "accuracy": self.best.accuracy,
            "checkpoint": self.checkpoint,
            "command": self.command,
        }  # fmt: skip
        return report if self.picture is None else {**report, "picture": self.picture}

    def _front(self) -> set[int]:
        """Numbers of the candidates that none beats in accuracy, parameters and throughput at once."""
        return {entry.trial.number for entry in pareto(self.trained, parameters_of, throughput_of)}

    def _row(self, entry: Entry, front: set[int]) -> dict[str, Any]:
        trial, factors = entry.trial, entry.trial.factors
        return {
            "no": trial.number,
            "step": trial.step,
            "widths": "-".join(map(str, factors.widths)),
            "depths": "-".join(map(str, factors.depths)),
            "windows": "-".join(map(str, factors.windows)),
            "MBConv": factors.mbconv_ratio,
            "MLP": factors.mlp_ratio,
            "head": factors.head_dim,
            "parameters": trial.parameters,
            "img/s": trial.throughput,
            "top-1": trial.score,
            "front": "yes" if trial.number in front else "",
            "published": self.names.get(trial.number, ""),
        }

    def _named(self, number: int) -> str:
        return f" ({self.names[number]} as published)" if number in self.names else ""


def parameters_of(entry: Entry) -> float:
    """What is to be small."""
    return entry.trial.parameters


def throughput_of(entry: Entry) -> float:
    """What is to be large, with its sign turned."""
    return -(entry.trial.throughput or 0.0)


def pareto(entries: Sequence[Entry], *costs: Callable[[Entry], float]) -> list[Entry]:
    """The entries that no other one beats: none is at least as accurate, costs no more of anything, and is better in
    one of these."""

    def values(entry: Entry) -> tuple[float, ...]:
        return (-(entry.trial.score or 0.0), *(cost(entry) for cost in costs))

    def beaten(entry: Entry) -> bool:
        own = values(entry)
        return any(
            theirs != own and all(one <= other for one, other in zip(theirs, own, strict=True))
            for theirs in map(values, entries)
        )

    return [entry for entry in entries if not beaten(entry)]
