"""What the asynchronous and the synchronous Redis client share: keys, scripts, errors.

    recserve:schema                        "1 <salt>": version of the layout, and the store's salt
    recserve:events:<user>                 sorted set by time: "arrival weight vote record"
    recserve:ids:<user>  votes:  horizon:  event ids; what counted on which day; see sqlite_rows.py
    recserve:answers:<user>                request ids of what was shown, by time
    recserve:shown:<request id>            an impression; it expires
    recserve:erasures trends blocked ...   hashes, sets and numbers of the whole store

Scripts make each change atomic. They touch keys that they are not told beforehand, so a Redis
Cluster is not supported.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from bento.store.base import Event, Past
from recommender.errors import BadInput, MachineError, Unavailable

PREFIX = "recserve:"
# Of the keys and what is in them. A record that gains a field with a default needs no other: it is
# read where it lacks the field, and a service that does not know the field passes over it.
SCHEMA = 1
_LUA = Path(__file__).with_name("lua")


class _Act(msgspec.Struct, frozen=True, gc=False):
    """Of an event's record, what `past_of` reads."""

    item_id: str
    event: str
    timestamp: int


_EVENT, _ACTS = msgspec.json.Decoder(Event), msgspec.json.Decoder(list[_Act])


def script(name: str) -> str:
    return (_LUA / "common.lua").read_text() + (_LUA / f"{name}.lua").read_text()


def new_identity() -> str:
    return f"{SCHEMA} {secrets.token_hex(32)}"


def salt_of(identity: str, where: str) -> bytes:
    """Raises MachineError for a store of another version."""
    version, _, salt = identity.partition(" ")
    if version != str(SCHEMA):
        raise MachineError(
            f"{where} holds an event store of version {version}, and this recserve knows version "
            f"{SCHEMA}",
            remedy="Use the recserve that wrote it, or name another database (redis://host:port/N).",
        )
    return bytes.fromhex(salt)


def is_other_store(error: ResponseError) -> bool:
    return str(error).startswith("OTHERSTORE")


def event_of(member: bytes) -> Event:
    return _EVENT.decode(member.split(b" ", 3)[3])


def past_of(members: Sequence[bytes]) -> Past:
    """`members`, newest first; all at once, which takes a third of the time."""
    records = [member.split(b" ", 3)[3] for member in reversed(members)]
    acts = _ACTS.decode(b"[" + b",".join(records) + b"]")
    return Past(
        [act.item_id for act in acts], [act.event for act in acts], [act.timestamp for act in acts]
    )


def weight_of(member: bytes) -> float:
    return float(member.split(b" ", 2)[1])


def where(url: str) -> str:
    """The address without a password. Raises BadInput."""
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError
        return f"redis at {parts.hostname}:{parts.port or 6379}/{int(parts.path.strip('/') or 0)}"
    except ValueError:
        raise BadInput(
            f"no Redis is meant by a URL that ends in {url.rpartition('@')[2]!r}",
            remedy="Write redis://host:port/db, where db is a number.",
            field="store",
        ) from None


def unavailable(place: str, error: Exception) -> Unavailable:
    what, remedy = f"{place} cannot be used: {error}", "Check that it runs and can be reached."
    if isinstance(error, RedisTimeoutError | TimeoutError):
        what = f"{place} has not answered in time"
    elif isinstance(error, AuthenticationError):
        remedy = "Check user and password in the URL of --store."
    elif isinstance(error, ResponseError):
        remedy = "Check its log, memory and disk."
    return Unavailable(what, remedy=remedy)


FAILURES: tuple[Any, ...] = (RedisError, OSError)
