"""What happens inside one transaction of the SQLite store: functions of a connection, no more.

The caller begins and commits; nothing here knows threads, files or that others wait.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from bento.store import decay
from bento.store.base import (
    DAY,
    Blocked,
    Clicks,
    Counted,
    Event,
    Impression,
    Keep,
    Past,
    Person,
    tombstone,
    weight_of,
)
from bento.store.clicks import click_through as clicks_of

COLUMNS = "event_id, user_id, item_id, event, time, request_id"
SHOWN = "request_id, variant, release, user_id, items, time, fallback"
# A `Past` for each user, all in one row: each row is a turn of the thread that reads with the one
# that answers. The order, newest first, is that of the inner query, whose LIMIT keeps it from being
# merged into the outer one.
PASTS = """
SELECT json_group_array((
    SELECT json_array(json_group_array(item_id), json_group_array(event), json_group_array(time))
    FROM (SELECT item_id, event, time FROM events WHERE user_id = asked.column1
          ORDER BY time DESC, seq DESC LIMIT ?1)
)), EXISTS (SELECT 1 FROM erasures)
FROM (VALUES {users}) AS asked
"""
_pasts_of = msgspec.json.Decoder(list[Past])


def add(
    db: sqlite3.Connection, events: Sequence[Event], weights: Mapping[str, float], keep: Keep
) -> Counted:
    accepted = duplicates = forgotten = 0
    half_life = float(meta(db, "half_life"))
    for event in events:
        user, moment = event.user_id, event.timestamp
        erased = erasure(db, user)
        if erased is not None and moment <= erased:
            forgotten += 1
            continue
        user_row = _one(db, "SELECT kept, horizon FROM users WHERE user_id = ?", user)
        kept, horizon = user_row or (0, None)
        known = "SELECT 1 FROM events WHERE user_id = ? AND event_id = ?"
        if (horizon is not None and moment <= horizon) or _one(db, known, user, event.event_id):
            duplicates += 1
            continue
        weight = weight_of(event, weights)
        vote = _vote(db, event, weight, horizon)
        db.execute(
            f"INSERT INTO events ({COLUMNS}, weight, vote) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (event.event_id, user, event.item_id, event.event, moment, event.request_id,
             weight, vote),
        )  # fmt: skip
        if vote > 0:
            power = decay.exponent(moment, half_life)
            _set_trend(db, event.item_id, decay.plus(_trend(db, event.item_id), vote, power))
        if kept + 1 > keep.events_per_user:
            kept, horizon = _give_way(db, user, kept + 1 - keep.events_per_user, kept, horizon)
        db.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (user, kept + 1, horizon))
        accepted += 1
    return Counted(accepted, duplicates, forgotten)


def _vote(db: sqlite3.Connection, event: Event, weight: float, horizon: int | None) -> float:
    """What it adds to its item: a user's acts on one item and UTC day count as the strongest.

    Days of which the history has lost events add nothing: nobody knows what was counted.
    """
    day = event.timestamp // DAY
    if weight <= 0 or (horizon is not None and day <= horizon // DAY):
        return 0.0
    (counted,) = db.execute(
        "SELECT total(vote) FROM events WHERE user_id = ? AND item_id = ? AND time BETWEEN ? AND ?",
        (event.user_id, event.item_id, day * DAY, day * DAY + DAY - 1),
    ).fetchone()
    return max(0.0, weight - float(counted))


def _give_way(
    db: sqlite3.Connection, user: str, count: int, kept: int, horizon: int | None
) -> tuple[int, int | None]:
    """The oldest events of a history that is too long go; how many are kept, and its horizon."""
    oldest = "SELECT seq, time FROM events WHERE user_id = ? ORDER BY time, seq LIMIT ?"
    rows = db.execute(oldest, (user, count)).fetchall()
    db.executemany("DELETE FROM events WHERE seq = ?", [(seq,) for seq, _ in rows])
    newest = rows[-1][1]
    return kept - len(rows), newest if horizon is None else max(newest, horizon)


def persons(db: sqlite3.Connection, users: Sequence[str], limit: int) -> list[Person]:
    """Right without a transaction, too: what is erased between two queries is not in it."""
    asked = PASTS.format(users=", ".join(f"(?{i})" for i in range(2, len(users) + 2)))
    newest, some_erased = db.execute(asked, (limit, *users)).fetchone()
    erased = erasures(db, users) if some_erased else {}
    found = list[Person]()
    for user, past in zip(users, _pasts_of.decode(newest), strict=True):
        for column in past:
            column.reverse()
        forgotten = erased.get(user)
        kept = past if forgotten is None else past.after(forgotten)
        found.append(Person(past=kept, forgotten=forgotten))
    return found


def forget(db: sqlite3.Connection, user: str, now: int) -> int:
    half_life = float(meta(db, "half_life"))
    voted = "SELECT item_id, time, vote FROM events WHERE user_id = ? AND vote > 0"
    for item, moment, vote in db.execute(voted, (user,)).fetchall():
        if (kept := _trend(db, item)) is not None:
            _set_trend(db, item, decay.minus(kept, vote, decay.exponent(moment, half_life)))
    erased = db.execute("DELETE FROM events WHERE user_id = ?", (user,)).rowcount
    db.execute("DELETE FROM users WHERE user_id = ?", (user,))
    db.execute("DELETE FROM impressions WHERE user_id = ?", (user,))
    time = max(now, erasure(db, user) or now)
    mark = tombstone(meta(db, "salt"), user)
    db.execute("INSERT OR REPLACE INTO erasures VALUES (?, ?)", (mark, time))
    return erased


def erasure(db: sqlite3.Connection, user: str) -> int | None:
    return erasures(db, [user]).get(user)


def erasures(db: sqlite3.Connection, users: Iterable[str]) -> dict[str, int]:
    """When, of those of `users` who were erased: one query, however many they are."""
    salt = meta(db, "salt")
    user_of = {tombstone(salt, user): user for user in users}
    places = ", ".join("?" * len(user_of))
    rows = db.execute(
        f"SELECT tombstone, time FROM erasures WHERE tombstone IN ({places})", (*user_of,)
    )
    return {user_of[mark]: int(time) for mark, time in rows}


def trends(db: sqlite3.Connection, now: int, half_life: float) -> dict[str, float] | None:
    """None where they are kept with another half-life."""
    if float(meta(db, "half_life")) != half_life:
        return None
    power = decay.exponent(now, half_life)
    rows = db.execute("SELECT item_id, sum FROM trends WHERE sum > ?", (decay.least(power),))
    return {item: decay.votes(kept, power) for item, kept in rows}


def recount(db: sqlite3.Connection, half_life: float) -> None:
    """Trends anew with another half-life, from the votes of the events that are kept."""
    if float(meta(db, "half_life")) == half_life:
        return
    sums: dict[str, float] = {}
    for item, moment, vote in db.execute("SELECT item_id, time, vote FROM events WHERE vote > 0"):
        sums[item] = decay.plus(sums.get(item), vote, decay.exponent(moment, half_life))
    db.execute("DELETE FROM trends")
    db.executemany("INSERT INTO trends VALUES (?, ?)", sums.items())
    db.execute("UPDATE meta SET value = ? WHERE name = 'half_life'", (half_life,))


def blocked(db: sqlite3.Connection) -> Blocked:
    items = frozenset(item for (item,) in db.execute("SELECT item_id FROM blocked"))
    return Blocked(items, int(meta(db, "changed")))


def block(db: sqlite3.Connection, add: Sequence[str], remove: Sequence[str]) -> Blocked:
    before = db.total_changes
    gone = set(remove) - set(add)
    db.executemany("DELETE FROM blocked WHERE item_id = ?", [(item,) for item in gone])
    db.executemany("INSERT OR IGNORE INTO blocked VALUES (?)", [(item,) for item in add])
    if db.total_changes > before:
        db.execute("UPDATE meta SET value = value + 1 WHERE name = 'changed'")
    return blocked(db)


def show(db: sqlite3.Connection, shown: Iterable[Impression], keep: Keep) -> None:
    """Keep impressions, and drop those whose time is over."""
    # A hash for each user costs the writer, hence the whole service, more than all else here.
    if _one(db, "SELECT 1 FROM erasures LIMIT 1") is not None:
        shown = [answer for answer in shown if not _erased_since(db, answer)]
    db.executemany(
        f"INSERT OR IGNORE INTO impressions ({SHOWN}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(answer.request_id, answer.variant, answer.release, answer.user_id,
          msgspec.json.encode(answer.items).decode(), answer.time, answer.fallback)
         for answer in shown],
    )  # fmt: skip
    oldest = int(time.time()) - keep.impression_days * DAY
    db.execute("DELETE FROM impressions WHERE time < ?", (oldest,))


def _erased_since(db: sqlite3.Connection, answer: Impression) -> bool:
    erased = None if answer.user_id is None else erasure(db, answer.user_id)
    return erased is not None and answer.time <= erased


def click_through(db: sqlite3.Connection, since: int) -> list[Clicks]:
    shown = db.execute(f"SELECT {SHOWN} FROM impressions WHERE time >= ?", (since,))
    acts = db.execute(
        f"SELECT {COLUMNS} FROM events WHERE time >= ? AND weight > 0 ORDER BY seq", (since,)
    )
    return clicks_of((_impression(row) for row in shown), (_event(row) for row in acts))


def events(db: sqlite3.Connection) -> Iterator[Event]:
    """All, in the order of arrival."""
    for row in db.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq"):
        yield _event(row)


def meta(db: sqlite3.Connection, name: str) -> Any:
    """The salt is bytes, the others are numbers."""
    return db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0]


def _trend(db: sqlite3.Connection, item: str) -> float | None:
    row = _one(db, "SELECT sum FROM trends WHERE item_id = ?", item)
    return None if row is None else float(row[0])


def _set_trend(db: sqlite3.Connection, item: str, kept: float | None) -> None:
    if kept is None:
        db.execute("DELETE FROM trends WHERE item_id = ?", (item,))
    else:
        db.execute("INSERT OR REPLACE INTO trends VALUES (?, ?)", (item, kept))


def _one(db: sqlite3.Connection, query: str, *values: object) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = db.execute(query, values).fetchone()
    return row


def _event(row: tuple[str, str, str, str, int, str | None]) -> Event:
    event_id, user, item, event, moment, request = row
    return Event(event_id=event_id, user_id=user, item_id=item, event=event,
                 timestamp=moment, request_id=request)  # fmt: skip


def _impression(row: tuple[str, str, int, str | None, str, int, int]) -> Impression:
    request, variant, release, user, items, moment, fallback = row
    return Impression(request_id=request, variant=variant, release=release, user_id=user,
                      items=msgspec.json.decode(items, type=tuple[str, ...]),
                      time=moment, fallback=bool(fallback))  # fmt: skip
