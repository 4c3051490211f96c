"""What the event store keeps and answers, whichever backend keeps it. No backend is known here.

    add       events: each counted once, however often it is sent
    person    one user's newest events, and whether the user was erased
    trends    item -> votes, older ones decayed (decay.py)
    forget    everything of a user goes; a hash and a time stay, so that a late retry is no event
    block     items that must not be shown
    impressions, click_through    what was shown, and what was acted on afterwards (clicks.py)

Every method raises Unavailable when the store is away, full or late. What add() acknowledges
is on the disk as far as the backend can promise (docs/events.md).
"""

from __future__ import annotations

import bisect
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

DAY = 86_400  # seconds
DEFAULT_URL = "sqlite:///.recserve/events.db"


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How much is kept, and how long."""

    events_per_user: int = 10_000  # the newest stay
    impression_days: int = 30


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One act, as it is kept."""

    event_id: str
    user_id: str
    item_id: str
    event: str  # view, purchase, ...
    timestamp: int  # unix seconds
    request_id: str | None = None  # of the answer that showed the item


class Impression(msgspec.Struct, frozen=True, kw_only=True):
    """One answer that was shown."""

    request_id: str
    variant: str
    release: int
    user_id: str | None
    items: tuple[str, ...]  # in the order shown
    time: int  # unix seconds
    fallback: bool = False  # popular items, because no model answered


class Clicks(msgspec.Struct, frozen=True, kw_only=True):
    """What one variant of one release showed, and what came of it. Its fallbacks, which say
    nothing about its models, are counted apart."""

    variant: str
    release: int
    fallback: bool
    answers: int
    impressions: int  # items shown, over all answers
    clicks: int  # of those, acted on

    @property
    def ctr(self) -> float:
        return self.clicks / self.impressions if self.impressions else 0.0


class Counted(NamedTuple):
    accepted: int
    duplicates: int  # known already, or older than a full history reaches back
    forgotten: int  # from before their user's erasure


class Past(NamedTuple):
    """Acts of one user in columns, oldest first: by timestamp, then arrival. Every request reads
    some: an object for each act would cost more than all else of a reading."""

    items: list[str]
    events: list[str]  # view, purchase, ...
    times: list[int]  # unix seconds

    def after(self, time: int) -> Past:
        at = bisect.bisect_right(self.times, time)
        return Past(self.items[at:], self.events[at:], self.times[at:])


class Person(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """What the store knows of one user."""

    past: Past  # the newest acts
    forgotten: int | None  # unix seconds of an erasure: what is older must not be used


class Blocked(NamedTuple):
    items: frozenset[str]
    changed: int  # grows with every change


class Store(Protocol):
    """What the service uses; safe for many callers at once."""

    async def add(self, events: Sequence[Event], *, weights: Mapping[str, float]) -> Counted:
        """Keep all of `events` or, where it raises, none. An event of no known weight weighs 1."""

    async def person(self, user_id: str, *, limit: int) -> Person: ...

    def at_hand(self, user_id: str, *, limit: int) -> Person | None:
        """What `person` would say, where that needs no reading; None where it does."""

    async def forget(self, user_id: str, *, now: int) -> int:
        """Erase a user; the number of events erased."""

    async def trends(self, *, now: int, half_life_days: float) -> Mapping[str, float]:
        """Votes of every item that has any. Another half-life than before counts anew from the
        events that are kept, which takes a while in a large store: agree on one."""

    async def blocked(self) -> Blocked: ...

    async def block(self, *, add: Sequence[str], remove: Sequence[str]) -> Blocked:
        """An item in both stays blocked."""

    async def impressions(self, shown: Sequence[Impression]) -> None: ...

    async def click_through(self, *, since: int) -> list[Clicks]: ...

    async def ping(self) -> None:
        """Raises Unavailable unless reading and writing would work."""

    async def close(self) -> None: ...


class Reader(Protocol):
    """A whole store for a command beside the service: it changes nothing and stops nobody."""

    def events(self) -> Iterator[Event]:
        """All that are kept; of equal timestamps, the one that arrived first comes first."""

    def erasure(self, user_id: str) -> int | None:
        """When the user was erased, in unix seconds."""

    def click_through(self, *, since: int) -> list[Clicks]: ...

    def close(self) -> None: ...


def tombstone(salt: bytes, user_id: str) -> str:
    """All that is left of an erased user's id; each store has a salt of its own."""
    return hmac.digest(salt, user_id.encode(), "sha256").hex()


def weight_of(event: Event, weights: Mapping[str, float]) -> float:
    return float(weights.get(event.event.strip().lower(), 1.0))
