"""What the store says of items, kept at hand: what is blocked, and what is wanted now.

Asked again every PAUSE_S, so a block of another replica takes effect within a second; while
the store is away the last answer stands. A worker that has just started waits for its first
one, FIRST_S at most, before it calls itself ready. A `Standing` is the same in the indexes of
one release. Knows no user and no request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from weakref import WeakSet

import numpy as np

from bento.prometheus import Gauge
from bento.store import Blocked, Store
from recommender.acts import ActRules
from recommender.contract import Array
from recommender.errors import RecserveError
from recommender.release import Release

log = logging.getLogger("bentoml.recserve")

PAUSE_S = 0.5
FIRST_S = 10.0  # what is blocked must not be shown; but a store that stays away must not end all
TICK_S = 600  # votes are decayed to a moment of this grid: between events they stay as they are
NOTHING = Blocked(frozenset(), 0)


class Watch:
    """Of one worker. Without a store nothing is blocked, and trends are the release's own."""

    def __init__(self, store: Store | None, away: Gauge) -> None:
        self.blocked = NOTHING
        self.ready = store is None
        self.trends: Mapping[str, float] = {}  # item id -> votes; a new mapping when they change
        self.readers: WeakSet[Standing] = WeakSet()  # trends of items they lack are not kept
        self.half_life_days = ActRules().half_life_days  # until a release serves: then its own
        self._away, self._gauge = False, away
        self._told = 0
        self._task = None if store is None else asyncio.create_task(self._run(store))

    def tell(self, blocked: Blocked) -> None:
        """Newer than any answer that is under way."""
        self.blocked = blocked
        self._told += 1

    async def refresh(self, store: Store) -> None:
        """Raises Unavailable."""
        told = self._told
        blocked = await store.blocked()
        if self._told == told:
            self.blocked = blocked
        # Ahead of now: no vote counts more than its weight.
        now = (int(time.time()) // TICK_S + 1) * TICK_S
        votes = await store.trends(now=now, half_life_days=self.half_life_days)
        readers = tuple(self.readers)
        trends = {item: n for item, n in votes.items() if any(r.knows(item) for r in readers)}
        if trends != self.trends:
            self.trends = trends

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, store: Store) -> None:
        patient = asyncio.get_running_loop().time() + FIRST_S
        while True:
            try:
                await self.refresh(store)
            except RecserveError as error:
                if not self._away:  # once, not twice a second
                    log.warning("the store is away: %s", error)
                self._away = True
                if not self.ready and asyncio.get_running_loop().time() > patient:
                    log.warning("ready without the store: until it answers, no item is blocked")
                    self.ready = True
            else:
                if self._away:
                    log.info("the store answers again")
                self._away, self.ready = False, True
            self._gauge.set(self._away)
            await asyncio.sleep(PAUSE_S)


class Standing:
    """What the watch saw last, in the indexes of `release`; made anew when it saw another."""

    def __init__(self, release: Release, watch: Watch) -> None:
        self._catalogue, self._watch = release.catalogue, watch
        self._blocked_as_of, self._blocked = NOTHING, np.zeros(0, np.int64)
        self._trends: Mapping[str, float] = {}
        self._popularity: Array = self._catalogue.popularity
        self._order: Array = self._catalogue.by_popularity
        watch.readers.add(self)

    def knows(self, item_id: str) -> bool:
        return bool(self._catalogue.index(item_id))

    @property
    def blocked(self) -> Array:
        """[n] int64 indexes never to be shown."""
        if self._watch.blocked is not self._blocked_as_of:
            self._blocked_as_of = self._watch.blocked
            indexes = self._catalogue.indexes(sorted(self._blocked_as_of.items))
            self._blocked = indexes[indexes > 0]
        return self._blocked

    @property
    def popularity(self) -> Array:
        """[N] float32: the release's popularity and the votes of live events."""
        self._renew()
        return self._popularity

    @property
    def order(self) -> Array:
        """[N] int64 indexes, most popular first."""
        self._renew()
        return self._order

    def _renew(self) -> None:
        if self._watch.trends is self._trends:
            return
        self._trends = self._watch.trends
        indexes = self._catalogue.indexes(self._trends)
        votes = np.fromiter(self._trends.values(), np.float32, len(self._trends))
        popularity = self._catalogue.popularity.copy()
        popularity[indexes[indexes > 0] - 1] += votes[indexes > 0]
        self._popularity = popularity
        self._order = np.argsort(-popularity, kind="stable").astype(np.int64) + 1
