"""The disk of a SQLite store full, failing, moved away, not there, damaged: nothing is acknowledged
and lost, and everything works again without a restart."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import NOW, WEIGHTS, event, ids_of, opened

from recommender.errors import Unavailable

ROOT = Path(__file__).parent.parent


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
    url = f"sqlite:///{small_disk}/events.db"

    async def act() -> None:
        async with opened(url) as store:
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
                known = await store.person("ann", limit=10**6)  # reading works on
                assert len(known.past.items) == len(acknowledged)
                assert ids_of(url) == [f"e{i}" for i in acknowledged]
                filler.unlink()
                number += 1
                await store.add([event(number * 100)], weights=WEIGHTS)
                acknowledged.append(number * 100)
            assert ids_of(url) == [f"e{i}" for i in acknowledged]
        with sqlite3.connect(small_disk / "events.db") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    asyncio.run(act())


def test_a_disk_that_fails_in_a_write_is_unavailable_and_works_again(tmp_path: Path) -> None:
    """The limit of a process's files, which a write meets in its midst as it does a bad disk."""
    code = "import sys, test_store_faults_disk as here; here.limited(sys.argv[1])"
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
            assert ids_of(url) == acknowledged

    asyncio.run(act())


def test_a_disk_that_goes_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    url = f"sqlite:///{disk}/events.db"

    async def act() -> None:
        async with opened(url) as store:
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
            assert sorted(ids_of(url)) == ["e1", "e2", "e3"]

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
