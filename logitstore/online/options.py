"""What is asked of a teacher beside the student."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from logitstore.errors import InputError
from logitstore.online.matching import Match, parse_match


@dataclass(frozen=True, kw_only=True)
class OnlineOptions:
    """A teacher in memory, and what is compared with it."""

    teacher: str
    """A name as ``load_teacher`` takes it."""
    checkpoint: str | None = None
    """Its weights; None is as for ``dump``."""
    attention_weight: float = 1.0
    """Weight of the loss on attention."""
    hidden_weight: float = 0.1
    """Weight of the loss on hidden states."""
    match: tuple[str, ...] | None = None
    """Pairs of layers, ``student:teacher``; None takes those of ``choose_match``."""

    def __post_init__(self) -> None:
        for name, value in (("attention", self.attention_weight), ("hidden", self.hidden_weight)):
            if not (isfinite(value) and value >= 0):
                raise InputError(f"--{name}-weight must be at least 0, got {value:g}.")
        if not self.attention_weight and not self.hidden_weight:
            raise InputError(
                "--attention-weight and --hidden-weight are both 0, so a teacher in memory would teach nothing: leave "
                "out --teacher-online."
            )
        if self.match is not None and not self.pairs:
            raise InputError("--match names no pair of layers: give some, as 11:23,9:21, or leave it out.")

    @property
    def pairs(self) -> Match | None:
        """The pairs of layers that were named."""
        return None if self.match is None else parse_match(self.match)


def read_online(
    teacher: str | None,
    *,
    checkpoint: str | None,
    attention_weight: float,
    hidden_weight: float,
    match: tuple[str, ...] | None,
) -> OnlineOptions | None:
    """The options together; None where no teacher is asked for.

    Raises:
        InputError: one of them is out of range, or stands there without a teacher.
    """
    if teacher is not None:
        return OnlineOptions(
            teacher=teacher,
            checkpoint=checkpoint,
            attention_weight=attention_weight,
            hidden_weight=hidden_weight,
            match=match,
        )
    for flag, given in (
        ("--teacher-checkpoint", checkpoint is not None),
        ("--attention-weight", attention_weight != OnlineOptions.attention_weight),
        ("--hidden-weight", hidden_weight != OnlineOptions.hidden_weight),
        ("--match", match is not None),
    ):
        if given:
            raise InputError(
                f"{flag} is about a teacher in memory: name it with --teacher-online, or leave {flag} out."
            )
    return None
