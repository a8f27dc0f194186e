"""The journal of a search: a file of JSON lines, to which each candidate is added, and which the search goes on from.

The first line tells what is searched for and how fast the start is. After it there are two kinds of lines: a candidate
that is about to be trained, with its speed, which is taken once; and one that is done with, trained or ruled out. A
line is written at once; what a crash leaves of one at the end of the file is cut off.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from logitstore.errors import InputError, MismatchError
from logitstore.learning.folder import differences
from students.contract import Factors, Trial

JOURNAL_VERSION = 1
_SEARCH, _TIMED, _TRIAL = "search", "timed", "trial"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A candidate that is done with."""

    trial: Trial
    """What became of it."""
    accuracy: dict[str, Any] | None = None
    """``Accuracy.to_dict`` on the validation images; None where it was ruled out."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self.trial), "factors": self.trial.factors.to_dict(), "accuracy": self.accuracy}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """Back from JSON."""
        trial = {name: value for name, value in values.items() if name != "accuracy"}
        factors = Factors.from_dict(trial.pop("factors"))
        return cls(trial=Trial(factors=factors, **trial), accuracy=values["accuracy"])


class Journal:
    """The journal in a folder. One process at a time writes to it: see ``locks``.

    Args:
        path: the file; made with the first line.
        identity: what decides the search, as JSON types. A journal of another one is refused.

    Raises:
        MismatchError: it is the journal of another search; both are shown where they differ.
        InputError: it cannot be read.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        self.throughput: float | None = None
        """Of the start, in images a second; None where it was not measured yet."""
        self.entries: list[Entry] = []
        """The candidates that are done with, in their order."""
        self._timed: dict[int, tuple[Factors, float]] = {}
        if not path.exists():
            return
        whole, _, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            os.truncate(path, path.stat().st_size - len(torn))
        try:
            for line in whole.splitlines():
                self._read(json.loads(line))
        except (ValueError, KeyError, TypeError) as exc:
            if isinstance(exc, MismatchError):
                raise
            raise InputError(
                f"The journal {path} cannot be read ({type(exc).__name__}: {exc}): give another --out, or move it away "
                "to start anew."
            ) from exc

    def _read(self, line: dict[str, Any]) -> None:
        if _SEARCH in line:
            if line["version"] != JOURNAL_VERSION:
                raise ValueError(f"it has version {line['version']}, this software reads {JOURNAL_VERSION}")
            if line[_SEARCH] != self.identity:
                stored, present = differences(line[_SEARCH], self.identity)
                raise MismatchError(
                    f"The search in {self.path.parent}",
                    stored=stored,
                    present=present,
                    remedy="Give this one a folder of its own with --out, or repeat the options of the other to go on "
                    "with it.",
                )
            self.throughput = float(line["throughput"])
        elif _TIMED in line:
            self._timed[line[_TIMED]] = Factors.from_dict(line["factors"]), float(line["throughput"])
        else:
            self.entries.append(Entry.from_dict(line[_TRIAL]))

    def begin(self, throughput: float) -> None:
        """Write down what is searched for, and how many images a second the start takes."""
        self.throughput = throughput
        self._append({_SEARCH: self.identity, "version": JOURNAL_VERSION, "throughput": throughput})

    def throughput_of(self, trial: Trial) -> float | None:
        """What was measured of a candidate before; None where nothing was."""
        factors, throughput = self._timed.get(trial.number, (None, None))
        return throughput if factors == trial.factors else None

    def time(self, trial: Trial, throughput: float) -> None:
        """A candidate was measured."""
        self._timed[trial.number] = trial.factors, throughput
        self._append({_TIMED: trial.number, "factors": trial.factors.to_dict(), "throughput": throughput})

    def add(self, entry: Entry) -> None:
        """A candidate is done with."""
        self.entries.append(entry)
        self._append({_TRIAL: entry.to_dict()})

    def _append(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            if os.write(file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file)
        finally:
            os.close(file)
