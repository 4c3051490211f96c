"""Backup and restore of the SQLite store, from a process beside the service.

A backup is SQLite's own online copy, of one state, while the service writes on. A restore wants
the store's lock, so no service has it open; the new file is made and checked beside the old one
and takes its place by rename.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from bento.store import copies
from bento.store import sqlite_file as file
from bento.store.sqlite import SqliteReader
from recommender.errors import BadInput, DataError

KIND = "sqlite"


def backup(store: Path, to: Path) -> int:
    """Write a backup of `store`; the number of events in it. Raises Unavailable, DataError."""
    if to.absolute() == store.absolute():
        raise BadInput(
            f"{to} is the store itself", remedy="Name another file for the backup.", field="FILE"
        )
    copy = to.with_name(f".{to.name}.copy")
    _remove(copy)
    try:
        os.close(os.open(copy, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(SqliteReader(store)) as reader, closing(_plain(copy)) as db:
            reader.copy_to(db)
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
            _check(db, store)
            (events,) = db.execute("SELECT count(*) FROM events").fetchone()

        def fill(out: copies.Out) -> None:
            with copy.open("rb") as made:
                while data := made.read(copies.CHUNK):
                    out.write(data)

        copies.write(to, KIND, fill)
        return int(events)
    finally:
        _remove(copy)


def restore(store: Path, made: Path, *, force: bool) -> int:
    """Put what `made` holds in the place of `store`; the number of events in it. Raises
    MachineError for a store that is open, DataError for a backup that is not whole and, without
    `force`, for a store that holds events: nothing is changed then."""
    with copies.opened(made, KIND) as copy:
        file.make_folder(store.absolute().parent)
        lock = file.lock(store)
        new = store.with_name(f".{store.name}.restoring")
        try:
            if not force and _holds_events(store):
                raise copies.refuse_full(store)
            _remove(new)
            with open(os.open(new, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as out:  # noqa: PTH123
                while data := copy.read(copies.CHUNK):
                    out.write(data)
            with closing(file.open_writer(new, create=False)) as db:  # brought up to date
                _check(db, made)
                (events,) = db.execute("SELECT count(*) FROM events").fetchone()
            _close_down(store)
            file.sync(new)
            new.replace(store)
            file.sync(store.parent)
            return int(events)
        finally:
            _remove(new)
            os.close(lock)


def _holds_events(store: Path) -> bool:
    """A file that cannot be read may hold any."""
    if not store.exists():
        return False
    try:
        with closing(file.open_writer(store, create=False)) as db:
            return db.execute("SELECT 1 FROM events").fetchone() is not None
    except sqlite3.Error:
        return True


def _close_down(store: Path) -> None:
    """The log of the old file must not be taken for the new one's."""
    try:
        if store.exists():
            file.open_writer(store, create=False).close()  # the last one out empties the log
    except sqlite3.Error:
        pass  # damaged, and about to be replaced
    for suffix in ("-wal", "-shm"):
        store.with_name(f"{store.name}{suffix}").unlink(missing_ok=True)


def _check(db: sqlite3.Connection, source: Path) -> None:
    (said,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if said != "ok":
        raise DataError(
            f"the event store in {source} is damaged: {said}", remedy="Take another backup."
        )


def _plain(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
