"""The environment -> the service's settings, checked once at start.

Everything Bento must be told from outside stands here; what a release fixes
(limits, models, clock) comes from the release itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bento.store import sqlite_path
from recommender.errors import BadInput

# The longest deadline a request may ask for.
MAX_DEADLINE_MS = 2000
RETIRE_S = MAX_DEADLINE_MS / 1000 + 1.0  # by then every request that had begun has ended
SCHEMES = ("grpc", "triton+http")
Parser = Callable[[str, str], Any]  # variable and its text -> the value, or BadInput


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field with the variable it is read from."""

    repository: Path = Path("model_repository")  # RECSERVE_REPOSITORY
    triton: str = "grpc://127.0.0.1:8001"  # RECSERVE_TRITON
    deadline_ms: int = 300  # RECSERVE_DEADLINE_MS, of requests that name none
    triton_calls: int = 2  # RECSERVE_TRITON_CALLS, under way at once; what comes meanwhile joins
    model: str | None = None  # RECSERVE_MODEL; None = the release's first model
    store: str | None = None  # RECSERVE_STORE, sqlite:///path or redis://...; None = no events
    keys: Path | None = None  # RECSERVE_KEYS, the file of API keys; None = none is needed
    private_metrics: bool = False  # RECSERVE_PRIVATE_METRICS: /metrics takes a key
    rate: float | None = None  # RECSERVE_RATE, requests a second of a key (or an address)
    burst: int | None = None  # RECSERVE_BURST, at once; None = those of one second
    max_inflight: int = 256  # RECSERVE_MAX_INFLIGHT: beyond it 429, at once
    cors: tuple[str, ...] = ()  # RECSERVE_CORS, origins of pages that may call
    log_level: str = "info"  # RECSERVE_LOG_LEVEL
    log_format: str = "text"  # RECSERVE_LOG_FORMAT
    log_requests: bool = False  # RECSERVE_LOG_REQUESTS: a line each
    example_users: tuple[str, ...] = ()  # RECSERVE_EXAMPLE_USERS, ids that the page may offer

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Unset and empty variables mean the default. Raises BadInput naming the variable."""
        values = {
            field.name: parse(variable, value)
            for field in fields(cls)
            for variable, parse in [(f"RECSERVE_{field.name.upper()}", PARSERS[field.name])]
            if (value := environment.get(variable, "").strip())
        }
        values.setdefault("repository", cls.repository.absolute())
        return cls(**values)


def _refused(name: str, text: str, remedy: str) -> BadInput:
    return BadInput(f"{name} is {text!r}", remedy=remedy, field=name, value=text)


def _address(name: str, text: str) -> str:
    scheme, mark, rest = text.partition("://")
    host, colon, port = rest.rpartition(":")
    if not mark or scheme not in SCHEMES or not host or not colon or not port.isdigit():
        raise _refused(name, text, "Set it to grpc://host:port or triton+http://host:port.")
    return text


def _deadline(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DEADLINE_MS:
        raise _refused(name, text, f"Set it to whole milliseconds from 1 to {MAX_DEADLINE_MS}.")
    return int(text)


def _store(name: str, text: str) -> str:
    """A relative path as an absolute one: the worker of a built bento starts elsewhere."""
    try:
        path = sqlite_path(text)
    except BadInput as error:
        raise BadInput(f"{name}: {error.what}", remedy=error.remedy, field=name) from error
    return text if path is None else f"sqlite:///{path.absolute()}"


def _path(_: str, text: str) -> Path:
    return Path(text).absolute()


def _text(_: str, text: str) -> str:
    return text


def _flag(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise _refused(name, text, "Set it to 1 or 0.")
    return text == "1"


def _count(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise _refused(name, text, "Set it to a whole number from 1 to 100000.")
    return int(text)


def _calls(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise _refused(name, text, "Set it to a whole number from 1 to 64.")
    return int(text)


def _rate(name: str, text: str) -> float:
    if not re.fullmatch(r"\d+(\.\d+)?", text) or not 0.001 <= float(text) <= 100_000:
        raise _refused(name, text, "Set it to requests a second, from 0.001 to 100000.")
    return float(text)


def _ids(_: str, text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _origins(name: str, text: str) -> tuple[str, ...]:
    """As browsers send them; `*` is any."""
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s@]+", origin):
            raise _refused(
                name, text, "Set it to origins such as https://shop.example.com, with commas "
                "between them, or to *."
            )  # fmt: skip
    return origins


def _one_of(*known: str) -> Parser:
    def parse(name: str, text: str) -> str:
        if text.lower() not in known:
            raise _refused(name, text, f"Set it to {', '.join(known)}.")
        return text.lower()

    return parse


PARSERS: Mapping[str, Parser] = {
    "repository": _path,
    "triton": _address,
    "deadline_ms": _deadline,
    "triton_calls": _calls,
    "model": _text,
    "store": _store,
    "keys": _path,
    "private_metrics": _flag,
    "rate": _rate,
    "burst": _count,
    "max_inflight": _count,
    "cors": _origins,
    "log_level": _one_of("debug", "info", "warning", "error"),
    "log_format": _one_of("text", "json"),
    "log_requests": _flag,
    "example_users": _ids,
}
