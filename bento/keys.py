"""The file of API keys: who may call, for what, until when, how often.

    {"schema": 1, "keys": [{"name", "scopes", "sha256", "created", "expires", "rate"}, ...]}

A key itself is shown once, when it is made; the file has its SHA-256 alone. (256 random
bits cannot be guessed, so a slow hash would only slow the service down.) Written by
rename, for its owner's eyes. What a running service does with it is `bento/access.py`'s.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from recommender.errors import BadInput, NotFound

SCHEMA = 1
PREFIX = "rsk_"
RECOMMEND, EVENTS, ADMIN, METRICS = "recommend", "events", "admin", "metrics"
SCOPES = (RECOMMEND, EVENTS, ADMIN, METRICS)  # `admin` may do everything
MAX_KEYS = 1000  # each request is compared with all of them
Moment = Annotated[datetime, Meta(tz=True)]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key, as it is kept."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    scopes: Annotated[tuple[Literal["recommend", "events", "admin", "metrics"], ...],
                      Meta(min_length=1)]  # fmt: skip
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    created: Moment
    expires: Moment | None = None
    rate: Annotated[float, Meta(ge=0.001, le=100_000)] | None = (
        None  # requests a second; None: RECSERVE_RATE
    )

    def may(self, scope: str) -> bool:
        return scope in self.scopes or ADMIN in self.scopes

    def expired(self, now: float) -> bool:
        return self.expires is not None and self.expires.timestamp() <= now


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    keys: Annotated[tuple[Key, ...], Meta(max_length=MAX_KEYS)]


class _Schema(msgspec.Struct):
    schema: int


def read(path: Path) -> tuple[Key, ...]:
    """Every key of the file. Raises BadInput where it cannot be read, or says a name twice."""
    try:
        raw = path.read_bytes()
        if (seen := msgspec.json.decode(raw, type=_Schema).schema) != SCHEMA:
            raise _unusable(path, f"schema {seen}, not {SCHEMA}")
        keys = msgspec.json.decode(raw, type=_File).keys
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(path, str(error)) from error
    if len({key.name for key in keys}) < len(keys):
        raise _unusable(path, "a name stands twice")
    return keys


def add(
    path: Path,
    name: str,
    scopes: Sequence[str],
    *,
    expires: datetime | None = None,
    rate: float | None = None,
) -> str:
    """A new key of that name; the only time that anybody sees it. Raises BadInput."""
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        kept = msgspec.convert(
            {
                "name": name,
                "scopes": tuple(dict.fromkeys(scopes)),
                "sha256": digest(key.encode()).hex(),
                "created": datetime.now(UTC).replace(microsecond=0),
                "expires": expires,
                "rate": rate,
            },
            Key,
        )
    except msgspec.ValidationError as error:
        raise BadInput(
            f"key {name!r}: {error}",
            remedy="Names are 1 to 64 of A-Z a-z 0-9 . _ -; scopes are "
            f"{', '.join(SCOPES)}; a rate is 0.001 to 100000.",
            value=name,
        ) from error
    with _changing(path):
        keys = read(path) if path.exists() else ()
        if any(other.name == name for other in keys):
            raise BadInput(
                f"there is a key {name!r}",
                remedy="Give the new one another name, hand it out, then revoke the old one.",
                field="NAME",
                value=name,
            )
        if len(keys) == MAX_KEYS:
            raise BadInput(f"there are {MAX_KEYS} keys", remedy="Revoke those nobody uses.")
        _write(path, (*keys, kept))
    return key


def revoke(path: Path, name: str) -> None:
    """Raises NotFound where no key has that name."""
    with _changing(path):
        keys = read(path)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            raise NotFound(
                f"there is no key {name!r} in {path}",
                remedy="See `recserve keys list`.",
                field="NAME",
                value=name,
            )
        _write(path, left)


def digest(key: bytes) -> bytes:
    return sha256(key).digest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One writer at a time: a lock on the folder, so that no file of ours stays in it."""
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    path = path.resolve()  # a link stays one
    text = msgspec.json.format(msgspec.json.encode(_File(schema=SCHEMA, keys=keys)), indent=2)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _unusable(path: Path, why: str) -> BadInput:
    return BadInput(
        f"the keys file {path} cannot be used: {why}",
        remedy="Make one with `recserve keys add NAME --scope recommend --keys FILE`.",
        field="RECSERVE_KEYS",
        value=str(path),
    )
