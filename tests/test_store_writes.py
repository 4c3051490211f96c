"""A million events of several writers at once, while the log is folded into the file, or rewritten,
and others read: each is there once, and the store is whole."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import redis
from scale import often
from stores import NOW, PATIENT_S, WEIGHTS, event, opened, redis_server

from bento.store import Counted, Event, Store, connect, reading

ROOT = Path(__file__).parent.parent
WRITERS, BATCH = 4, 50
EVENTS = often(4_000, 1_000_000)


def batch(number: int) -> list[Event]:
    return [
        event(number * BATCH + i, f"u{(number * BATCH + i) % 997}", f"i{i}", at=NOW + number)
        for i in range(BATCH)
    ]


async def write(url: str, number: int, batches: int) -> None:
    """The `number`-th of the writers, in a process of its own."""
    async with opened(url) as store:
        await write_all(store, number, batches)


async def write_all(store: Store, number: int, batches: int) -> None:
    for one in range(number, batches, WRITERS):
        assert await store.add(batch(one), weights=WEIGHTS) == Counted(BATCH, 0, 0)


def assert_there_once(url: str, events: int) -> None:
    with reading(url) as reader:
        kept = Counter(e.event_id for e in reader.events())
    assert len(kept) == events and set(kept.values()) == {1}


@pytest.mark.parametrize("events", EVENTS)
def test_four_writers_to_sqlite_among_checkpoints_and_readers(tmp_path: Path, events: int) -> None:
    path, over = tmp_path / "events.db", threading.Event()
    url, folded = f"sqlite:///{path}", 0

    def fold() -> None:
        nonlocal folded
        with closing(sqlite3.connect(path, timeout=PATIENT_S)) as db:
            while not over.wait(0.02):
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                folded += 1

    async def read(store: Store) -> None:
        while not over.is_set():
            await store.person("u1", limit=100)
            await store.trends(now=NOW, half_life_days=7)
            await asyncio.sleep(0.02)

    async def act() -> None:
        store = connect(url, wait_s=PATIENT_S)
        await store.ping()
        beside = threading.Thread(target=fold)
        beside.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read(store))
                async with asyncio.TaskGroup() as writers:
                    for number in range(WRITERS):
                        writers.create_task(write_all(store, number, events // BATCH))
                over.set()
        finally:
            over.set()
            beside.join()
            await store.close()

    asyncio.run(act())
    assert folded
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert_there_once(url, events)


@pytest.mark.parametrize("events", EVENTS)
def test_four_processes_to_redis_while_it_rewrites_its_log(tmp_path: Path, events: int) -> None:
    code = (
        "import asyncio, sys, test_store_writes as here; "
        "asyncio.run(here.write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))"
    )
    with redis_server(tmp_path) as server, redis.Redis(port=server.port) as client:
        command = [sys.executable, "-c", code, server.url]
        writers = [
            subprocess.Popen(
                [*command, str(number), str(events // BATCH)],
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            )
            for number in range(WRITERS)
        ]
        rewritten = 0
        while any(writer.poll() is None for writer in writers):
            if not client.info("persistence")["aof_rewrite_in_progress"]:
                client.bgrewriteaof()
                rewritten += 1
            time.sleep(0.05)
        assert [writer.returncode for writer in writers] == [0] * WRITERS
        assert rewritten
        assert_there_once(server.url, events)
        server.kill()
        server.start()
        assert_there_once(server.url, events)
