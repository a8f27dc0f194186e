"""A folder for one process at a time: the system holds the lock for as long as the process lives, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from logitstore.errors import InputError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of file systems that have none


def take(path: Path, *, refusal: str, make: bool = True) -> int | None:
    """Lock a file.

    Args:
        path: the file, which need hold nothing.
        refusal: what to say where another process holds it.
        make: make the file where it is missing.

    Returns:
        A descriptor; closing it lets go. None on a file system without locks.

    Raises:
        InputError: another process holds it.
    """
    file = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(file)
        raise InputError(refusal) from exc
    except OSError as exc:
        os.close(file)
        if exc.errno not in _NO_LOCKS:
            raise
        return None
    return file


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock for the length of a block; see ``take``."""
    file = take(path, refusal=refusal)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)
