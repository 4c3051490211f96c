"""The SQLite file itself: its schema and versions, who may write it, and what its errors mean.

    events.db         mode 600; WAL, synchronous=FULL: a commit has survived a power cut
    events.db.lock    held (flock) by the one service that writes

SQLite before 3.51.3 can damage a file in WAL mode when two connections write or checkpoint it
at once (the WAL-reset bug), so one connection of one process does both; every other one
is read-only. Knows no rows.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
from pathlib import Path
from urllib.parse import quote

from recommender.errors import MachineError, RecserveError, Unavailable

APPLICATION = 0x72656373  # "recs", in the file's header
# One script for each version; a version's script never changes once it was released.
UPGRADES: tuple[str, ...] = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,  -- order of arrival
        user_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        item_id TEXT NOT NULL,
        event TEXT NOT NULL,
        time INTEGER NOT NULL,
        request_id TEXT,
        weight REAL NOT NULL,
        vote REAL NOT NULL,  -- what it added to its item's trend
        UNIQUE (user_id, event_id)
    ) STRICT;
    CREATE INDEX history ON events (user_id, time, seq);
    CREATE INDEX acts ON events (user_id, item_id, time);
    CREATE TABLE users (
        user_id TEXT PRIMARY KEY,
        kept INTEGER NOT NULL,  -- events
        horizon INTEGER  -- time of the newest event that had to give way to newer ones
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE erasures (tombstone TEXT PRIMARY KEY, time INTEGER NOT NULL)
        STRICT, WITHOUT ROWID;
    CREATE TABLE trends (item_id TEXT PRIMARY KEY, sum REAL NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE blocked (item_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE impressions (
        request_id TEXT PRIMARY KEY,
        variant TEXT NOT NULL,
        release INTEGER NOT NULL,
        user_id TEXT,
        items TEXT NOT NULL,  -- a JSON list
        time INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX shown_to ON impressions (user_id) WHERE user_id IS NOT NULL;
    CREATE INDEX shown_at ON impressions (time);
    """,
    # Of what was shown before, nobody knows any more: it counts as a model's.
    "ALTER TABLE impressions ADD COLUMN fallback INTEGER NOT NULL DEFAULT 0",
    # A history is read from the index alone: rows lie as they arrived, each on a page of its own.
    """
    DROP INDEX history;
    CREATE INDEX history ON events (user_id, time, seq, item_id, event)
    """,
)
HALF_LIFE_DAYS = 30.0  # until trends are asked for with another
BUSY_MS = 1_000  # to wait for a reader that stands in the way
WAL_BYTES = 64 << 20  # beyond which the log is cut after a checkpoint


def open_writer(path: Path, *, create: bool) -> sqlite3.Connection:
    """The one connection that writes; the caller holds the lock. The schema is the current one.

    Raises MachineError for a file of a newer recserve or of something else.
    """
    if create and not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(_uri(path, "rw"), uri=True, isolation_level=None, timeout=BUSY_MS / 1000)
    try:
        _refuse_foreign(db, path)
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is forgotten leaves no bytes behind
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        _upgrade(db)
    except BaseException:
        db.close()
        raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that neither writes nor checkpoints. Raises MachineError as open_writer."""
    db = sqlite3.connect(
        _uri(path, "ro"),
        uri=True,
        isolation_level=None,
        timeout=BUSY_MS / 1000,
        check_same_thread=False,
    )
    try:
        _refuse_foreign(db, path)
        if version_of(db) < len(UPGRADES):
            raise MachineError(
                f"{path} is an event store of version {version_of(db)}, and this recserve reads "
                f"version {len(UPGRADES)}",
                remedy="Start the service once: it brings the store up to date.",
            )
    except BaseException:
        db.close()
        raise
    return db


def lock(path: Path) -> int:
    """A handle that holds the store's lock until it is closed. Raises MachineError."""
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise MachineError(
            f"the event store {path} is open in another service",
            remedy="Stop that one, or give this one a store of its own (--store sqlite:///PATH), "
            "or both the same Redis.",
        ) from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def make_folder(folder: Path) -> None:
    """With its parents, and on the disk."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """A file or folder is on the disk. Never the store's own: closing it here would take away
    the locks of this process's connections."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _refuse_foreign(db: sqlite3.Connection, path: Path) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and application != APPLICATION:
        raise MachineError(
            f"{path} is an SQLite file, but no event store", remedy="Name another file."
        )
    if (version := version_of(db)) > len(UPGRADES):
        raise MachineError(
            f"{path} is an event store of version {version}, and this recserve knows versions up "
            f"to {len(UPGRADES)}",
            remedy="Use the recserve that wrote it, or a newer one.",
        )


def _upgrade(db: sqlite3.Connection) -> None:
    """Version by version, each whole or not at all."""
    for version, script in enumerate(UPGRADES[version_of(db) :], start=version_of(db) + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in script.split(";"):
                db.execute(statement)
            if version == 1:
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                first = [("salt", secrets.token_bytes(32)), ("changed", 0),
                         ("half_life", HALF_LIFE_DAYS)]  # fmt: skip
                db.executemany("INSERT INTO meta VALUES (?, ?)", first)
            db.execute(f"PRAGMA user_version = {version}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path))}?mode={mode}"


_REMEDIES = {
    sqlite3.SQLITE_FULL: "Free some space on its disk.",
    sqlite3.SQLITE_IOERR: "Check its disk; free some space if it is full.",
    sqlite3.SQLITE_CANTOPEN: "Check that its folder is there and can be written.",
    sqlite3.SQLITE_READONLY: "Give the service the right to write it.",
    sqlite3.SQLITE_BUSY: "Look for another program that holds it open for writing.",
    sqlite3.SQLITE_CORRUPT: "Restore a backup: recserve restore FILE --force.",
    sqlite3.SQLITE_NOTADB: "Restore a backup: recserve restore FILE --force.",
}


def unavailable(path: Path, error: Exception) -> RecserveError:
    """What a failure of the file means for whoever asked; the remedy is the operator's."""
    if isinstance(error, RecserveError):
        return error if isinstance(error, Unavailable) else Unavailable(
            error.what, remedy=error.remedy
        )  # fmt: skip
    said, remedy = str(error), "Check its disk."
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        remedy = _REMEDIES.get(code, remedy)
    elif isinstance(error, OSError):
        said = error.strerror or said
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = _REMEDIES[sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_CANTOPEN]
    return Unavailable(f"the event store {path} cannot be used: {said}", remedy=remedy)
