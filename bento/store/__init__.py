"""The event store: SQLite by default, Redis for several services. docs/events.md explains it.

Callers need `connect`, `reading` and the types of base.py; the backends are imported when a
URL names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bento.store.base import (
    DEFAULT_URL,
    Blocked,
    Clicks,
    Counted,
    Event,
    Impression,
    Keep,
    Past,
    Person,
    Reader,
    Store,
)
from recommender.errors import BadInput

__all__ = [
    "DEFAULT_URL",
    "Blocked",
    "Clicks",
    "Counted",
    "Event",
    "Impression",
    "Keep",
    "Past",
    "Person",
    "Reader",
    "Store",
    "backup",
    "connect",
    "reading",
    "restore",
    "sqlite_path",
]
_SQLITE = "sqlite:///"
_REDIS = ("redis://", "rediss://")


def connect(url: str, *, keep: Keep = Keep(), wait_s: float | None = None) -> Store:  # noqa: B008 - frozen
    """The store that a service uses. A call waits at most about `wait_s`: by default 2 s for
    SQLite, 0.5 s for each answer of Redis. Raises BadInput for another kind of URL, MachineError
    for a store that this service must not use; one that is away shows at the first use."""
    path = sqlite_path(url)
    if path is not None:
        from bento.store.sqlite import WAIT_S, SqliteStore

        return SqliteStore(path, keep, wait_s or WAIT_S)
    from bento.store.redis import WAIT_S as ANSWER_S
    from bento.store.redis import RedisStore

    return RedisStore(url, keep, wait_s or ANSWER_S)


@contextmanager
def reading(url: str) -> Iterator[Reader]:
    """The whole store for a command. Raises as connect(), and Unavailable where it is away."""
    path = sqlite_path(url)
    reader: Reader
    if path is not None:
        from bento.store.sqlite import SqliteReader

        reader = SqliteReader(path)
    else:
        from bento.store.redis_reading import RedisReader

        reader = RedisReader(url)
    try:
        yield reader
    finally:
        reader.close()


def backup(url: str, to: Path) -> int:
    """Write a backup file of a store, whoever has it open; the number of events in it."""
    if (path := sqlite_path(url)) is not None:
        from bento.store import sqlite_copy

        return sqlite_copy.backup(path, to)
    from bento.store import redis_copy

    return redis_copy.backup(url, to)


def restore(url: str, made: Path, *, force: bool = False) -> int:
    """Put a backup in the place of a store; the number of events in it. Raises DataError before
    anything is changed: for a file that is not whole and, without `force`, for a store that
    holds events."""
    if (path := sqlite_path(url)) is not None:
        from bento.store import sqlite_copy

        return sqlite_copy.restore(path, made, force=force)
    from bento.store import redis_copy

    return redis_copy.restore(url, made, force=force)


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite URL, None for a Redis one. Raises BadInput for any other."""
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        return Path(url.removeprefix(_SQLITE))
    if url.startswith(_REDIS):
        return None
    scheme = url.partition("://")[0] if "://" in url else url  # the rest may hold a password
    raise BadInput(
        f"no event store is meant by {scheme!r}",
        remedy="Write sqlite:///path (sqlite:////absolute/path) or redis://host:port/db.",
        field="store",
    )
