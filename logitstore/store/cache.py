"""What a reader keeps in memory: least recently used first out, bounded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Slot(Generic[Value]):
    """A value that one thread loads while others that need it wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value: Value | None = None


class Cache(Generic[Key, Value]):
    """Loaded values by key. Different keys load side by side.

    Args:
        load: makes a value that is not in the cache.
        limit: what the values may cost together; the last one used is kept in any case.
        cost: of one value.
    """

    def __init__(self, load: Callable[[Key], Value], *, limit: int, cost: Callable[[Value], int]) -> None:
        self._load, self._limit, self._cost = load, limit, cost
        self._slots: OrderedDict[Key, _Slot[Value]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def cost(self) -> int:
        """Of all values that are here now."""
        with self._lock:
            return self._total()

    def get(self, key: Key) -> Value:
        """The value, loaded if need be; what ``load`` raises is passed on and nothing is kept."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            if slot.value is not None:
                return slot.value
        with slot.lock:
            if slot.value is None:
                try:
                    slot.value = self._load(key)
                except BaseException:
                    with self._lock:
                        self._slots.pop(key, None)
                    raise
                self._trim()
        return slot.value

    def _trim(self) -> None:
        with self._lock:
            while len(self._slots) > 1 and self._total() > self._limit:
                self._slots.popitem(last=False)

    def _total(self) -> int:
        return sum(self._cost(slot.value) for slot in self._slots.values() if slot.value is not None)
