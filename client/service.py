"""Python -> a running recserve service -> typed answers, sync and async.

    with RecserveClient("http://127.0.0.1:3000") as recserve:
        for item in recserve.recommend(user_id="196", n=5).items:
            print(item.rank, item.title)

Methods are named after the routes and take the fields of their bodies (client/api.py). What may
be repeated is repeated (client/retry.py) within `timeout_s` in all: whatever only reads, and
events, since each carries an id that counts once. Every failure is a RecserveError: Unavailable
(nobody answers, or too late), BadInput (with the field, its value and the remedy), NotFound (an
item, model or route that is not there), Denied (the key).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Self, TypeVar, Unpack
from uuid import uuid4

import httpx
import msgspec

from client import trust
from client.api import (
    SERVING,
    STARTING,
    STOPPED,
    Answer,
    BlockedItems,
    Categories,
    EventBody,
    EventsAccepted,
    Fault,
    Forgotten,
    HistoryAnswer,
    Item,
    PopularBody,
    RankBody,
    RecommendBody,
    Refusal,
    Served,
    ServedVariant,
    SimilarBody,
)
from client.failures import Failures, decoded
from client.retry import Attempts

__all__ = [
    "SERVING",
    "STARTING",
    "STOPPED",
    "Answer",
    "AsyncRecserveClient",
    "Fault",
    "Item",
    "RecommendBody",
    "RecserveClient",
    "Refusal",
    "Served",
    "ServedVariant",
]

URL = "http://127.0.0.1:3000"
RETRIES = 3
T = TypeVar("T")


class RecserveClient:
    """A client with one pool of connections; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,  # default: RECSERVE_KEY
        ca: trust.Authority | None = None,  # default: RECSERVE_CA, else the usual authorities
        timeout_s: float = 5.0,
        retries: int = RETRIES,
    ) -> None:
        self.url, self._timeout_s, self._retries = url, timeout_s, retries
        with Failures(url):
            self._http = httpx.Client(
                base_url=url, headers=trust.headers(api_key), verify=trust.authority(ca)
            )

    def recommend(self, **body: Unpack[RecommendBody]) -> Answer:
        """Items for a user, best first."""
        return self._ask("/v1/recommend", Answer, body)

    def similar(self, **body: Unpack[SimilarBody]) -> Answer:
        """Items like one item, best first."""
        return self._ask("/v1/similar", Answer, body)

    def rank(self, **body: Unpack[RankBody]) -> Answer:
        """All candidates that the release knows, best first."""
        return self._ask("/v1/rank", Answer, body)

    def popular(self, **body: Unpack[PopularBody]) -> Answer:
        """The most popular items of the release."""
        return self._ask("/v1/popular", Answer, body)

    def events(self, events: Sequence[EventBody]) -> EventsAccepted:
        """What users did: their next recommendations know of it."""
        return self._ask("/v1/events", EventsAccepted, {"events": _identified(events)})

    def history(self, user_id: str) -> HistoryAnswer:
        """What is known of a user, oldest first."""
        return self._ask("/v1/history", HistoryAnswer, {"user_id": user_id})

    def forget(self, user_id: str) -> Forgotten:
        """Erase a user. Sent once: an answer that is lost leaves open whether it was done."""
        return self._ask("/v1/forget", Forgotten, {"user_id": user_id}, repeat=False)

    def blocked(self, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> BlockedItems:
        """The item ids that nobody is shown, after some were added and others removed."""
        body = {"add": add, "remove": remove}
        return self._ask("/v1/blocked", BlockedItems, body, repeat=not (add or remove))

    def categories(self) -> Categories:
        """Every category of the release that answers now, the largest first."""
        return self._ask("/v1/categories", Categories)

    def release(self) -> Served:
        """The release that answers now."""
        return self._ask("/v1/release", Served)

    def ready(self) -> bool:
        """Has the service loaded its catalogue and heard from Triton once?"""
        with Failures(self.url):
            return self._http.get("/readyz", timeout=self._timeout_s).is_success

    def _ask(self, path: str, wanted: type[T], body: object = None, *, repeat: bool = True) -> T:
        attempts = Attempts(self._timeout_s, self._retries if repeat else 0)
        method, content = _sent(body)
        while True:
            outcome: httpx.Response | httpx.TransportError
            with Failures(self.url):
                try:
                    timeout = attempts.left_s
                    outcome = self._http.request(method, path, content=content, timeout=timeout)
                except httpx.TransportError as error:
                    outcome = error
                if (pause_s := attempts.pause_s(outcome)) is None:
                    return decoded(outcome, wanted)
            time.sleep(pause_s)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncRecserveClient:
    """RecserveClient for asyncio."""

    def __init__(
        self,
        url: str = URL,
        *,
        api_key: str | None = None,  # default: RECSERVE_KEY
        ca: trust.Authority | None = None,  # default: RECSERVE_CA, else the usual authorities
        timeout_s: float = 5.0,
        retries: int = RETRIES,
    ) -> None:
        self.url, self._timeout_s, self._retries = url, timeout_s, retries
        with Failures(url):
            self._http = httpx.AsyncClient(
                base_url=url, headers=trust.headers(api_key), verify=trust.authority(ca)
            )

    async def recommend(self, **body: Unpack[RecommendBody]) -> Answer:
        """Items for a user, best first."""
        return await self._ask("/v1/recommend", Answer, body)

    async def similar(self, **body: Unpack[SimilarBody]) -> Answer:
        """Items like one item, best first."""
        return await self._ask("/v1/similar", Answer, body)

    async def rank(self, **body: Unpack[RankBody]) -> Answer:
        """All candidates that the release knows, best first."""
        return await self._ask("/v1/rank", Answer, body)

    async def popular(self, **body: Unpack[PopularBody]) -> Answer:
        """The most popular items of the release."""
        return await self._ask("/v1/popular", Answer, body)

    async def events(self, events: Sequence[EventBody]) -> EventsAccepted:
        """What users did: their next recommendations know of it."""
        return await self._ask("/v1/events", EventsAccepted, {"events": _identified(events)})

    async def history(self, user_id: str) -> HistoryAnswer:
        """What is known of a user, oldest first."""
        return await self._ask("/v1/history", HistoryAnswer, {"user_id": user_id})

    async def forget(self, user_id: str) -> Forgotten:
        """Erase a user. Sent once: an answer that is lost leaves open whether it was done."""
        return await self._ask("/v1/forget", Forgotten, {"user_id": user_id}, repeat=False)

    async def blocked(self, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> BlockedItems:
        """The item ids that nobody is shown, after some were added and others removed."""
        body = {"add": add, "remove": remove}
        return await self._ask("/v1/blocked", BlockedItems, body, repeat=not (add or remove))

    async def categories(self) -> Categories:
        """Every category of the release that answers now, the largest first."""
        return await self._ask("/v1/categories", Categories)

    async def release(self) -> Served:
        """The release that answers now."""
        return await self._ask("/v1/release", Served)

    async def ready(self) -> bool:
        """Has the service loaded its catalogue and heard from Triton once?"""
        with Failures(self.url):
            return (await self._http.get("/readyz", timeout=self._timeout_s)).is_success

    async def _ask(
        self, path: str, wanted: type[T], body: object = None, *, repeat: bool = True
    ) -> T:
        attempts = Attempts(self._timeout_s, self._retries if repeat else 0)
        method, content = _sent(body)
        while True:
            outcome: httpx.Response | httpx.TransportError
            with Failures(self.url):
                try:
                    timeout = attempts.left_s
                    outcome = await self._http.request(
                        method, path, content=content, timeout=timeout
                    )
                except httpx.TransportError as error:
                    outcome = error
                if (pause_s := attempts.pause_s(outcome)) is None:
                    return decoded(outcome, wanted)
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _sent(body: object) -> tuple[str, bytes | None]:
    return ("GET", None) if body is None else ("POST", msgspec.json.encode(body))


def _identified(events: Sequence[EventBody]) -> list[EventBody]:
    """Each with an id of its own, so that sending it again counts nothing twice."""
    return [
        event if "event_id" in event else {"event_id": uuid4().hex, **event} for event in events
    ]
