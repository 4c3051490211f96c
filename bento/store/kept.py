"""What was lately asked for, as much as agreed: the longest unasked goes first. Knows no person."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Of one event loop; `most` bounds the sizes of all values together."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._values: OrderedDict[str, tuple[Value, int]] = OrderedDict()  # with its size

    def find(self, key: str) -> Value | None:
        if (found := self._values.get(key)) is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def keep(self, key: str, value: Value, size: int) -> None:
        self.drop(key)
        self._values[key] = (value, size)
        self._size += size
        while self._size > self._most:
            self.drop(next(iter(self._values)))

    def drop(self, key: str) -> None:
        if (found := self._values.pop(key, None)) is not None:
            self._size -= found[1]

    def clear(self) -> None:
        self._values.clear()
        self._size = 0
