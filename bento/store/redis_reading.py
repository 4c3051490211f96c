"""A whole Redis store for a command beside the services: user by user, each in one state."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec
from redis import Redis

from bento.store import redis_keys as keys
from bento.store.base import Clicks, Event, Impression, tombstone
from bento.store.clicks import click_through as clicks_of
from bento.store.redis_keys import PREFIX
from recommender.errors import Unavailable

WAIT_S = 60.0  # a command has time
CHUNK = 500


class RedisReader:
    def __init__(self, url: str) -> None:
        self.place = keys.where(url)
        self.client = Redis.from_url(url, socket_timeout=WAIT_S, socket_connect_timeout=5)
        identity = self.ask("get", f"{PREFIX}schema")
        if identity is None:
            raise Unavailable(
                f"{self.place} holds no event store",
                remedy="Name it with --store, or start the service, which makes it.",
            )
        self.identity: str = identity.decode()
        self._salt = keys.salt_of(self.identity, self.place)

    def ask(self, command: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self.client, command)(*arguments, **options)
        except keys.FAILURES as error:
            raise keys.unavailable(self.place, error) from error

    def events(self) -> Iterator[Event]:
        for key in self.keys("events:"):
            for member in self.ask("zrange", key, 0, -1):
                yield keys.event_of(member)

    def erasure(self, user_id: str) -> int | None:
        time = self._erasures.get(tombstone(self._salt, user_id).encode())
        return None if time is None else int(time)

    @cached_property
    def _erasures(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = self.ask("hgetall", f"{PREFIX}erasures")
        return found

    def click_through(self, *, since: int) -> list[Clicks]:
        return clicks_of(self._shown(since), self._acts(since))

    def close(self) -> None:
        self.client.close()

    def keys(self, kind: str) -> Iterator[bytes]:
        """Each once: Redis may name one twice while others come and go."""
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, found = self.ask("scan", cursor, match=f"{PREFIX}{kind}*", count=CHUNK)
            new = [key for key in found if key not in seen]
            seen.update(new)
            yield from new
            if cursor == 0:
                return

    def _shown(self, since: int) -> Iterator[Impression]:
        decoder = msgspec.json.Decoder(Impression)
        found: list[bytes] = []
        for key in self.keys("shown:"):
            found.append(key)
            if len(found) == CHUNK:
                yield from self._decoded(found, decoder, since)
                found = []
        yield from self._decoded(found, decoder, since)

    def _decoded(
        self, found: list[bytes], decoder: msgspec.json.Decoder[Impression], since: int
    ) -> Iterator[Impression]:
        for record in self.ask("mget", found) if found else ():
            if record is not None:  # expired since
                answer = decoder.decode(record)
                if answer.time >= since:
                    yield answer

    def _acts(self, since: int) -> Iterator[Event]:
        for key in self.keys("events:"):
            for member in self.ask("zrangebyscore", key, since, "+inf"):
                if keys.weight_of(member) > 0:
                    yield keys.event_of(member)
