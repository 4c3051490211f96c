"""So many at a time, the others in line: what bounds the requests under way at one target.

As a semaphore; but those of asyncio take the longer to cancel the more wait. Knows no request.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """Of one event loop; who comes first has one first."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """A place; every one that was taken is left again."""
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it came all the same
                self.leave()
            raise

    def leave(self) -> None:
        while self._waiting:
            if not (waiter := self._waiting.popleft()).done():
                waiter.set_result(None)
                return
        self._free += 1
