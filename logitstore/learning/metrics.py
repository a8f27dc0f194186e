"""What a training run says about itself: ``metrics.jsonl`` and TensorBoard events, consistent after a resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from logitstore.cards import write_atomically

Value = int | float | str | None


class MetricsLog:
    """Appends one JSON object per line and the same numbers as TensorBoard scalars. A context manager.

    What was logged after the step from which a run resumes is dropped from both, so that no step stands there twice.

    Args:
        directory: the run's directory; ``metrics.jsonl`` and ``tensorboard/`` lie in it. None writes nothing: another
            process does.
        step: optimiser steps already done; 0 starts anew.
        tensorboard: whether to write TensorBoard events.
    """

    def __init__(self, directory: Path | None, *, step: int = 0, tensorboard: bool = True) -> None:
        self._path = None if directory is None else directory / "metrics.jsonl"
        self._events = directory / "tensorboard" if directory is not None and tensorboard else None
        self._step = step
        self._file: TextIO | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self._path is None:
            return self
        kept = [line for line in self._lines(self._path) if json.loads(line)["step"] <= self._step]
        text = "".join(line + "\n" for line in kept)
        write_atomically(self._path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        self._file = self._path.open("a", encoding="utf-8")
        if self._events is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._events), purge_step=self._step + 1 if self._step else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(self, group: str, step: int, values: Mapping[str, Value]) -> None:
        """Log values at a step.

        Args:
            group: ``train`` or ``epoch``: the first part of the TensorBoard tags.
            step: optimiser steps done.
            values: by name; those that are no numbers go into the JSON line only.
        """
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "group": group, **values}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{group}/{name}", value, step)

    def _lines(self, path: Path) -> list[str]:
        """Whole lines of an earlier part of the run; a line that a kill cut off is dropped."""
        if self._step == 0 or not path.exists():
            return []
        text = path.read_text(encoding="utf-8")
        return text[: text.rfind("\n") + 1].splitlines()
