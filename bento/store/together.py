"""Readings of single users -> one reading of many (as `client/join.py` joins calls of Triton).

While `at_once` readings are under way, whoever comes waits, and those who wait are read together:
a busy store is asked less often and for more users, an idle one answers at once. No timer.

What one reading costs beside its rows (a turn of another thread, a round trip) is thus paid once
for many. Knows no database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bento.store.base import Person
from recommender.errors import RecserveError

MOST = 32  # users of one reading: it must not keep others waiting for long

Read = Callable[[Sequence[str], int], Awaitable[Sequence[Person]]]  # users, limit


class _Asked(NamedTuple):
    user_id: str
    limit: int
    answer: asyncio.Future[Person]


class Together:
    """Of one event loop; `read` answers a person for each user, in their order."""

    def __init__(self, read: Read, *, at_once: int) -> None:
        self._read, self._at_once = read, at_once
        self._waiting: deque[_Asked] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    async def person(self, user_id: str, *, limit: int) -> Person:
        """Raises what `read` raises."""
        loop = asyncio.get_running_loop()
        asked = _Asked(user_id, limit, loop.create_future())
        self._waiting.append(asked)
        if len(self._under_way) < self._at_once:
            # Not at once: whoever asks in this turn of the loop comes along.
            loop.call_soon(self._start)
        return await asked.answer

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < self._at_once:
            if group := self._take():
                task = asyncio.create_task(self._answer(group))
                self._under_way.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    def _take(self) -> list[_Asked]:
        """Those of one limit, longest waiting first, for whom somebody still waits."""
        group = list[_Asked]()
        while self._waiting and len(group) < MOST:
            if group and self._waiting[0].limit != group[0].limit:
                break
            if not (asked := self._waiting.popleft()).answer.done():
                group.append(asked)
        return group

    async def _answer(self, group: list[_Asked]) -> None:
        try:
            persons = await self._read([asked.user_id for asked in group], group[0].limit)
        except Exception as error:
            # What is away is away for all. Else one of them may be at fault, and fails alone.
            if len(group) > 1 and not isinstance(error, RecserveError):
                for asked in group:
                    await self._answer([asked])
                return
            for asked in group:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
        else:
            for asked, person in zip(group, persons, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(person)
