"""Callers of a service at a fixed rate, in a thread of their own: an open loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import aiohttp


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request, as its caller saw it."""

    at: float  # time.monotonic() when it left
    seconds: float
    status: int  # 0: no answer
    body: Any  # of JSON, None where there is none


class OpenLoop:
    """`with OpenLoop(url, rate=100, ask=ask) as loop:` sends `rate` requests a second meanwhile.

    `ask(i)` is the path and body of the i-th one. It leaves when it is due, whether those before
    it were answered or not.
    """

    def __init__(
        self, url: str, *, rate: float, ask: Callable[[int], tuple[str, Any]], headers: Any = None
    ) -> None:
        self.seen: list[Seen] = []
        self._url, self._rate, self._ask, self._headers = url, rate, ask, headers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            aiohttp.ClientSession(
                self._url, connector=connector, timeout=timeout, headers=self._headers
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            began = time.monotonic()
            for i in itertools.count():
                if self._stop.is_set():
                    return
                await asyncio.sleep(max(0.0, began + i / self._rate - time.monotonic()))
                group.create_task(self._one(session, i))

    async def _one(self, session: aiohttp.ClientSession, number: int) -> None:
        path, body = self._ask(number)
        began = time.monotonic()
        try:
            async with session.post(path, json=body) as response:
                status, answer = response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError):
            status, answer = 0, None
        self.seen.append(
            Seen(at=began, seconds=time.monotonic() - began, status=status, body=answer)
        )
