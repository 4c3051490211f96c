"""HTTP -> a route -> HTTP: a bare ASGI application, since the framework was most of the cost.

    is there room (`App.refused`, asked by bento/door.py before anything else)
    may it come in (access, origins) -> its body (body) -> the route -> an answer, or an error
                                                                      (errors) in one shape

Finds or makes the request id, counts every answer and writes what is to be logged. Knows no
recommender: a route is a function from body and call to bytes.
"""

from __future__ import annotations

import logging
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from bento import body as bodies
from bento import log as logs
from bento.access import Call, Gate, Keyring, Rates, overloaded, permit
from bento.body import BODY_S
from bento.door import Refused
from bento.errors import Disconnected, Headers, HttpError, defect, headers_of, refusal
from bento.keys import ADMIN, PREFIX
from bento.metrics import Metrics
from bento.origins import Origins
from bento.pace import Pace
from bento.settings import Settings
from recommender.errors import RecserveError

log = logging.getLogger("bentoml.recserve")

OUTSIDE = ("/livez", "/readyz", "/healthz")  # BentoML answers them; what comes here is no GET
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
JSON = b"application/json"
NOSNIFF = (b"x-content-type-options", b"nosniff")
# Of HTML: nothing from elsewhere, nothing inline, in nobody's frame.
PAGE = [
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; "
     b"frame-ancestors 'none'; object-src 'none'"),
    (b"referrer-policy", b"no-referrer"),
]  # fmt: skip

# Of the default deadline: the time in which what is let in is to be answered, on average. The
# rest is for what takes longer than the average.
WITHIN = 0.5
ERROR_HEADERS: Headers = ((b"content-type", JSON), NOSNIFF)

Scope = Mapping[str, Any]
Receive = bodies.Receive
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[bytes, Call], Awaitable[bytes]]


@dataclass(frozen=True, kw_only=True)
class Route:
    method: str  # "POST", "GET" (HEAD too), or "GET, POST"
    handler: Handler
    content_type: bytes = JSON
    scope: str | None = None  # of the key that it takes; None: open to anybody
    modelled: bool = False  # its answers come from a model, whose pace bounds how many may wait
    etag: bytes | None = None  # of an answer that stays as it is: kept, but asked for each time
    methods: frozenset[str] = field(init=False)
    headers: Headers = field(init=False)  # of its answers

    def __post_init__(self) -> None:
        methods = frozenset(self.method.split(", "))
        object.__setattr__(self, "methods", methods | ({"HEAD"} if "GET" in methods else set()))
        html = self.content_type.startswith(b"text/html")
        headers = ((b"content-type", self.content_type), NOSNIFF, *(PAGE if html else ()))
        if self.etag is not None:
            headers += ((b"etag", self.etag), (b"cache-control", b"no-cache"))
        object.__setattr__(self, "headers", headers)


class _Asked:
    """A request, and what has become known of it."""

    __slots__ = ("began", "body", "call", "client", "headers", "method", "path", "route")

    def __init__(self, scope: Scope) -> None:
        self.began = perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.client: tuple[str, int] | None = scope["client"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.call = Call(_request_id(self.headers))
        self.route = "other"  # its path, once it is one of ours: a label and a word of the log
        self.body: bytes | None = None  # None: not read


class App:
    """Routes are set once, when the service starts; until then every path is unknown."""

    def __init__(
        self, metrics: Metrics, *, settings: Settings | None = None, body_s: float = BODY_S
    ) -> None:
        self.routes: Mapping[str, Route] = {}
        self._metrics = metrics
        self._body_s = body_s
        self._under_way = 0
        self.obey(settings or Settings())

    def obey(self, settings: Settings) -> None:
        """Who is let in, and what is logged. Raises BadInput for keys that cannot be used."""
        within_s = WITHIN * settings.deadline_ms / 1000
        self.pace = Pace(most=settings.max_inflight, within_s=within_s)
        self._gate = Gate(
            keyring=None if settings.keys is None else Keyring(settings.keys),
            rates=Rates(settings.rate, settings.burst),
            pace=self.pace,
            refused=self._metrics.refused,
        )
        self._origins = Origins(settings.cors)
        self._log_requests = settings.log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        asked = _Asked(scope)
        with self._metrics.in_flight():
            self._under_way += 1
            try:
                status, headers, answer = await self._answer(asked, receive)
            except Disconnected:
                return
            except RecserveError as error:
                status, answer = error.status, refusal(error, asked.call.request_id)
                headers = (*ERROR_HEADERS, *headers_of(error))
            except Exception:
                log.exception("request %s to %s failed", asked.call.request_id, asked.route)
                request_id = asked.call.request_id
                answer = refusal(defect(request_id), request_id)
                status, headers = 500, ERROR_HEADERS
            finally:
                self._under_way -= 1
            told = self._origins.told(asked.headers)
            await _reply(asked, status, [*headers, *told], answer, receive, send)
        self._metrics.answered(asked.route, status, asked.began)
        self._log(asked, status, answer)

    def refused(
        self, under_way: int, method: bytes, url: bytes, headers: Headers
    ) -> Refused | None:
        """The answer to a request beyond what there is room for; None: it may come in. Asked of
        each before anything is made for it, so that turning away stays cheap."""
        if under_way < self.pace.limit or method != b"POST":
            return None
        path = url.decode("ascii", "replace")
        route = self.routes.get(path)
        if route is None or "POST" not in route.methods:
            return None
        if not self._gate.full(under_way, modelled=route.modelled):
            return None
        error = overloaded()
        asked = _Asked({"method": "POST", "path": path, "client": None, "headers": headers})
        asked.route = path
        answer = refusal(error, asked.call.request_id)
        self._metrics.answered(path, error.status, asked.began)
        self._log(asked, error.status, answer)
        told = self._origins.told(asked.headers)
        given = [*ERROR_HEADERS, *headers_of(error), *told, *_framing(asked, answer)]
        alike = not self._log_requests and b"x-request-id" not in asked.headers
        again = partial(self._refused_again, path, route.modelled) if alike else None
        return Refused(error.status, given, answer, asked.call.request_id.encode(), again)

    def _refused_again(self, path: str, modelled: bool, under_way: int) -> bytes | None:
        """The request id of another answer as that of `refused`; None: it may come in."""
        if not self._gate.full(under_way, modelled=modelled):
            return None
        self._metrics.answered(path, 429, perf_counter())
        return _new_id().encode()

    async def _answer(self, asked: _Asked, receive: Receive) -> tuple[int, Headers, bytes]:
        """Status, headers and body. Raises RecserveError; Disconnected where nobody waits."""
        method, headers = asked.method, asked.headers
        if asked.path in self.routes:
            asked.route = asked.path
        if method == "OPTIONS" and b"access-control-request-method" in headers:
            return 204, self._origins.preflight(headers), b""
        route = self._route(method, asked.path)
        if method == "POST":
            if self._gate.full(self._under_way - 1, modelled=route.modelled):
                raise overloaded()
            self._origins.check(headers)
        if route.scope is not None and (key := self._gate.key(headers.get(b"authorization"))):
            asked.call = Call(asked.call.request_id, key)  # who it was, even if it may not
            permit(key, route.scope)
        body = b""
        if method == "POST":
            self._gate.within_rate(asked.call.key, asked.client)
            asked.body = body = await bodies.read(headers, receive, self._body_s)
            asked.began = perf_counter()  # how long a client takes to send is not our time
        if route.etag is not None and route.etag in headers.get(b"if-none-match", b""):
            return 304, route.headers, b""
        return 200, route.headers, await route.handler(body, asked.call)

    def _log(self, asked: _Asked, status: int, answer: bytes) -> None:
        if self._log_requests:
            ms = (perf_counter() - asked.began) * 1000
            logs.request(asked.call, asked.method, asked.route, status, ms, answer)
        route = self.routes.get(asked.path)
        # 401 and 429 are counted: whoever has no key must not fill the log.
        if route is not None and route.scope == ADMIN and status not in (401, 429):
            logs.audit(asked.call, asked.path, status, asked.body or b"")

    def _route(self, method: str, path: str) -> Route:
        route = self.routes.get(path)
        if path in OUTSIDE:
            raise _no_method(path, method, "GET")
        if route is None:
            raise HttpError(
                404,
                f"there is no {path[:60]}",
                remedy=f"There is {', '.join(self.routes)}.",
                value=path[:60],
            )
        if method not in route.methods:
            raise _no_method(path, method, route.method)
        return route


def _no_method(path: str, method: str, known: str) -> HttpError:
    return HttpError(
        405,
        f"{path} takes no {method[:60]}",
        remedy=f"Use {known}.",
        value=method[:60],
        headers=[(b"allow", known.encode())],
    )


async def _reply(
    asked: _Asked,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    receive: Receive,
    send: Send,
) -> None:
    """Where a body comes that nobody wants, the connection ends with this answer."""
    unread = asked.body is None and bodies.unread(asked.headers)
    headers += _framing(asked, body)[: 1 if status in (204, 304) else 2]
    if unread or status == 408:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    shown = b"" if asked.method == "HEAD" else body
    if unread:
        await send({"type": "http.response.body", "body": shown, "more_body": True})
        await bodies.linger(receive)
        shown = b""
    await send({"type": "http.response.body", "body": shown})


def _framing(asked: _Asked, body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-request-id", asked.call.request_id.encode()),
        (b"content-length", str(len(body)).encode()),
    ]


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's X-Request-ID if it is safe to log and to echo, otherwise a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    safe = REQUEST_ID.fullmatch(given.encode("latin-1")) and PREFIX not in given
    return given if safe else _new_id()


_ids = random.Random(secrets.randbits(128))


def _new_id() -> str:
    return f"{_ids.getrandbits(64):016x}"
