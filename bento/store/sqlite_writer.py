"""The one thread that writes the SQLite file: whatever waits is committed together.

    job, job, job  ->  BEGIN, each in a savepoint, COMMIT (one fsync)  ->  each job's answer

A job is answered after the commit, and after a look at whether the file still lies where it
should. When the disk fails, all jobs of that commit fail with Unavailable and the file is
opened anew for the next ones. Knows no rows.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from bento.store import sqlite_file as file
from recommender.errors import RecserveError, Unavailable

Work = Callable[[sqlite3.Connection], Any]
Job = tuple[Work, "Future[Any]"]
WAITING = 10_000  # jobs; beyond them the store is too slow for what it is asked
TOGETHER = 1_000  # jobs in one commit
SCRUB_S = 1.0  # between two attempts
# A caller's values, or a fault of ours; the file is well.
CALLERS = (
    sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
)  # fmt: skip


class Writer:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self.scrub = False  # forgotten rows may still be in the log: set by jobs
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._was_open = False
        self._closed = False
        self._scrub_at: float | None = None  # when to try again
        self._thread = threading.Thread(target=self._run, name="event store", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        if self._closed:
            raise closed(self.path)
        if self._jobs.qsize() >= WAITING:
            raise Unavailable(
                f"{WAITING:,} writes wait for the event store {self.path}",
                remedy="Send again later; a faster disk, or Redis, takes more at once.",
            )
        job: Job = (work, Future())
        self._jobs.put(job)
        return job[1]

    def close(self) -> None:
        """Returns when all that was submitted has been answered."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            jobs = self._waiting()
            going = None not in jobs
            self._answer([job for job in jobs if job and job[1].set_running_or_notify_cancel()])
            if self._scrub_at is not None and time.monotonic() > self._scrub_at:
                self._scrub()
        self._give_up()

    def _waiting(self) -> list[Job | None]:
        """At least one job; or none after a while, where the log is still to be scrubbed."""
        jobs: list[Job | None] = []
        with suppress(queue.Empty):
            jobs.append(self._jobs.get(timeout=None if self._scrub_at is None else SCRUB_S))
            while len(jobs) < TOGETHER:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _scrub(self) -> None:
        """Cut the log. While a reader needs it, that is tried again later: a long reading does
        not slow the commits down."""
        if self._db is None:
            return
        self.scrub, self._scrub_at = False, time.monotonic() + SCRUB_S
        try:
            self._db.execute("PRAGMA busy_timeout = 0")
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._db.execute(f"PRAGMA busy_timeout = {file.BUSY_MS}")
            if not busy:
                self._scrub_at = None
        except sqlite3.Error:  # the disk: the next commit says so, and this is tried again
            self._give_up()

    def _answer(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        try:
            done = self._commit(self._opened(), jobs)
            if self.scrub:
                self._scrub()
        except Exception as error:
            self._give_up()
            for _, future in jobs:
                ours = isinstance(error, RecserveError)
                future.set_exception(error if ours else file.unavailable(self.path, error))
            return
        for (_, future), answer in zip(jobs, done, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _commit(self, db: sqlite3.Connection, jobs: list[Job]) -> list[Any]:
        answers: list[Any] = []
        db.execute("BEGIN IMMEDIATE")
        for work, _ in jobs:
            db.execute("SAVEPOINT job")
            try:
                answers.append(work(db))
            except (sqlite3.Error, OSError) as error:
                if not isinstance(error, CALLERS):
                    raise
                answers.append(error)
            except Exception as error:
                answers.append(error)
            if isinstance(answers[-1], Exception):
                db.execute("ROLLBACK TO job")
            db.execute("RELEASE job")
        db.execute("COMMIT")
        self.commits += 1
        self._check()
        return answers

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            if not self._was_open:
                file.make_folder(self.path.parent)
            elif not self.path.exists():  # never a second, empty one while the disk is away
                raise Unavailable(
                    f"the event store {self.path} is gone",
                    remedy="Bring its disk back; a restart of the service begins a new store.",
                )
            self._lock = file.lock(self.path)
            self._db = file.open_writer(self.path, create=not self._was_open)
            self._was_open = True
            self._identity = _identity(self.path)
        return self._db

    def _check(self) -> None:
        """What was written to a file that has been moved or removed is not acknowledged."""
        log = self.path.with_name(f"{self.path.name}-wal")
        there = self.path.exists() and log.exists()
        if not there or _identity(self.path) != self._identity:
            raise Unavailable(
                f"the event store {self.path} was moved or removed while it was open",
                remedy="Put it back; a restart of the service begins a new store.",
            )

    def _give_up(self) -> None:
        """Close; whatever was not committed is rolled back. The next job opens anew."""
        if self._db is not None:
            with suppress(sqlite3.Error):  # it was said already, to whoever waited
                self._db.close()
            self._db = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def closed(path: Path) -> Unavailable:
    return Unavailable(f"the event store {path} is closed", remedy="Start the service.")


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
