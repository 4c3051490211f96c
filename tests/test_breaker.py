"""When the breaker opens, and that it closes by its own probe."""

from __future__ import annotations

import asyncio

from bento.breaker import FAILURES, Breaker
from recommender.errors import Unavailable


class Server:
    """What the probe asks."""

    def __init__(self) -> None:
        self.away, self.asked = True, 0

    async def probe(self) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable("away", remedy="wait")


def test_it_opens_after_failures_in_a_row_and_closes_when_a_probe_is_answered() -> None:
    async def run() -> None:
        server = Server()
        breaker = Breaker(server.probe)
        for _ in range(FAILURES - 1):
            breaker.failed()
        breaker.succeeded()
        for _ in range(FAILURES - 1):
            breaker.failed()
        assert not breaker.open  # never as many in a row
        breaker.failed()
        assert breaker.open
        await asyncio.sleep(0.05)
        assert server.asked == 1
        assert breaker.open
        server.away = False
        async with asyncio.timeout(5):
            while breaker.open:
                await asyncio.sleep(0.01)
        for _ in range(FAILURES - 1):
            breaker.failed()
        assert not breaker.open  # it counts anew
        await breaker.close()

    asyncio.run(run())


def test_closing_it_ends_its_probe() -> None:
    async def run() -> None:
        breaker = Breaker(Server().probe)
        for _ in range(FAILURES):
            breaker.failed()
        await breaker.close()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(run())
