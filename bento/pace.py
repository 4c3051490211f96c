"""How fast the models answer -> how many requests may be under way and still be in time.

While requests wait, calls end one after the other, and what ends in a second is the capacity.
By Little's law (L = lambda W) as many requests as end within W may be under way: one more, and
it would wait longer than W. While nobody waits, capacity need not be known; what was found when
somebody did stays, until it turns somebody away although calls are quick. Nor is it known from
small calls: a Triton that is held up by something else takes long for few rows, and would for
many, so that to let in fewer would help nobody.

    within 150 ms, at 1,000 rows a second: 150 under way        at 60 a second: 9

Knows no HTTP and no Triton.
"""

from __future__ import annotations

from math import exp

LEAST = 8  # under way, however slow the models are
TELLING = 16  # rows of a call, on average, from which on its time is that of the rows
MEMORY_S = 0.5  # what is older counts for less and less


class Pace:
    """Of all models of a service; times are of one clock that does not jump."""

    def __init__(self, *, most: int, within_s: float) -> None:
        self.most, self.within_s = most, within_s
        self.limit = most  # requests that may be under way
        self._ended = 0.0
        self._turned_away = False
        self._forget()

    def _forget(self) -> None:
        self._since: float | None = None  # from when on somebody always waited
        self._calls = self._rows = self._seconds = 0.0

    def room(self, under_way: int) -> bool:
        """May one more come in?"""
        if under_way < self.limit:
            return True
        self._turned_away = True
        return False

    def answered(self, rows: int, began: float, ended: float, *, waiting: bool) -> None:
        """A call for `rows` requests has ended; `waiting`: others wait to leave in one."""
        before, self._ended = max(began, self._ended), ended
        if not waiting:
            self._forget()
        elif self._tells(rows, before, ended):
            fits = int(self.within_s * self._rows / self._seconds)
            self.limit = max(LEAST, min(self.most, fits))
            self._turned_away = False
        if self._turned_away and ended - began < self.within_s / 2:  # without need
            self.limit = min(self.most, self.limit + 1 + self.limit // 10)
        self._turned_away = False

    def _tells(self, rows: int, before: float, ended: float) -> bool:
        """Is the capacity known, with this call?"""
        if self._since is None:
            self._since = before
        took = ended - before
        fade = exp(-took / MEMORY_S)
        self._calls, self._rows = self._calls * fade + 1, self._rows * fade + rows
        self._seconds = self._seconds * fade + took
        # A burst that is over sooner than that says little: its first calls are small.
        return ended - self._since > self.within_s / 2 and self._rows >= TELLING * self._calls
