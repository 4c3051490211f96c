"""The event store as the rest of the service meets it: one user's past in time, or not at all.

    person       within a part of the request's deadline; away: the answer goes on without it
    watch        blocked items and trends, kept at hand
    impressions  what was shown, written in the background

One of a worker, whatever releases come and go. Without a store it knows nobody, and says so to
nobody: that is how the service was set up.
"""

from __future__ import annotations

import asyncio

from bento.impressions import Impressions
from bento.metrics import Metrics
from bento.store import Person, Store, connect
from bento.watch import Watch
from recommender.errors import Unavailable

PATIENCE_S = 0.1  # for one user's events, and at most half of the request's time


class Memory:
    """Made and closed inside one event loop."""

    def __init__(self, store: Store | None, metrics: Metrics) -> None:
        self.store = store
        self.watch = Watch(store, metrics.store_away)
        self.impressions = Impressions(store, metrics.impressions_dropped)

    @classmethod
    def open(cls, url: str | None, metrics: Metrics) -> Memory:
        """Raises what `connect` raises."""
        return cls(None if url is None else connect(url), metrics)

    async def person(self, user_id: str, *, limit: int, until: float) -> Person | None:
        """None without a store. Raises Unavailable where it is away, or too slow for a request
        that must be answered by `until` (the loop's clock)."""
        if self.store is None:
            return None
        if (known := self.store.at_hand(user_id, limit=limit)) is not None:
            return known
        patience = min(PATIENCE_S, (until - asyncio.get_running_loop().time()) / 2)
        try:
            async with asyncio.timeout(max(patience, 0.0)):
                return await self.store.person(user_id, limit=limit)
        except TimeoutError as error:
            raise Unavailable(
                f"the event store did not answer within {patience * 1000:.0f} ms",
                remedy="Look at its disk or server; the answer went on without it.",
            ) from error

    async def close(self) -> None:
        """Nothing that was acknowledged, and no impression, is lost if the store answers."""
        await self.watch.close()
        await self.impressions.close()
        if self.store is not None:
            await self.store.close()
