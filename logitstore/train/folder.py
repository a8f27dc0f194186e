"""The folder of a training run: what the run is, and the state it can resume from.

A checkpoint is one file, replaced atomically, so a run that is killed at any moment finds the last whole one. It holds
tensors and plain values only and is read with ``weights_only``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from logitstore.cards import write_atomically
from logitstore.errors import InputError, MismatchError

CHECKPOINT_VERSION = 2
_ABSENT = "(not set)"


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; made when the first file is written.
        identity: everything that decides the run's result, as JSON types. A checkpoint of another identity is refused.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        self.weights = path / "model.safetensors"
        self.best_weights = path / "best.safetensors"
        self._checkpoint = path / "checkpoint.pt"
        self._description = path / "run.yaml"

    def load(self, *, fresh: bool) -> dict[str, Any] | None:
        """The state to resume from; None where there is none, or ``fresh`` says to start anew. Writes nothing.

        Raises:
            MismatchError: the folder holds a run of another configuration; both are shown where they differ.
            InputError: the checkpoint cannot be read, or the folder holds a model of something else.
        """
        if self.weights.exists() and not self._description.exists():
            raise InputError(
                f"{self.path} holds a model that no training run left there, and this run would replace it: choose "
                "another folder with --out."
            )
        if fresh or not self._checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            version, stored = state["version"], json.loads(state["identity"])
        except Exception as exc:  # torch, pickle and zipfile each raise kinds of their own
            raise InputError(
                f"The checkpoint {self._checkpoint} cannot be read ({type(exc).__name__}): start anew with --fresh, "
                "or in another folder with --out."
            ) from exc
        if version != CHECKPOINT_VERSION:
            raise MismatchError(
                f"The version of the checkpoint {self._checkpoint}",
                stored=version,
                present=CHECKPOINT_VERSION,
                remedy="Resume with the software that wrote it, or start anew with --fresh.",
            )
        if stored != self.identity:
            before, now = differences(stored, self.identity)
            raise MismatchError(
                f"The configuration of the run in {self.path}",
                stored=before,
                present=now,
                remedy="Give it a folder of its own with --out, repeat the run with its own configuration to resume "
                "it, or start anew with --fresh.",
            )
        return state

    def begin(self, *, anew: bool) -> None:
        """Make the folder and write down what the run is.

        Args:
            anew: remove what an earlier run left here, and only that.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for unfinished in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)
        if anew:
            for weights in (self.weights, self.best_weights):
                for file in (weights, weights.with_suffix(".json")):
                    file.unlink(missing_ok=True)
            for name in ("checkpoint.pt", "metrics.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        text = as_yaml(self.identity)
        write_atomically(self._description, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        whole = {"version": CHECKPOINT_VERSION, "identity": json.dumps(self.identity), **state}
        write_atomically(self._checkpoint, lambda temporary: torch.save(whole, temporary))


def as_yaml(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their order, lists on one line."""
    return yaml.safe_dump(dict(values), sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[str, str]:
    """The entries in which two configurations differ, side by side, with dotted names for nested ones."""
    before, now = _flat(stored), _flat(present)
    names = [name for name in {**before, **now} if before.get(name, _ABSENT) != now.get(name, _ABSENT)]
    sides = ((f"{name}={side.get(name, _ABSENT)}" for name in names) for side in (before, now))
    first, second = (", ".join(side) for side in sides)
    return first, second


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
