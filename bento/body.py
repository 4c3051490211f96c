"""The body of a request -> bytes, within limits of size and time, whatever a client sends.

What is too large, too slow, compressed, or says of itself that it is no JSON is refused
before it is read; nothing is ever unpickled. Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bento.errors import Disconnected, HttpError

MAX_BODY = 1_000_000  # bytes
BODY_S = 2.0  # how long a client may take to send one
SMALL = 65_536  # bytes that nobody minds to receive for nothing
LINGER, LINGER_S = 16_000_000, 1.0  # bytes, seconds
# Plain text is what a page's sendBeacon sends, a form's type what curl -d does.
TYPES = frozenset(
    {b"", b"application/json", b"text/plain", b"text/json", b"application/x-www-form-urlencoded"}
)

Headers = Mapping[bytes, bytes]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]


async def read(headers: Headers, receive: Receive, seconds: float) -> bytes:
    """Raises HttpError (408, 413, 415) and Disconnected."""
    _check(headers)
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive)
    except TimeoutError as error:
        raise HttpError(
            408,
            f"the body was not there within {seconds:g} s",
            remedy="Send it faster, or in smaller requests.",
        ) from error


def unread(headers: Headers) -> bool:
    """Is a body announced that is better not received when nobody wants it?"""
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or (length.isdigit() and int(length) > SMALL)


async def linger(receive: Receive) -> None:
    """Receive for nothing a while: a connection closed upon unread bytes would lose the answer
    that says why."""
    try:
        async with asyncio.timeout(LINGER_S):
            left = LINGER
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return  # long enough


def _check(headers: Headers) -> None:
    if (encoding := headers.get(b"content-encoding", b"identity").lower()) != b"identity":
        raise HttpError(
            415,
            f"the body is encoded as {encoding.decode('latin-1')[:60]!r}",
            remedy="Send plain JSON, without Content-Encoding.",
        )
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind not in TYPES and not kind.endswith(b"+json"):
        raise HttpError(
            415,
            f"the body says that it is {kind.decode('latin-1')[:60]!r}",
            remedy="Send JSON, with Content-Type: application/json.",
        )
    if (length := headers.get(b"content-length", b"0")).isdigit() and int(length) > MAX_BODY:
        raise _too_large(int(length))


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large(len(body))
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(size: int) -> HttpError:
    return HttpError(
        413,
        f"the body has {size} bytes or more",
        remedy=f"Send at most {MAX_BODY}.",
        value=size,
    )
