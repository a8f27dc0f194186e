"""Which shards a process makes, and in which order, where several share a dump.

Claims alone keep two processes from the same shard; what is decided here only keeps them out of each other's way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from logitstore.errors import InputError
from logitstore.launch import Launch
from logitstore.store.claiming import Shard


@dataclass(frozen=True, kw_only=True)
class Share:
    """Every so-manieth shard: those whose number, counted over all epochs, is ``part`` modulo ``parts``."""

    part: int = 0
    """Which of the parts, from 0."""
    parts: int = 1
    """How many there are; 1 is all shards."""

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """The share that ``i/n`` means; None is everything.

        Raises:
            InputError: not two whole numbers with 0 <= i < n.
        """
        if text is None:
            return cls()
        part, slash, parts = text.partition("/")
        if not (slash and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
            raise InputError(f"--shards is I/N with 0 <= I < N, such as 0/4 for the first of four parts, got {text!r}.")
        return cls(part=int(part), parts=int(parts))

    def shards(self, epochs: range, num_shards: int) -> list[Shard]:
        """The share of these epochs, in order.

        Args:
            epochs: numbers of epochs.
            num_shards: shards in an epoch.
        """
        first, last = epochs.start * num_shards, epochs.stop * num_shards
        begin = first + (self.part - first) % self.parts
        return [divmod(number, num_shards) for number in range(begin, last, self.parts)]


def in_turn(shards: list[Shard], launch: Launch) -> list[Shard]:
    """The same shards in the order in which a process tries them: its own every so-manieth first, then the others'.

    So the processes of a launch work side by side, earlier epochs are done before later ones, and whoever is done with
    its own helps with what is left.
    """
    own = shards[launch.rank :: launch.world]
    others = [shard for turn, shard in enumerate(shards) if turn % launch.world != launch.rank]
    return own + others
