"""Claims: who may write what. At most one process holds a claim, and a dead one's passes to exactly one successor.

A claim is an object that only one process can create. It is never replaced. Who takes over from the holder with token
t creates ``<claim>.<t>``, again exclusively, so the holder is the end of a chain of objects that starts at the claim
itself, and two would-be successors of one holder cannot both win. The chain is deleted from its root on: once the root
is gone, nothing that still hangs on it counts, and a successor looks for the root again after it was created.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from logitstore.checksums import canonical_json
from logitstore.errors import ClaimLostError, DamagedError
from logitstore.store.commits import shard_name
from logitstore.store.layout import COMMITS
from logitstore.store.objects import SILENCE_LIMIT_S, LocalObjects
from logitstore.store.owner import Owner, this_process

HEARTBEAT_S = 20.0
"""Seconds between two signs of life of a holder."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One link of a claim's chain."""

    key: str
    token: str
    owner: Owner


class Claim:
    """A held claim: a context manager that gives it back. A daemon thread shows that the holder lives."""

    def __init__(self, objects: LocalObjects, key: str, holder: Holder, *, epoch: int = -1, shard: int = -1) -> None:
        self.epoch = epoch
        self.shard = shard
        self._objects = objects
        self._key = key
        self._holder = holder
        self._stopped = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"claim {key}", daemon=True)
        self._heart.start()

    @property
    def token(self) -> str:
        """The random name of this claim."""
        return self._holder.token

    def is_held(self) -> bool:
        """Whether nobody took this claim over, and it was not given back."""
        chain = read_chain(self._objects, self._key)
        return bool(chain) and chain[-1].token == self.token

    def check(self) -> None:
        """Raise ClaimLostError unless the claim is still held."""
        if not self.is_held():
            raise ClaimLostError(
                f"Another process took over {self._objects.root}/{self._key} while this one was silent; "
                "its work continues there, and this process may go on with another shard."
            )

    def release(self) -> None:
        """Give the claim back. A second call, or one after the claim was lost, changes nothing for others."""
        self._stopped.set()
        self._heart.join()
        chain = read_chain(self._objects, self._key)
        if chain and chain[-1].token == self.token:
            for link in chain:
                self._objects.delete(link.key)
        elif self._holder.key != self._key and self.token not in {link.token for link in chain}:
            self._objects.delete(self._holder.key)

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                self._objects.touch(self._holder.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim_key(epoch: int, shard: int) -> str:
    """Key of a shard's claim."""
    return f"{COMMITS}/{shard_name(epoch, shard)}.claim"


def acquire(
    objects: LocalObjects, key: str, *, epoch: int = -1, shard: int = -1, silence_limit_s: float = SILENCE_LIMIT_S
) -> Claim | None:
    """Take a claim that is free, or whose holder is dead or silent.

    Args:
        objects: of the store.
        key: of the claim.
        epoch: what is claimed, for the caller.
        shard: what is claimed, for the caller.
        silence_limit_s: seconds after which a holder that may still live counts as gone.

    Returns:
        The claim, or None where another process holds it or was faster.
    """
    token = secrets.token_hex(16)
    owner = this_process()
    content = canonical_json({"token": token, **asdict(owner)})
    name = key
    if not objects.create(name, content):
        chain = read_chain(objects, key)
        if not chain or not _is_gone(objects, chain[-1], silence_limit_s):
            return None
        name = f"{key}.{chain[-1].token}"
        if not objects.create(name, content):
            return None
        chain = read_chain(objects, key)
        if not chain or chain[-1].token != token:
            objects.delete(name)  # the claim was given back, root first, while we looked at what hung on it
            return None
    return Claim(objects, key, Holder(key=name, token=token, owner=owner), epoch=epoch, shard=shard)


def read_chain(objects: LocalObjects, key: str) -> list[Holder]:
    """The claim and its successive take-overs; the last one holds it. Empty where there is no claim."""
    chain: list[Holder] = []
    name = key
    while (holder := _read(objects, name)) is not None:
        chain.append(holder)
        name = f"{key}.{holder.token}"
    return chain


def sweep(objects: LocalObjects, is_done: Callable[[str], bool]) -> None:
    """Delete what dead processes left of claims on finished work.

    Args:
        objects: of the store.
        is_done: told the stem of a claim's name (``EEEE.SSSSS``), says whether its work is done.
    """
    names = objects.list(COMMITS)
    # Roots sort before what hangs on them.
    for name in names:
        stem, mark, _ = name.partition(".claim")
        if mark and (is_done(stem) or f"{stem}.claim" not in names):
            objects.delete(f"{COMMITS}/{name}")


def _read(objects: LocalObjects, key: str) -> Holder | None:
    try:
        content = json.loads(objects.get(key))
        return Holder(key=key, token=content.pop("token"), owner=Owner(**content))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise DamagedError(
            f"The claim {objects.root}/{key} cannot be read; delete it if no process is working on this store."
        ) from exc


def _is_gone(objects: LocalObjects, holder: Holder, silence_limit_s: float) -> bool:
    if holder.owner.is_dead():
        return True
    try:
        return objects.silence_s(holder.key) > silence_limit_s
    except FileNotFoundError:
        return False
