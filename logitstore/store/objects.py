"""Where the bytes of a store lie: a small back end of named objects. ``LocalObjects`` keeps them in a folder.

Keys are ``/``-separated paths below the store. An object appears whole or not at all, and what ``put`` and ``create``
return from survives a power cut: temporary file, fsync, rename or hard link, fsync of the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from logitstore.errors import StoreError
from logitstore.store.owner import is_running, this_process

_SCRATCH_PREFIX = "tmp"
_SCRATCH_NAME = re.compile(rf"{_SCRATCH_PREFIX}\.(?P<host>\w+)\.(?P<pid>\d+)\.(?P<started>\w*)\.\w+")
_FULL = "No space left for {root}; free some and run the same command again."
_READ_ONLY = "{root} cannot be written to; change its permissions or choose another path."
_NO_FOLDER = "{root} cannot be made, since no folder can be where it should lie; choose another path."
_NO_LINKS = "The file system of {root} has no hard links, which claims need; put the store elsewhere."
_REFUSALS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.EEXIST: _NO_FOLDER,
    errno.ENOENT: _NO_FOLDER,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EPERM: _NO_LINKS,
    errno.ENOTSUP: _NO_LINKS,
    errno.ENOSYS: _NO_LINKS,
}
SILENCE_LIMIT_S = 600.0
"""After this many seconds without a sign of life an owner on another host counts as gone."""


class OpenObject:
    """An object open for reading in parts. It stays the same one if another takes its name or it is deleted.

    Read rather than mapped into memory: a file cut short by another program, or a failing disk, is an error here, where
    touching a page of a map would kill the process.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def size(self) -> int:
        """Its length in bytes."""
        return os.fstat(self._descriptor).st_size

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from ``start`` on; fewer where the object ends."""
        parts = []
        while length > 0 and (part := os.pread(self._descriptor, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class LocalObjects:
    """Objects in a folder of a local or shared POSIX file system with hard links.

    Args:
        root: the store's folder; it need not exist before the first write.
        scratch: folder below ``root`` for temporary files, so that one listing finds them all.
    """

    def __init__(self, root: str | os.PathLike[str], *, scratch: str) -> None:
        self.root = Path(root)
        self._scratch = self.root / scratch

    def get(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError where there is none."""
        return (self.root / key).read_bytes()

    def open(self, key: str) -> OpenObject:
        """The object, to be read in parts; FileNotFoundError where there is none."""
        return OpenObject(self.root / key)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return (self.root / key).is_file()

    def list(self, folder: str = "") -> list[str]:
        """Names directly inside a folder, sorted; none where there is no such folder."""
        try:
            return sorted(entry.name for entry in os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def walk(self) -> Iterator[tuple[str, int]]:
        """Key and size of every file below the root, temporary ones included."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    yield path.relative_to(self.root).as_posix(), path.stat().st_size

    def put(self, key: str, data: bytes, *, guard: Callable[[], None] | None = None) -> None:
        """Write or replace an object.

        Args:
            key: the object.
            data: its bytes.
            guard: called when everything but the final rename is done; what it raises stops the write.
        """
        with self._in_words(), self._temporary(data) as temporary:
            target = self._target(key)
            if guard is not None:
                guard()
            temporary.replace(target)
            _fsync_folder(target.parent)

    def create(self, key: str, data: bytes, *, guard: Callable[[], None] | None = None) -> bool:
        """Write an object unless it exists. Of any number of callers exactly one gets True.

        A hard link either makes the whole file appear or fails because the name is taken, also over NFS.
        """
        with self._in_words(), self._temporary(data) as temporary:
            target = self._target(key)
            if guard is not None:
                guard()
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            _fsync_folder(target.parent)
            return True

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        (self.root / key).unlink(missing_ok=True)

    def touch(self, key: str) -> bool:
        """Set an object's time to now; False where there is none any more."""
        try:
            os.utime(self.root / key)
        except FileNotFoundError:
            return False
        return True

    def silence_s(self, key: str) -> float:
        """Seconds since the object was last written or touched, by the clock of the file system that holds it."""
        with self._temporary(b"") as temporary:
            return temporary.stat().st_mtime - (self.root / key).stat().st_mtime

    def sweep(self) -> None:
        """Remove temporary files whose process is gone."""
        for path in self._scratch.glob(f"{_SCRATCH_PREFIX}.*"):
            with contextlib.suppress(FileNotFoundError):
                if self._is_orphan(path):
                    path.unlink()

    def _is_orphan(self, path: Path) -> bool:
        match = _SCRATCH_NAME.fullmatch(path.name)
        if match is None:
            return False  # not one of ours
        if match["host"] == this_process().host_digest:
            return not is_running(int(match["pid"]), match["started"])
        return self.silence_s(path.relative_to(self.root).as_posix()) > SILENCE_LIMIT_S

    def _target(self, key: str) -> Path:
        target = self.root / key
        _make_folders(target.parent)
        return target

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """A synced temporary file with the given bytes, gone afterwards whatever became of it."""
        _make_folders(self._scratch)
        me = this_process()
        name = ".".join((_SCRATCH_PREFIX, me.host_digest, str(me.pid), me.started, secrets.token_hex(8)))
        path = self._scratch / name
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """What the system refuses, said in a sentence with the way out."""
        try:
            yield
        except OSError as exc:
            if exc.errno not in _REFUSALS:
                raise
            raise StoreError(_REFUSALS[exc.errno].format(root=self.root)) from exc


def _make_folders(folder: Path) -> None:
    """Make a folder and its missing parents durably: each new name is synced in the folder above it."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
