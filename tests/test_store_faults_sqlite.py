"""The SQLite store killed, opened twice, read for long, of another version: what was acknowledged
is there once, nothing is half there, and what is no store of ours is refused."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from scale import often
from store_writer import batch, writer
from stores import NOW, PATIENT_S, WEIGHTS, event, opened

from bento.store import Clicks, Counted, Impression, backup, connect, reading, restore
from bento.store import sqlite_file as file
from bento.store import sqlite_rows as rows
from recommender.errors import MachineError, Unavailable


def killed_after(seconds: float, url: str, run: int) -> list[int]:
    """The batches that were acknowledged before the writer was killed."""
    process = writer(url, run)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.kill()
    said = process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    return [int(line) for line in said]


@pytest.mark.parametrize("kills", often(10, 1_000))
def test_a_writer_killed_at_any_moment_loses_nothing_and_leaves_no_half_batch(
    kills: int, tmp_path: Path
) -> None:
    rng, acknowledged = random.Random(1), 0
    for run in range(kills):
        path = tmp_path / f"{run // 10}.db"  # ten lives of one store
        sure = killed_after(rng.uniform(0, 0.3), f"sqlite:///{path}", run)
        acknowledged += len(sure)
        with sqlite3.connect(path) as db:  # as the next service finds it
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            kept = Counter(id for (id,) in db.execute("SELECT event_id FROM events"))
        db.close()
        assert not kept or max(kept.values()) == 1
        for number in sure:
            assert all(kept[e.event_id] == 1 for e in batch(number)), f"lost: {number}"
        numbers = {int(id[1:]) // 10 for id in kept}
        for number in numbers:
            assert all(e.event_id in kept for e in batch(number)), f"half: {number}"
        asyncio.run(_repeat(f"sqlite:///{path}", [batch(n) for n in sure[-3:]]))
    assert acknowledged > kills


def test_a_command_reads_what_a_killed_service_has_left(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    sure = killed_after(0.3, url, 0)
    with reading(url) as reader:
        kept = {e.event_id for e in reader.events()}
    assert sure and all(e.event_id in kept for number in sure for e in batch(number))


async def _repeat(url: str, batches: list) -> None:
    async with opened(url) as store:
        for events in batches:
            assert await store.add(events, weights=WEIGHTS) == Counted(0, len(events), 0)


def test_a_second_service_on_one_file_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"

    async def act() -> None:
        async with opened(url) as store:
            with pytest.raises(MachineError, match="open in another service"):
                connect(url)
            await store.add([event(1)], weights=WEIGHTS)
        async with opened(url) as store:  # the lock went with the first
            assert len((await store.person("ann", limit=9)).past.items) == 1

    asyncio.run(act())
    process = writer(url, 0)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    with pytest.raises(MachineError, match="open in another service"):
        connect(url)
    process.kill()
    process.wait()
    process.stdout.close()
    asyncio.run(connect(url).close())  # and with a process that was killed


def test_many_adds_at_once_share_their_commits(tmp_path: Path) -> None:
    async def act() -> None:
        store = connect(f"sqlite:///{tmp_path}/events.db", wait_s=PATIENT_S)
        before = store.commits
        adds = [store.add([event(i, f"u{i}")], weights=WEIGHTS) for i in range(100)]
        assert await asyncio.gather(*adds) == [Counted(1, 0, 0)] * 100
        assert store.commits - before <= 20
        await store.close()

    asyncio.run(act())


def test_the_files_are_their_owners_alone_and_what_is_forgotten_leaves_no_bytes(
    tmp_path: Path,
) -> None:
    async def act() -> None:
        async with opened(f"sqlite:///{tmp_path}/events.db") as store:
            for i in range(200):
                await store.add([event(i, "somebody-private", at=NOW + i)], weights=WEIGHTS)
            assert any(b"somebody-private" in p.read_bytes() for p in tmp_path.iterdir())
            await store.forget("somebody-private", now=NOW + 999)
            for path in tmp_path.iterdir():
                assert path.stat().st_mode & 0o777 == 0o600, path
                assert b"somebody-private" not in path.read_bytes(), path

    asyncio.run(act())


def test_a_long_reading_keeps_no_writer_waiting_and_the_forgotten_go_after_it(
    tmp_path: Path,
) -> None:
    url, log = f"sqlite:///{tmp_path}/events.db", tmp_path / "events.db-wal"

    async def act() -> None:
        async with opened(url) as store:
            await store.add([event(1, "somebody-private"), event(2)], weights=WEIGHTS)
            with reading(url) as reader:
                assert next(reader.events())
                await store.forget("somebody-private", now=NOW)
                for number in range(3, 60):
                    await store.add([event(number)], weights=WEIGHTS)
                assert b"somebody-private" in log.read_bytes()
            until = time.monotonic() + 30
            while b"somebody-private" in log.read_bytes() and time.monotonic() < until:
                await asyncio.sleep(0.1)
            for path in tmp_path.iterdir():
                assert b"somebody-private" not in path.read_bytes(), path

    asyncio.run(act())


def test_a_store_of_a_newer_version_or_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    asyncio.run(connect(f"sqlite:///{path}").close())
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for opening in (connect, lambda url: reading(url).__enter__()):
        with pytest.raises(MachineError, match=r"version 99.*the recserve that wrote it"):
            opening(f"sqlite:///{path}")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE theirs (a)")
    db.close()
    with pytest.raises(MachineError, match="no event store"):
        connect(f"sqlite:///{other}")


def test_an_older_store_is_brought_up_to_date_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/events.db"

    async def write() -> None:
        async with opened(url) as store:
            await store.add([event(1)], weights=WEIGHTS)

    async def read() -> None:
        async with opened(url) as store:
            assert len((await store.person("ann", limit=9)).past.items) == 1

    def version() -> int:
        with sqlite3.connect(tmp_path / "events.db") as db:
            found = file.version_of(db)
        db.close()
        return found

    asyncio.run(write())
    current = len(file.UPGRADES)
    assert version() == current
    broken = "CREATE TABLE later (a); CREATE TABLE later (a)"
    monkeypatch.setattr(file, "UPGRADES", (*file.UPGRADES, broken))
    with pytest.raises(MachineError, match="Start the service once"), reading(url):
        pass
    store = connect(url)
    with pytest.raises(Unavailable):
        asyncio.run(store.ping())
    asyncio.run(store.close())
    assert version() == current
    monkeypatch.setattr(file, "UPGRADES", (*file.UPGRADES[:current], "CREATE TABLE later (a)"))
    asyncio.run(read())
    assert version() == current + 1


def test_what_a_store_of_version_1_showed_is_counted_once_it_is_opened_or_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "events.db", int(time.time())
    with monkeypatch.context() as then:
        then.setattr(file, "UPGRADES", file.UPGRADES[:1])
        with closing(file.open_writer(path, create=True)) as db:
            db.executemany(
                "INSERT INTO impressions VALUES (?, ?, ?, ?, ?, ?)",
                [(f"r{i}", "ab"[i % 2], 3, f"u{i}", '["i1","i2"]', now - 60) for i in range(10)],
            )
            db.execute(
                "INSERT INTO events VALUES (1, 'u0', 'e1', 'i1', 'view', ?, NULL, 1.0, 1.0)",
                (now - 30,),
            )
            db.execute("INSERT INTO users VALUES ('u0', 1, NULL)")
            assert file.version_of(db) == 1
        made = tmp_path / "old.backup"
        backup(f"sqlite:///{path}", made)
    old = [
        Clicks(variant="a", release=3, fallback=False, answers=5, impressions=10, clicks=1),
        Clicks(variant="b", release=3, fallback=False, answers=5, impressions=10, clicks=0),
    ]
    with pytest.raises(MachineError, match="Start the service once"), reading(f"sqlite:///{path}"):
        pass

    async def go_on(url: str) -> None:
        async with opened(url) as store:
            assert await store.click_through(since=0) == old
            away = Impression(request_id="away", variant="a", release=3, user_id="u0",
                              items=("i1",), time=now - 10, fallback=True)  # fmt: skip
            await store.impressions([away])
            assert (await store.person("u0", limit=9)).past.items == ["i1"]
            new = Clicks(variant="a", release=3, fallback=True, answers=1, impressions=1, clicks=0)
            assert await store.click_through(since=0) == [old[0], new, old[1]]

    asyncio.run(go_on(f"sqlite:///{path}"))
    elsewhere = f"sqlite:///{tmp_path}/elsewhere/events.db"
    assert restore(elsewhere, made) == 1
    with reading(elsewhere) as reader:
        assert reader.click_through(since=0) == old
    asyncio.run(go_on(elsewhere))


@pytest.mark.parametrize("version", [1, 2, None])
def test_a_history_is_read_from_its_index_alone(
    version: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each event would be a page of its own, of a store that grows for years."""
    path = tmp_path / "events.db"
    with monkeypatch.context() as then:
        then.setattr(file, "UPGRADES", file.UPGRADES[:version])
        file.open_writer(path, create=True).close()
    with closing(file.open_writer(path, create=False)) as db:
        asked = f"EXPLAIN QUERY PLAN {rows.PASTS.format(users='(?2)')}"
        plan = [row[-1] for row in db.execute(asked, (9, "ann"))]
    assert [step for step in plan if "events" in step] == [
        "SEARCH events USING COVERING INDEX history (user_id=?)"
    ]
