"""Progress of a long run, on standard error: a bar on a terminal, elsewhere a line now and then.

Library functions take ``progress: ProgressFactory | None`` and open their bars with ``start``; ``None`` is silent.
Results never go through here: standard output belongs to them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO


class Progress:
    """Counts units of work and shows the count, the rate and the time left. A context manager.

    Args:
        total: units of work of the whole run; ``None`` when unknown.
        unit: name of one unit, for the rate ("img").
        label: what is being done, at most a few words.
        done: units that an earlier run has done already; they count towards the total, not towards the rate.
        stream: where to write; default standard error.
        interval: seconds between two lines where ``stream`` is no terminal.
        quiet: show nothing.
    """

    def __init__(
        self,
        total: int | None,
        unit: str = "img",
        label: str = "",
        *,
        done: int = 0,
        stream: TextIO | None = None,
        interval: float = 10.0,
        quiet: bool = False,
    ) -> None:
        self.total = total
        self.unit = unit
        self.label = label
        self.done = done
        self._first = done
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._quiet = quiet
        self._notes: dict[str, str] = {}
        self._shown = done
        self._began = self._last_line = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._began = self._last_line = time.monotonic()
        if not self._quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total, initial=self.done, unit=self.unit, desc=self.label or None, file=self._stream,
                dynamic_ncols=True, unit_scale=False,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and self.done > self._shown:
            self._show()

    @property
    def seconds(self) -> float:
        """Seconds since the context was entered."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> float:
        """Units per second of this run; 0.0 before the first."""
        return (self.done - self._first) / max(self.seconds, 1e-9)

    def advance(self, units: int = 1, **notes: object) -> None:
        """Count ``units`` more as done.

        Args:
            units: how many.
            notes: further values to show beside the count (``loss="1.23"``); kept until replaced.
        """
        self.done += units
        self._notes.update({name: str(value) for name, value in notes.items()})
        if self._quiet:
            return
        if self._bar is not None:
            if notes:
                self._bar.set_postfix(self._notes, refresh=False)
            self._bar.update(units)
        elif time.monotonic() - self._last_line >= self._interval:
            self._show()

    def say(self, text: str) -> None:
        """Write a line of its own, without spoiling the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._write(text)

    def line(self) -> str:
        """The present state as one line, as shown where there is no terminal."""
        parts = [self.label] if self.label else []
        if self.total is None:
            parts.append(f"{self.done:,} {self.unit}")
        else:
            percent = 100 * self.done / self.total if self.total else 100.0
            parts.append(f"{self.done:,}/{self.total:,} {self.unit} ({percent:.0f}%)")
        parts.append(f"{self.rate:,.1f} {self.unit}/s")
        if self.total is not None and self.rate > 0:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        parts += [f"{name} {value}" for name, value in self._notes.items()]
        return "  ".join(parts)

    def _show(self) -> None:
        self._shown, self._last_line = self.done, time.monotonic()
        self._write(self.line())

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


ProgressFactory = Callable[[int | None, str, str], Progress]
"""What library functions take: ``(total, unit, label)`` -> ``Progress``. The class itself is one."""


def start(
    progress: ProgressFactory | None, total: int | None, unit: str, label: str = "", *, done: int = 0
) -> Progress:
    """A bar of the caller's making, or a silent one where the caller gave ``None``."""
    bar = Progress(total, unit, label, quiet=True) if progress is None else progress(total, unit, label)
    bar.done = bar._first = bar._shown = done
    return bar


def duration(seconds: float) -> str:
    """A number of seconds in words: ``"8s"``, ``"3m20s"``, ``"2h05m"``, ``"4d03h"``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"
