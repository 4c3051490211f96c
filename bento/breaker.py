"""Is it worth asking Triton? A circuit breaker that lets no user wait for what is known to be away.

    closed ── FAILURES in a row, none answered ──> open ── a probe is answered ──> closed
                                                    └ a probe every PROBE_PAUSE_S

While open, requests are answered without Triton at once; the half-open state of the
pattern (Nygard, Release It!) is a probe of our own, so that no request is risked for it. Knows no
request and no model: what a probe is, its owner says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from recommender.errors import RecserveError

log = logging.getLogger("bentoml.recserve")

FAILURES = 5
PROBE_PAUSE_S = 0.2


class Breaker:
    """Of one event loop. `probe` raises RecserveError while there is no answer."""

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        return self._probing is not None

    def succeeded(self) -> None:
        """A request was answered; one that left before the breaker opened may be, too."""
        self._failures = 0

    def failed(self) -> None:
        """A request had no answer in its time."""
        self._failures += 1
        if self._failures >= FAILURES and self._probing is None:
            self._probing = asyncio.create_task(self._until_answered())

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _until_answered(self) -> None:
        log.warning("%d requests in a row had no answer: Triton is not asked for now", FAILURES)
        try:
            while True:
                try:
                    await self._probe()
                except RecserveError as error:
                    log.debug("no answer yet: %s", error)
                    await asyncio.sleep(PROBE_PAUSE_S)
                else:
                    break
        finally:
            self._failures, self._probing = 0, None
        log.info("Triton answers again")
