"""The architecture of a student, where it is another than its name says."""

from __future__ import annotations

from collections.abc import Sequence

from logitstore.errors import InputError
from students import parse_arguments
from students.names import Argument


def read_architecture(student_args: Sequence[str] | None, share: int | str | None) -> dict[str, Argument]:
    """Arguments of a student's architecture by name, as ``students.build_arguments`` takes them.

    Args:
        student_args: as ``students.parse_arguments`` takes them.
        share: how many consecutive blocks share their weights, or ``all``, which is 0.

    Raises:
        InputError: one of them is no argument, or is there twice.
    """
    try:
        given = parse_arguments(student_args or ())
    except ValueError as exc:
        raise InputError(f"--student-arg: {exc}") from exc
    if share is None:
        return given
    if "share" in given:
        raise InputError("--share and --student-arg share say the same: leave one out.")
    if share != "all" and not (str(share).isdecimal() and int(share) > 0):
        raise InputError(f"--share must be a number of blocks, at least 1, or all; got {share}.")
    return {**given, "share": 0 if share == "all" else int(share)}
