"""HTTP -> a route -> HTTP: a bare ASGI application, since the framework was most of the cost.

Reads the body up to a limit, finds or makes the request id, and gives every
error one shape: `{error: {field, value, message, remedy}, request_id}`. Knows no
recommender: a route is a function from body and request id to bytes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec

from bento.metrics import Metrics
from client.service import Fault, Refusal
from recommender.errors import BadInput, RecserveError

log = logging.getLogger("bentoml.recserve")

MAX_BODY = 1_000_000  # bytes
BODY_S = 2.0  # how long a client may take to send one
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
JSON = b"application/json"

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[bytes, str], Awaitable[bytes]]  # body, request id -> body


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str  # POST, or GET (HEAD too)
    handler: Handler
    content_type: bytes = JSON


class HttpError(RecserveError):
    """An error of the protocol, below any route."""

    def __init__(self, status: int, what: str, *, remedy: str, value: object = None) -> None:
        super().__init__(what, remedy=remedy, value=value)
        self.status = status


class Disconnected(Exception):
    """The client went away before its request was whole."""


class App:
    """Routes are set once, when the service starts; until then every path is unknown."""

    def __init__(self, metrics: Metrics, *, body_s: float = BODY_S) -> None:
        self.routes: Mapping[str, Route] = {}
        self._metrics = metrics
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        began = perf_counter()
        path, headers = scope["path"], dict(scope["headers"])
        request_id = _request_id(headers)
        extra: list[tuple[bytes, bytes]] = []
        content_type = JSON
        with self._metrics.in_flight():
            try:
                route = self._route(scope["method"], path)
                content_type = route.content_type
                body = await self._body(headers, receive) if route.method == "POST" else b""
                began = perf_counter()  # how long a client takes to send is not our time
                status, answer = 200, await route.handler(body, request_id)
            except Disconnected:
                return
            except RecserveError as error:
                status, answer, content_type = error.status, refusal(error, request_id), JSON
                if status == 405:
                    extra = [(b"allow", self.routes[path].method.encode())]
                if status in (408, 413, 415):  # the rest of the body was not read
                    extra = [(b"connection", b"close")]
            except Exception:
                log.exception("request %s to %s failed", request_id, path)
                status, answer, content_type = 500, _defect(request_id), JSON
            await _reply(
                send, status, answer, content_type, request_id, extra, scope["method"] == "HEAD"
            )
        self._metrics.answered(path if path in self.routes else "other", status, began)

    def _route(self, method: str, path: str) -> Route:
        route = self.routes.get(path)
        if route is None:
            raise HttpError(
                404,
                f"there is no {path}",
                remedy=f"There is {', '.join(self.routes)}.",
                value=path[:60],
            )
        if method != route.method and (method, route.method) != ("HEAD", "GET"):
            raise HttpError(
                405, f"{path} takes no {method}", remedy=f"Use {route.method}.", value=method[:60]
            )
        return route

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._body_s):
                return await _body(headers, receive)
        except TimeoutError as error:
            raise HttpError(
                408,
                f"the body was not there within {self._body_s:g} s",
                remedy="Send it faster, or in smaller requests.",
            ) from error


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    if (encoding := headers.get(b"content-encoding", b"identity").lower()) != b"identity":
        raise HttpError(
            415,
            f"the body is encoded as {encoding.decode('latin-1')[:60]!r}",
            remedy="Send plain JSON, without Content-Encoding.",
        )
    if (length := headers.get(b"content-length", b"0")).isdigit() and int(length) > MAX_BODY:
        raise _too_large(int(length))
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


async def _reply(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    request_id: str,
    extra: list[tuple[bytes, bytes]],
    head: bool,
) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *extra,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's X-Request-ID if it is safe to log and to echo, otherwise a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def refusal(error: RecserveError, request_id: str) -> bytes:
    field = error.field or ("body" if isinstance(error, BadInput) else None)
    fault = Fault(field=field, value=error.value, message=error.what, remedy=error.remedy)
    return msgspec.json.encode(Refusal(error=fault, request_id=request_id))


def _defect(request_id: str) -> bytes:
    fault = Fault(
        field=None,
        value=None,
        message="the service failed",
        remedy=f"See its log for request {request_id}.",
    )
    return msgspec.json.encode(Refusal(error=fault, request_id=request_id))
