"""Kills, full and missing disks, a Redis that dies or hangs: what was acknowledged is there once,
nothing is half there, and everything works again without a restart."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from scale import often
from store_writer import batch
from stores import NOW, PATIENT_S, WEIGHTS, RedisServer, event, opened, redis_server

from bento.store import Counted, Keep, connect, reading
from bento.store import sqlite_file as file
from recommender.errors import MachineError, Unavailable

ROOT = Path(__file__).parent.parent
WRITER = [sys.executable, str(Path(__file__).with_name("store_writer.py"))]
KILLS = often(10, 1_000)
BATCHES_A_RUN = 1_000_000


def writer(url: str, run: int) -> subprocess.Popen[str]:
    path = f"{ROOT}:{ROOT / 'tests'}"
    return subprocess.Popen(
        [*WRITER, url, str(run * BATCHES_A_RUN)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


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


@pytest.mark.parametrize("kills", KILLS)
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


@pytest.mark.parametrize("kills", KILLS)
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
        people = [await store.person(user, limit=10**7) for user in ("u0", "u1")]
        kept = Counter(e.event_id for person in people for e in person.events)
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
            ids = [e.event_id for e in (await store.person("ann", limit=9)).events]
            assert sorted(ids) == ["e1", "e2", "e3"]

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


# SQLite


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk wants root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_acknowledges_nothing_and_works_again_once_there_is_space(
    small_disk: Path,
) -> None:
    async def act() -> None:
        async with opened(f"sqlite:///{small_disk}/events.db") as store:
            acknowledged: list[int] = []
            number, filler = 0, small_disk / "filler"
            for _ in range(3):
                free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
                filler.write_bytes(b"x" * (free - 64_000))
                with pytest.raises(Unavailable, match="Free some space"):
                    while True:
                        number += 1
                        many = [event(number * 100 + i, item=f"i{i}", at=NOW) for i in range(60)]
                        await store.add(many, weights=WEIGHTS)
                        acknowledged += [number * 100 + i for i in range(60)]
                kept = (await store.person("ann", limit=10**6)).events  # reading works on
                assert [int(e.event_id[1:]) for e in kept] == acknowledged
                filler.unlink()
                number += 1
                await store.add([event(number * 100)], weights=WEIGHTS)
                acknowledged.append(number * 100)
            kept = (await store.person("ann", limit=10**6)).events
            assert [int(e.event_id[1:]) for e in kept] == acknowledged
        with sqlite3.connect(small_disk / "events.db") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    asyncio.run(act())


def test_a_disk_that_fails_in_a_write_is_unavailable_and_works_again(tmp_path: Path) -> None:
    """The limit of a process's files, which a write meets in its midst as it does a bad disk."""
    code = "import sys, test_store_faults as here; here.limited(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/events.db"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def limited(url: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    async def act() -> None:
        async with opened(url) as store:
            acknowledged: list[str] = []
            for round_ in range(3):
                resource.setrlimit(resource.RLIMIT_FSIZE, (300_000 + 100_000 * round_, -1))
                with pytest.raises(Unavailable, match="Check its disk"):
                    for number in range(10_000):
                        many = [event(round_ * 10**6 + number * 100 + i) for i in range(30)]
                        await store.add(many, weights=WEIGHTS)
                        acknowledged += [e.event_id for e in many]
                resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
                counted = await store.add(many, weights=WEIGHTS)
                assert sum(counted) == len(many)
                acknowledged += [e.event_id for e in many]
            kept = (await store.person("ann", limit=10**6)).events
            assert [e.event_id for e in kept] == acknowledged

    asyncio.run(act())


def test_a_disk_that_goes_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"

    async def act() -> None:
        async with opened(f"sqlite:///{disk}/events.db") as store:
            await store.add([event(1)], weights=WEIGHTS)
            disk.rename(elsewhere)
            with pytest.raises(Unavailable, match="moved or removed"):
                await store.add([event(2)], weights=WEIGHTS)
            with pytest.raises(Unavailable, match="Bring its disk back"):
                await store.add([event(2)], weights=WEIGHTS)
            with pytest.raises(Unavailable):
                await store.person("ann", limit=1)
            assert not disk.exists()  # no second, empty store
            elsewhere.rename(disk)
            counted = await store.add([event(1), event(2), event(3)], weights=WEIGHTS)
            assert counted.forgotten == 0 and counted.duplicates >= 1
            ids = [e.event_id for e in (await store.person("ann", limit=9)).events]
            assert sorted(ids) == ["e1", "e2", "e3"]

    asyncio.run(act())


def test_a_folder_that_is_not_there_yet_shows_at_the_first_use(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")

    async def act() -> None:
        async with opened(f"sqlite:///{taken}/events.db") as store:
            with pytest.raises(Unavailable, match="Check that its folder"):
                await store.ping()
            taken.unlink()
            await store.ping()

    asyncio.run(act())


def test_a_damaged_file_is_unavailable_and_names_the_backup(tmp_path: Path) -> None:
    async def act() -> None:
        (tmp_path / "events.db").write_bytes(b"no database at all" * 500)
        async with opened(f"sqlite:///{tmp_path}/events.db") as store:
            with pytest.raises(Unavailable, match="recserve restore FILE --force"):
                await store.ping()

    asyncio.run(act())


def test_a_second_service_on_one_file_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"

    async def act() -> None:
        async with opened(url) as store:
            with pytest.raises(MachineError, match="open in another service"):
                connect(url)
            await store.add([event(1)], weights=WEIGHTS)
        async with opened(url) as store:  # the lock went with the first
            assert len((await store.person("ann", limit=9)).events) == 1

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
            assert len((await store.person("ann", limit=9)).events) == 1

    def version() -> int:
        with sqlite3.connect(tmp_path / "events.db") as db:
            found = file.version_of(db)
        db.close()
        return found

    asyncio.run(write())
    assert version() == 1
    broken = "CREATE TABLE later (a); CREATE TABLE later (a)"
    monkeypatch.setattr(file, "UPGRADES", (*file.UPGRADES, broken))
    with pytest.raises(MachineError, match="Start the service once"), reading(url):
        pass
    store = connect(url)
    with pytest.raises(Unavailable):
        asyncio.run(store.ping())
    asyncio.run(store.close())
    assert version() == 1
    monkeypatch.setattr(file, "UPGRADES", (*file.UPGRADES[:1], "CREATE TABLE later (a)"))
    asyncio.run(read())
    assert version() == 2


def test_a_redis_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    import redis

    with redis_server(tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            client.set("recserve:schema", "2 00")
        for opening in (connect, lambda url: reading(url).__enter__()):
            with pytest.raises(MachineError, match=r"version 2.*the recserve that wrote it"):
                opening(server.url)
