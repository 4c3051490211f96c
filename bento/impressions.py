"""Answers that were given -> the store's log of impressions, in the background.

A click that names the answer's request id is counted for the variant and release that
showed the item, and apart where no model chose it (`fallback`). What waits is bounded and
dropped (and counted) beyond that: an answer never waits for its log line, and a store that is
away fills no memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from bento.prometheus import Counter
from bento.store import Impression, Store
from client.api import Answer
from recommender.errors import RecserveError

log = logging.getLogger("bentoml.recserve")

PAUSE_S = 1.0
MOST = 10_000  # that wait
AT_ONCE = 1000  # of one transaction


class Impressions:
    """Of one worker; `dropped` counts the answers that could not be kept."""

    def __init__(self, store: Store | None, dropped: Counter) -> None:
        self._waiting: list[Impression] = []
        self._store, self._dropped = store, dropped
        self._task = None if store is None else asyncio.create_task(self._run(store))

    def note(self, answer: Answer, user_id: str | None) -> None:
        if self._store is None or not answer.items:
            return
        if len(self._waiting) >= MOST:
            self._dropped.inc()
            return
        self._waiting.append(
            Impression(
                request_id=answer.request_id,
                variant=answer.variant,
                release=answer.release,
                user_id=user_id,
                items=tuple(item.item_id for item in answer.items),
                time=int(time.time()),
                fallback=answer.fallback,
            )
        )

    async def close(self) -> None:
        """What waits is written first, if the store takes it."""
        if self._task is None or self._store is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        while self._waiting and await self._flush(self._store):
            pass

    async def _run(self, store: Store) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            while self._waiting and await self._flush(store):
                pass

    async def _flush(self, store: Store) -> bool:
        part = self._waiting[:AT_ONCE]
        try:
            await store.impressions(part)
        except RecserveError as error:
            log.debug("impressions wait: %s", error)
            return False
        del self._waiting[: len(part)]
        return True
