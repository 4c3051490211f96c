"""What is written to the log: as text or JSON, one line a request at most, nobody's data.

A line names methods, routes, statuses, request ids and the names of keys. Never a body, a
user, an item, an address or a key; of a failure that nobody expected the places in the code,
since its message may quote the data it failed on (at level `debug` it stands there too).
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from hashlib import sha256
from types import TracebackType
from typing import Any

import msgspec

from bento.access import Call

OURS = logging.getLogger("bentoml.recserve")
_requests = logging.getLogger("bentoml.recserve.requests")
_audit = logging.getLogger("bentoml.recserve.audit")


def configure(level: str, form: str) -> None:
    """For this process, BentoML's own lines included, which show from `info` upwards."""
    number = logging.getLevelNamesMapping()[level.upper()]
    OURS.setLevel(number)
    logging.getLogger("bentoml").setLevel(max(number, logging.INFO))
    # Whoever sends what is no HTTP would else write a line with each of it.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _requests.setLevel(logging.INFO)  # asked for by settings of their own, whatever the level
    _audit.setLevel(logging.INFO)
    formatter = (_Json if form == "json" else _Text)(messages=number <= logging.DEBUG)
    for name in (None, "bentoml", "uvicorn.error", "circus"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(formatter)


class _Told(msgspec.Struct):
    """Of an answer, what its line says."""

    release: int | None = None
    variant: str | None = None
    fallback: bool | None = None


_told = msgspec.json.Decoder(_Told)


def request(
    call: Call, method: str, route: str, status: int, milliseconds: float, answer: bytes
) -> None:
    """The one line of a request. `route` is one of ours, or `other`."""
    fields: dict[str, Any] = {
        "method": method if method.isalpha() and len(method) < 10 else "?",
        "route": route,
        "status": status,
        "ms": round(milliseconds, 2),
        "request_id": call.request_id,
        "key": call.caller,
    }
    try:
        told = _told.decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass  # an answer that is no object (metrics, a page) has nothing to tell
    else:
        fields |= {"release": told.release, "variant": told.variant, "fallback": told.fallback}
    _say(_requests, "request", fields)


class _Act(msgspec.Struct):
    """Of the body of an admin's request, what the audit keeps."""

    user_id: str | None = None
    add: list[str] = []
    remove: list[str] = []


_act = msgspec.json.Decoder(_Act)


def audit(call: Call, route: str, status: int, body: bytes) -> None:
    """Who did what, or tried to."""
    fields: dict[str, Any] = {
        "key": call.caller, "act": route, "status": status, "request_id": call.request_id,
    }  # fmt: skip
    try:
        act = _act.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # refused: the status says so
    else:
        if act.user_id is not None:
            fields["user"] = sha256(act.user_id.encode()).hexdigest()[:16]
        if act.add or act.remove:
            fields |= {"added": len(act.add), "removed": len(act.remove)}
    _say(_audit, "audit", fields)


def _say(log: logging.Logger, what: str, fields: dict[str, Any]) -> None:
    known = {name: value for name, value in fields.items() if value is not None}
    log.info(what, extra={"fields": known})


class _Safe(logging.Formatter):
    """Exceptions by type and place; by message too only where `messages`."""

    def __init__(self, *, messages: bool) -> None:
        super().__init__()
        self._messages = messages

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        _, error, _ = ei
        if self._messages or error is None:
            return super().formatException(ei)
        chain = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) and len(chain) < 5:
            chain.append(cause)
        return "\n".join(
            "".join(traceback.format_tb(one.__traceback__)) + type(one).__qualname__
            for one in reversed(chain)
        )

    def text(self, record: logging.LogRecord) -> tuple[str, str | None]:
        """Its message, and the exception it tells of."""
        told = self.formatException(record.exc_info) if record.exc_info else None
        return record.getMessage(), told


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Text(_Safe):
    def format(self, record: logging.LogRecord) -> str:
        message, told = self.text(record)
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{_time(record)} [{record.levelname}] {record.name}: {message}{pairs}"
        return line if told is None else f"{line}\n{told}"


class _Json(_Safe):
    def format(self, record: logging.LogRecord) -> str:
        message, told = self.text(record)
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
            **getattr(record, "fields", {}),
        }
        if told is not None:
            line["exception"] = told
        return msgspec.json.encode(line).decode()
