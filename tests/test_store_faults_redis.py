"""A Redis that dies, hangs, is full, away or another's: what was acknowledged is there once, and
everything works again without a restart."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import redis
from scale import often
from store_writer import batch
from stores import NOW, WEIGHTS, RedisServer, event, ids_of, opened, redis_server

from bento.store import Clicks, Counted, Keep, connect, reading
from recommender.errors import MachineError, Unavailable


@pytest.mark.parametrize("kills", often(10, 1_000))
def test_a_redis_killed_under_writers_that_retry_counts_every_event_once(
    kills: int, tmp_path: Path
) -> None:
    rng, a_life = random.Random(2), 50  # kills, after which a new store begins
    for first in range(0, kills, a_life):
        with redis_server(tmp_path / str(first)) as server:
            some = min(a_life, kills - first)
            assert asyncio.run(_through_kills(server, some, rng)) > some


async def _through_kills(server: RedisServer, kills: int, rng: random.Random) -> int:
    stopped = False
    acknowledged: list[int] = []

    async def client(store, number: int) -> None:
        while not stopped:
            counted = None
            while counted is None:
                try:
                    counted = await store.add(batch(number), weights=WEIGHTS)
                except Unavailable:
                    await asyncio.sleep(0.01)
            assert sum(counted) == len(batch(number))
            acknowledged.append(number)
            number += 4

    async with opened(server.url, Keep(events_per_user=10**7)) as store:
        clients = [asyncio.create_task(client(store, n)) for n in range(4)]
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0, 0.1))
            server.kill()
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.05)
        stopped = True
        await asyncio.gather(*clients)
        kept = Counter(ids_of(server.url))
        expected = Counter(e.event_id for n in acknowledged for e in batch(n))
        assert kept == expected
    return len(acknowledged)


def test_a_redis_that_hangs_is_unavailable_soon_and_well_again_afterwards(tmp_path: Path) -> None:
    async def act(server: RedisServer) -> None:
        async with opened(server.url, wait_s=2) as store:
            await store.add([event(1)], weights=WEIGHTS)
            server.signal(signal.SIGSTOP)
            try:
                began = time.monotonic()
                with pytest.raises(Unavailable, match="not answered in time"):
                    await store.add([event(2)], weights=WEIGHTS)
                with pytest.raises(Unavailable, match="Check that it runs"):
                    await store.person("ann", limit=1)
                assert time.monotonic() - began < 20
            finally:
                server.signal(signal.SIGCONT)
            counted = await store.add([event(2), event(3)], weights=WEIGHTS)
            assert counted.accepted + counted.duplicates == 2  # the given-up one may have counted
            assert sorted(ids_of(server.url)) == ["e1", "e2", "e3"]

    with redis_server(tmp_path) as server:
        asyncio.run(act(server))


def test_a_redis_that_is_away_at_the_start_is_used_when_it_comes(tmp_path: Path) -> None:
    async def act(server: RedisServer) -> None:
        server.kill()
        async with opened(server.url) as store:
            with pytest.raises(Unavailable, match="Check that it runs"):
                await store.ping()
            server.start()
            assert await store.add([event(1)], weights=WEIGHTS) == Counted(1, 0, 0)
            server.empty()  # another store from now on, with a salt of its own
            assert await store.add([event(1)], weights=WEIGHTS) == Counted(1, 0, 0)
            await store.forget("ann", now=NOW)
            with reading(server.url) as reader:
                assert reader.erasure("ann") == NOW

    with redis_server(tmp_path) as server:
        asyncio.run(act(server))


def test_a_redis_that_is_full_says_so_and_a_wrong_password_too(tmp_path: Path) -> None:
    async def act(server: RedisServer) -> None:
        async with opened(server.url) as store:
            with pytest.raises(Unavailable, match="memory"):
                while True:
                    many = [event(i, item="i" * 2000) for i in range(200)]
                    await store.add(many, weights=WEIGHTS)
                    await store.forget("ann", now=0)
                    await store.block(add=["x" * 200_000 + str(time.time())], remove=[])
        wrong = server.url.replace("redis://", "redis://user:secret@")
        async with opened(wrong) as store:
            with pytest.raises(Unavailable, match="password in the URL") as refusal:
                await store.ping()
            assert "secret" not in str(refusal.value)

    with redis_server(tmp_path, "--maxmemory", "4mb") as server:
        asyncio.run(act(server))


def test_a_redis_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            client.set("recserve:schema", "2 00")
        for opening in (connect, lambda url: reading(url).__enter__()):
            with pytest.raises(MachineError, match=r"version 2.*the recserve that wrote it"):
                opening(server.url)


def test_what_was_shown_before_fallbacks_were_kept_apart_is_still_counted(tmp_path: Path) -> None:
    now = int(time.time())
    record = (
        b'{"request_id":"r","variant":"a","release":1,"user_id":"ann","items":["i1"],"time":%d}'
    )

    async def act(server: RedisServer) -> None:
        async with opened(server.url) as store:
            await store.add([event(1, at=now - 5)], weights=WEIGHTS)
            with redis.Redis(port=server.port) as client:
                client.set("recserve:shown:r", record % (now - 60), ex=9999)
                client.zadd("recserve:answers:ann", {"r": now - 60})
            assert await store.click_through(since=0) == [
                Clicks(variant="a", release=1, fallback=False, answers=1, impressions=1, clicks=1)
            ]
            await store.forget("ann", now=now)
            assert await store.click_through(since=0) == []

    with redis_server(tmp_path) as server:
        asyncio.run(act(server))
