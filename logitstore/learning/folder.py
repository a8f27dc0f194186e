"""The folder of a training run: what the run is, and the state it can resume from.

A checkpoint is one file, replaced atomically, so a run that is killed at any moment finds the last whole one. It holds
tensors and plain values only and is read with ``weights_only``. A folder belongs to one process at a time: the system
holds a lock for as long as the process lives, however it ends.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from logitstore.cards import weights_path, write_atomically
from logitstore.errors import InputError, MismatchError
from logitstore.images.packed import is_packed
from logitstore.learning.runfile import as_yaml
from logitstore.locks import take

CHECKPOINT_VERSION = 2
_ABSENT = "(not set)"
_SHOWN = 8  # differing values of a configuration
_COMMANDS = {"teacher": "finetune", "student": "train"}  # by what an identity names


class RunFolder:
    """The files of one run. Close it to let another process into the folder.

    Args:
        path: the folder; made when the first file is written.
        identity: everything that decides the run's result, as JSON types. A checkpoint of another identity is refused.
        options: what repeats the run, as JSON types.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        # The recipe stands in the options, in full: once is enough.
        effective = {name: value for name, value in self.identity.items() if name != "recipe"}
        self.description = as_yaml({"options": options, "effective": effective})
        self.weights = path / "model.safetensors"
        self.best_weights = path / "best.safetensors"
        self._checkpoint = path / "checkpoint.pt"
        self._description = path / "run.yaml"
        self._lock_file = path / ".lock"
        self._lock: int | None = None
        self._loaded: tuple[int, ...] | None = None

    def load(self, *, fresh: bool) -> dict[str, Any] | None:
        """The state to resume from; None where there is none, or ``fresh`` says to start anew. Writes nothing.

        Raises:
            MismatchError: the folder holds a run of another configuration; both are shown where they differ.
            InputError: the checkpoint cannot be read, the folder is a store, or holds packed images or a model of
                something else, or another process is training in it.
        """
        if (self.path / "zarr.json").exists():
            raise InputError(f"{self.path} is a store, and a run needs a folder of its own: choose another with --out.")
        if is_packed(self.path):
            raise InputError(
                f"{self.path} holds packed images, and a run needs a folder of its own: choose another with --out."
            )
        self._take(make=False)
        self._loaded = self._stamp()
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
        self._require_same(stored)
        return state

    def _require_same(self, stored: Mapping[str, Any]) -> None:
        """Refuse to go on with the run of another identity."""
        before, now = _kind(stored), _kind(self.identity)
        if before and now and before != now:
            raise MismatchError(
                f"The kind of the run in {self.path}",
                stored=f"{before[0]}, {before[1]}={stored[before[1]]}",
                present=f"{now[0]}, {now[1]}={self.identity[now[1]]}",
                remedy="The folder holds a run of another kind: give this one its own with --out. --fresh would remove "
                "the other.",
            )
        if stored != self.identity:
            values = differences(stored, self.identity)
            raise MismatchError(
                f"The configuration of the run in {self.path}",
                stored=values[0],
                present=values[1],
                remedy="Give it a folder of its own with --out, repeat the run with its own configuration to resume "
                "it, or start anew with --fresh.",
            )

    def begin(self, *, anew: bool) -> None:
        """Make the folder and write down what the run is.

        Args:
            anew: remove what an earlier run left here, and only that.

        Raises:
            InputError: another process is training in the folder, or was since ``load``.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._take(make=True)
        if self._stamp() != self._loaded:
            raise InputError(f"Another process has trained in {self.path} just now: run the command again to go on.")
        for unfinished in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
            unfinished.unlink(missing_ok=True)
        if anew:
            for weights in (self.weights, self.best_weights):
                for file in (weights, weights.with_suffix(".json")):
                    file.unlink(missing_ok=True)
            for name in ("checkpoint.pt", "metrics.jsonl"):
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        text = self.description
        write_atomically(self._description, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self, *, make: bool) -> None:
        """Lock the folder; without ``make`` only where an earlier run left the lock's file, so nothing is written."""
        if self._lock is not None or not (make or self._lock_file.exists()):
            return
        self._lock = take(
            self._lock_file,
            make=make,
            refusal=f"Another process is training in {self.path}: wait until it ends, or choose another folder with "
            "--out.",
        )

    def _stamp(self) -> tuple[int, ...] | None:
        """Which checkpoint is there: each is a new file."""
        try:
            found = self._checkpoint.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        whole = {"version": CHECKPOINT_VERSION, "identity": json.dumps(self.identity), **state}
        write_atomically(self._checkpoint, lambda temporary: torch.save(whole, temporary))


def require_elsewhere(weights: str | Path, out: Path, *, option: str) -> None:
    """Refuse to start from weights that the run itself would replace.

    Args:
        weights: the file or the folder that the user named.
        out: the run's folder.
        option: the option it was named with.

    Raises:
        InputError: the weights lie in the run's folder.
    """
    if weights_path(weights).resolve().parent == out.resolve():
        raise InputError(f"The weights of {option} lie in {out}, which this run would replace: give another --out.")


def differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> tuple[str, str]:
    """The entries in which two configurations differ, side by side, with dotted names for nested ones; the first few,
    and how many more."""
    before, now = _flat(stored), _flat(present)
    names = [name for name in {**before, **now} if before.get(name, _ABSENT) != now.get(name, _ABSENT)]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    first, second = (
        ", ".join([*(f"{name}={side.get(name, _ABSENT)}" for name in names[:_SHOWN]), *more]) for side in (before, now)
    )
    return first, second


def _kind(identity: Mapping[str, Any]) -> tuple[str, str] | None:
    """The command that a run belongs to, and the name of what it trains."""
    return next(((command, name) for name, command in _COMMANDS.items() if name in identity), None)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
