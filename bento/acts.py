"""What people did, and what the shop decided: events, histories, erasure, blocked items.

    /v1/events ─> checked as a whole ─> the store, durable before the answer
    /v1/history  what the next recommendation would read of a user
    /v1/forget   everything of a user, and a mark that keeps older releases from telling
    /v1/blocked  never to be shown, at once here and within a second elsewhere

Knows no Triton: it works while that is away. Without a store every call is Unavailable.
"""

from __future__ import annotations

import time
import uuid

from bento.memory import Memory
from bento.metrics import Metrics
from bento.people import known
from bento.schemas import BlockedRequest, EventBody, EventsRequest, UserRequest
from bento.stages import STORE
from bento.store import Event, Store
from client.api import BlockedItems, EventsAccepted, Forgotten, HistoryAnswer, HistoryEvent
from recommender.errors import Unavailable
from recommender.release import Release

AHEAD_S = 5  # a caller's clock may be ahead of ours without being told


class Acts:
    """Of one release: its rules weigh the events, its catalogue names the items."""

    def __init__(self, release: Release, memory: Memory, metrics: Metrics) -> None:
        self._release, self._memory, self._metrics = release, memory, metrics

    async def events(self, asked: EventsRequest, _: str) -> EventsAccepted:
        """All of them or none. Raises Unavailable."""
        now = int(time.time())
        with self._metrics.events.taking(len(asked.events)):
            events = [_event(event, now) for event in asked.events]
            with self._metrics.stage(STORE):
                counted = await self._there.add(events, weights=self._release.acts.weights)
        self._metrics.events.taken(counted, (now - event.timestamp for event in events))
        items = dict.fromkeys(event.item_id for event in events)
        return EventsAccepted(
            accepted=counted.accepted,
            duplicates=counted.duplicates,
            forgotten=counted.forgotten,
            ahead=sum((event.timestamp or 0) > now + AHEAD_S for event in asked.events),
            unknown=[item for item in items if not self._release.catalogue.index(item)],
        )

    async def history(self, asked: UserRequest, _: str) -> HistoryAnswer:
        with self._metrics.stage(STORE):
            person = await self._there.person(asked.user_id, limit=self._release.limits.exclude)
        history = known(self._release, asked.user_id, person).history
        past = person.past
        kinds = dict(zip(zip(past.items, past.times, strict=True), past.events, strict=True))
        acts = [
            self._act(item, at, kinds)
            for item, at in zip(history.items.tolist(), history.times.tolist(), strict=True)
        ]
        return HistoryAnswer(user_id=asked.user_id, events=acts)

    async def forget(self, asked: UserRequest, _: str) -> Forgotten:
        with self._metrics.stage(STORE):
            erased = await self._there.forget(asked.user_id, now=int(time.time()))
            left = await self._there.person(asked.user_id, limit=self._release.limits.exclude)
        return Forgotten(events=erased, left=len(left.past.items))

    async def block(self, asked: BlockedRequest, _: str) -> BlockedItems:
        """Also without a change, to see the list. Ids that no release knows yet are welcome;
        what is both added and removed stays blocked."""
        with self._metrics.stage(STORE):
            if asked.add or asked.remove:
                blocked = await self._there.block(add=asked.add, remove=asked.remove)
            else:
                blocked = await self._there.blocked()
        self._memory.watch.tell(blocked)
        return BlockedItems(items=sorted(blocked.items))

    @property
    def _there(self) -> Store:
        if self._memory.store is None:
            raise Unavailable(
                "this service keeps no events: it has no store",
                remedy="Set RECSERVE_STORE to sqlite:///path or redis://host:port/db.",
            )
        return self._memory.store

    def _act(self, index: int, at: int, kinds: dict[tuple[str, int], str]) -> HistoryEvent:
        item_id = self._release.catalogue.item_id(index)
        return HistoryEvent(
            item_id=item_id,
            title=self._release.catalogue.title(index),
            event=kinds.get((item_id, at)),
            timestamp=at,
        )


def _event(body: EventBody, now: int) -> Event:
    """Nothing has happened yet that is still to come: a clock that is ahead says now."""
    return Event(
        event_id=body.event_id or uuid.uuid4().hex,
        user_id=body.user_id,
        item_id=body.item_id,
        event=body.event.strip().lower(),
        timestamp=now if body.timestamp is None else min(body.timestamp, now),
        request_id=body.request_id,
    )
