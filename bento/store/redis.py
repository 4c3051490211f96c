"""The event store in Redis: for several services, on any machines, as one.

Each change is one script, so a batch is kept whole or not at all. How much of what was
acknowledged survives a power cut is the server's setting (docs/events.md). A lost connection
is tried anew once within a call, then by the next call; nothing is counted twice by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from redis import Redis as Once
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import ResponseError

from bento.store import decay
from bento.store import redis_keys as keys
from bento.store.base import (
    DAY,
    Blocked,
    Clicks,
    Counted,
    Event,
    Impression,
    Keep,
    Person,
    tombstone,
    weight_of,
)
from bento.store.redis_keys import PREFIX
from bento.store.redis_reading import RedisReader
from bento.store.together import Together
from recommender.errors import MachineError, Unavailable

Answer = TypeVar("Answer")
WAIT_S = 0.5  # for connecting, and for each answer
READINGS = 2  # under way at once: while one is on the network, Redis reads for the other


class RedisStore:
    """Raises BadInput for a URL that names no Redis, MachineError for a store of another version;
    a server that is away shows at the first use."""

    def __init__(self, url: str, keep: Keep, wait_s: float = WAIT_S) -> None:
        self._url, self._keep, self._place = url, keep, keys.where(url)
        self._identity: str | None = None
        self._salt = b""
        self._client = Redis.from_url(
            url, socket_timeout=wait_s, socket_connect_timeout=wait_s,
            retry=Retry(NoBackoff(), 1, (Lost,)),  # a connection that a restart has closed
        )  # fmt: skip
        names = ("add", "read", "forget", "recount", "block", "show")
        self._scripts = {name: self._client.register_script(keys.script(name)) for name in names}
        self._together = Together(self._persons, at_once=READINGS)
        self._refuse_other_version(wait_s)

    async def add(self, events: Sequence[Event], *, weights: Mapping[str, float]) -> Counted:
        records = [msgspec.json.encode(event) for event in events]

        async def ask() -> list[int]:
            arguments: list[Any] = [self._keep.events_per_user]
            for e, record in zip(events, records, strict=True):
                arguments += (e.user_id, self._mark(e.user_id), e.event_id, e.item_id,
                              e.timestamp, weight_of(e, weights), record)  # fmt: skip
            counts: list[int] = await self._run("add", *arguments)
            return counts

        return Counted(*await self._ask(ask))

    async def person(self, user_id: str, *, limit: int) -> Person:
        return await self._together.person(user_id, limit=limit)

    async def _persons(self, users: Sequence[str], limit: int) -> list[Person]:
        async def ask() -> list[Person]:
            last = max(limit, 1) - 1
            *newest, erased = await self._read(
                *(("ZREVRANGE", f"{PREFIX}events:{user}", 0, last) for user in users),
                ("HMGET", f"{PREFIX}erasures", *map(self._mark, users)),
            )
            return [
                Person(past=keys.past_of(members[:limit]), forgotten=when and int(when))
                for members, when in zip(newest, erased, strict=True)
            ]

        return await self._ask(ask)

    def at_hand(self, user_id: str, *, limit: int) -> Person | None:
        return None  # other services write, too

    async def forget(self, user_id: str, *, now: int) -> int:
        async def ask() -> int:
            return int(await self._run("forget", user_id, self._mark(user_id), now))

        return await self._ask(ask)

    async def trends(self, *, now: int, half_life_days: float) -> Mapping[str, float]:
        async def ask() -> dict[str, float]:
            half_life, sums = await self._read(
                ("GET", f"{PREFIX}half_life"), ("HGETALL", f"{PREFIX}trends")
            )
            if half_life is None or float(half_life) != half_life_days:
                await self._run("recount", repr(half_life_days))
                (sums,) = await self._read(("HGETALL", f"{PREFIX}trends"))
            power = decay.exponent(now, half_life_days)
            least = decay.least(power)
            found = zip(sums[::2], map(float, sums[1::2]), strict=True)
            return {item.decode(): decay.votes(kept, power) for item, kept in found if kept > least}

        return await self._ask(ask)

    async def blocked(self) -> Blocked:
        async def ask() -> Blocked:
            items, changed = await self._read(
                ("SMEMBERS", f"{PREFIX}blocked"), ("GET", f"{PREFIX}changed")
            )
            return _blocked(items, changed or 0)

        return await self._ask(ask)

    async def block(self, *, add: Sequence[str], remove: Sequence[str]) -> Blocked:
        gone = set(remove) - set(add)

        async def ask() -> Blocked:
            return _blocked(*await self._run("block", len(gone), *gone, *add))

        return await self._ask(ask)

    async def impressions(self, shown: Sequence[Impression]) -> None:
        async def ask() -> None:
            arguments: list[Any] = [self._keep.impression_days * DAY]
            for answer in shown:
                user = answer.user_id
                arguments += (answer.request_id, answer.time, msgspec.json.encode(answer))
                arguments += ("", "") if user is None else (self._mark(user), user)
            await self._run("show", *arguments)

        await self._ask(ask)

    async def click_through(self, *, since: int) -> list[Clicks]:
        def read() -> list[Clicks]:
            reader = RedisReader(self._url)
            try:
                return reader.click_through(since=since)
            finally:
                reader.close()

        return await asyncio.to_thread(read)

    async def ping(self) -> None:
        await self.block(add=(), remove=())  # a script that may write: a full server says so

    async def close(self) -> None:
        await self._client.aclose()

    def _mark(self, user_id: str) -> str:
        return tombstone(self._salt, user_id)

    async def _ask(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Once more where Redis holds another store than the one we knew: emptied, or restored."""
        try:
            if self._identity is None:
                await self._identify()
            try:
                return await ask()
            except ResponseError as error:
                if not keys.is_other_store(error):
                    raise
            await self._identify()
            return await ask()
        except keys.FAILURES as error:
            raise keys.unavailable(self._place, error) from error
        except MachineError as error:
            raise Unavailable(error.what, remedy=error.remedy) from error

    async def _identify(self) -> None:
        await self._client.set(f"{PREFIX}schema", keys.new_identity(), nx=True)
        found: Any = await self._client.get(f"{PREFIX}schema")
        known = (found or b"").decode()
        self._salt = keys.salt_of(known, self._place)
        self._identity = known

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._scripts[script](args=(self._identity or "", *arguments))

    async def _read(self, *commands: tuple[str | int, ...]) -> list[Any]:
        """All in one state, and of the store that we know. One script is much quicker than the
        same commands in a transaction."""
        answers: list[Any] = await self._run("read", msgspec.json.encode(commands))
        return answers

    def _refuse_other_version(self, wait_s: float) -> None:
        with Once.from_url(
            self._url, socket_timeout=wait_s, socket_connect_timeout=wait_s, retry=None
        ) as client:
            try:
                identity = client.get(f"{PREFIX}schema")
            except keys.FAILURES:
                return  # away: the first use says so
        if isinstance(identity, bytes):
            keys.salt_of(identity.decode(), self._place)


def _blocked(items: Sequence[bytes], changed: bytes | int) -> Blocked:
    return Blocked(frozenset(item.decode() for item in items), int(changed))
