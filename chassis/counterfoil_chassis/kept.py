"""Bytes that are kept for those who ask again, bounded by what they weigh."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

OVERHEAD = 300
"""Roughly what an entry weighs beside its bytes."""


class Kept(Generic[Key, Value]):
    """Values by key; what was asked for longest ago goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._values: dict[Key, tuple[Value, int]] = {}
        self.generation = 0
        """How often everything was forgotten. Who reads something, to keep it then, looks whether this is the same."""

    def get(self, key: Key) -> Value | None:
        """Return a value that is kept."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self._values[key] = found  # the newest stand last
        return found[0]

    def put(self, key: Key, value: Value, *, size: int) -> None:
        """Keep a value of so many bytes, its key's included; one that would take most of the room is not kept."""
        size += OVERHEAD
        if size > self._most // 4:
            return
        if (old := self._values.pop(key, None)) is not None:
            self._bytes -= old[1]
        self._values[key] = (value, size)
        self._bytes += size
        while self._bytes > self._most:
            _, gone = self._values.pop(next(iter(self._values)))
            self._bytes -= gone

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._bytes = 0
        self.generation += 1
