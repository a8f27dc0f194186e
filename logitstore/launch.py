"""What started this process: torchrun (or anything that sets the same variables), or nothing.

Everything that depends on how many processes work together asks here. Imports no torch and opens no connection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from logitstore.errors import InputError, LogitStoreError, PeerError


def usable_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process among those that were started together."""

    rank: int = 0
    """Number of this process, from 0, over all machines."""
    world: int = 1
    """How many processes there are, over all machines."""
    local_rank: int = 0
    """Number of this process on its machine: the GPU that it takes."""
    local_world: int = 1
    """How many there are on this machine: what its cores are shared by."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Launch:
        """What ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE`` say; a single process without them.

        Args:
            environment: where to look; None is the process's own.

        Raises:
            InputError: they are no numbers, or contradict each other.
        """
        variables = os.environ if environment is None else environment
        if "RANK" not in variables or "WORLD_SIZE" not in variables:
            return cls()
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_world": "LOCAL_WORLD_SIZE"}
        defaults = {"local_rank": variables["RANK"], "local_world": variables["WORLD_SIZE"]}
        given = {field: variables.get(name, defaults.get(field, "")) for field, name in names.items()}
        shown = ", ".join(f"{names[field]}={value}" for field, value in given.items())
        if not all(value.isdecimal() for value in given.values()):
            raise InputError(f"{shown} are no whole numbers: unset them, or start with torchrun.")
        launch = cls(**{field: int(value) for field, value in given.items()})
        if not (launch.rank < launch.world and launch.local_rank < launch.local_world <= launch.world):
            raise InputError(f"{shown} contradict each other: unset them, or start with torchrun.")
        return launch

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @contextmanager
    def alike(self) -> Iterator[None]:
        """What is wrong within is wrong in all processes alike; the main one says so for all.

        Raises:
            PeerError: something is, and this is another process.
        """
        try:
            yield
        except LogitStoreError as error:
            if self.is_main:
                raise
            raise PeerError from error
