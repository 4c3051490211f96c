"""The event store in one SQLite file: the default, for one service on one machine.

    callers ──▶ writer thread (sqlite_writer.py): group commits
            ──▶ persons read lately (recent.py), or read together (together.py)
                  └─▶ reader threads, each with a read-only connection of its own

Everything acknowledged has been synced to the disk. A second service on the same file is
refused; other processes may read it, and back it up.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bento.store import sqlite_file as file
from bento.store import sqlite_rows as rows
from bento.store.base import Blocked, Clicks, Counted, Event, Impression, Keep, Person
from bento.store.recent import Recent
from bento.store.sqlite_writer import Writer, closed
from bento.store.together import Together
from recommender.errors import MachineError, Unavailable

Answer = TypeVar("Answer")
WAIT_S = 2.0  # for a commit, or what one request reads
LONG_S = 60.0  # for what goes over the whole store
READERS = 2  # so that a long reading keeps nobody's history waiting


class SqliteStore:
    """Raises MachineError for a file that is open in another service, of a newer recserve, or
    no event store. A disk that is away shows at the first use, and mends by itself."""

    def __init__(self, path: Path, keep: Keep, wait_s: float = WAIT_S) -> None:
        self._path = path.absolute()
        self._keep, self._wait_s = keep, wait_s
        self._writer = Writer(self._path)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="event store reader")
        self._recent = Recent()
        # One at once: the other reader is for what takes long.
        self._together = Together(self._persons, at_once=1)
        self._another = False  # a reader has opened another file than before
        self._own = threading.local()  # each reader thread's connection, and whose file it is
        self._open: list[sqlite3.Connection] = []
        try:
            with suppress(Unavailable):
                self._writer.submit(partial(rows.show, shown=(), keep=keep)).result()
        except MachineError:
            self._writer.close()
            raise

    @property
    def commits(self) -> int:
        """Since it was opened: many acts wait for one."""
        return self._writer.commits

    async def add(self, events: Sequence[Event], *, weights: Mapping[str, float]) -> Counted:
        work = partial(rows.add, events=events, weights=weights, keep=self._keep)
        return await self._write(work, {event.user_id for event in events})

    async def person(self, user_id: str, *, limit: int) -> Person:
        ticket = self._recent.reads(user_id)
        try:
            person = await self._together.person(user_id, limit=limit)
            self._recent.keep(user_id, limit, person, ticket)
        finally:
            self._recent.read(user_id, ticket)
        return person

    async def _persons(self, users: Sequence[str], limit: int) -> list[Person]:
        return await self._read(partial(rows.persons, users=users, limit=limit), one_state=False)

    def at_hand(self, user_id: str, *, limit: int) -> Person | None:
        return self._recent.find(user_id, limit)

    async def forget(self, user_id: str, *, now: int) -> int:
        def work(db: sqlite3.Connection) -> int:
            self._writer.scrub = True
            return rows.forget(db, user_id, now)

        return await self._write(work, {user_id})

    async def trends(self, *, now: int, half_life_days: float) -> Mapping[str, float]:
        read = partial(rows.trends, now=now, half_life=half_life_days)
        found = await self._read(read)
        if found is None:
            await self._write(lambda db: rows.recount(db, half_life_days))
            found = await self._read(read)
        return found or {}

    async def blocked(self) -> Blocked:
        return await self._read(rows.blocked)

    async def block(self, *, add: Sequence[str], remove: Sequence[str]) -> Blocked:
        return await self._write(lambda db: rows.block(db, add, remove))

    async def impressions(self, shown: Sequence[Impression]) -> None:
        await self._write(lambda db: rows.show(db, shown, self._keep))

    async def click_through(self, *, since: int) -> list[Clicks]:
        return await self._read(lambda db: rows.click_through(db, since), wait_s=LONG_S)

    async def ping(self) -> None:
        same = "UPDATE meta SET value = value WHERE name = 'changed'"
        await self._write(lambda db: db.execute(same).rowcount)
        await self._read(rows.blocked)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.shutdown()
        for connection in self._open:
            connection.close()
        self._writer.close()  # last, so that its checkpoint empties the log

    async def _write(
        self, work: Callable[[sqlite3.Connection], Answer], users: Collection[str] = ()
    ) -> Answer:
        """`users` are those of whom something is written."""
        self._recent.writes(users)
        try:
            future = self._writer.submit(work)
        except Unavailable:
            self._recent.written(users)
            raise
        # Not when the caller stops waiting: the write may still come.
        future.add_done_callback(lambda _: self._recent.written(users))
        done: Answer = await self._answer(future, self._wait_s)
        return done

    async def _read(
        self,
        work: Callable[[sqlite3.Connection], Answer],
        wait_s: float | None = None,
        one_state: bool = True,
    ) -> Answer:
        try:
            future = self._readers.submit(self._reading, work, one_state)
        except RuntimeError:
            raise closed(self._path) from None
        done: Answer = await self._answer(future, wait_s or self._wait_s)
        if self._another:
            self._another = False
            self._recent.clear()
        return done

    async def _answer(self, future: Future[Any], wait_s: float) -> Any:
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._recent.clear()
            raise Unavailable(
                f"the event store {self._path} has not answered within {wait_s:g} s",
                remedy="Check how busy its disk is. Send again: nothing is counted twice.",
            ) from None
        except MachineError as error:  # another has taken the file while ours was away
            self._recent.clear()
            raise file.unavailable(self._path, error) from error
        except Unavailable:
            self._recent.clear()
            raise

    def _reading(self, work: Callable[[sqlite3.Connection], Answer], one_state: bool) -> Answer:
        """In a reader thread; `one_state`: all its queries see the same."""
        try:
            found = self._path.stat()
            if getattr(self._own, "file", None) != (found.st_dev, found.st_ino):
                self._reopen((found.st_dev, found.st_ino))
            if not one_state:
                return work(self._own.db)
            self._own.db.execute("BEGIN")
            try:
                return work(self._own.db)
            finally:
                self._own.db.execute("ROLLBACK")
        except (sqlite3.Error, OSError) as error:
            self._own.file = None  # opened anew next time
            raise file.unavailable(self._path, error) from error

    def _reopen(self, identity: tuple[int, int]) -> None:
        self._own.file = None
        if (old := getattr(self._own, "db", None)) is not None:
            self._open.remove(old)
            old.close()
            del self._own.db
        self._own.db = file.open_reader(self._path)
        self._open.append(self._own.db)
        self._own.file = identity
        self._another = True


class SqliteReader:
    """The whole file for a command beside the service, in one state of it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise Unavailable(
                f"there is no event store {path}",
                remedy="Name it with --store, or start the service, which makes it.",
            )
        self._path = path
        try:
            self._db = file.open_reader(path)
            self._db.execute("BEGIN")
        except sqlite3.Error as error:
            raise file.unavailable(path, error) from error

    def events(self) -> Iterator[Event]:
        return rows.events(self._db)

    def erasure(self, user_id: str) -> int | None:
        return rows.erasure(self._db, user_id)

    def click_through(self, *, since: int) -> list[Clicks]:
        return rows.click_through(self._db, since)

    def copy_to(self, other: sqlite3.Connection) -> None:
        self._db.backup(other)  # in one step: of one state, and nobody has to wait

    def close(self) -> None:
        self._db.close()
