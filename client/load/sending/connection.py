"""Requests -> answers over HTTP/1.1: keep-alive, one request at a time on each connection.

The parser is httptools, the loop should be uvloop. A connection is all that is between the
measurement and the socket, so it does little: an answer's instant is taken where its last byte
is parsed. Knows no API.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from typing import NamedTuple, cast

import httptools

from client.load.sending.places import Places


class Response(NamedTuple):
    done: float  # time.perf_counter() at its last byte
    status: int
    body: bytes


class Lost(Exception):
    """No answer; `str` says why, `done` when that was known."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.done = time.perf_counter()


class Connection(asyncio.Protocol):
    def __init__(self, idle: deque[Connection], timeout_s: float) -> None:
        self._idle = idle  # where it goes when it is free
        self._timeout_s = timeout_s  # for a request, in words
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._body: list[bytes] = []
        self.open = False

    async def ask(self, request: bytes, until: float) -> Response:
        """The answer that comes before time.perf_counter() is `until`. Raises Lost."""
        loop = asyncio.get_running_loop()
        self._answer = answer = loop.create_future()
        late = loop.call_later(max(until - time.perf_counter(), 0), self._late)
        self._transport.write(request)
        try:
            response: Response = await answer
            return response
        finally:
            late.cancel()
            if self._answer is answer:  # given up by the caller: what comes now is nobody's
                self._answer = None
                self.abort()

    def abort(self) -> None:
        self._transport.abort()

    def _late(self) -> None:
        self._fail(f"no answer within {self._timeout_s:g} s")
        self.abort()

    def _fail(self, why: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(Lost(why))

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"an answer that is no HTTP ({type(error).__name__})")
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        why = type(error).__name__ if error else "closed by the server"
        self._fail(f"the connection was lost ({why})")

    # --- what the parser calls

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        answer, self._answer = self._answer, None
        if answer is not None and self._parser.should_keep_alive():
            self._idle.append(self)
        else:  # the server ends it, or says what nobody asked
            self.open = False
            self._transport.close()
        if answer is not None and not answer.done():
            answer.set_result(Response(time.perf_counter(), status, body))


class Connections:
    """To one server, at most `most` at a time; who comes when all are taken waits for one."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, most: int, timeout_s: float
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._timeout_s = timeout_s
        self._idle: deque[Connection] = deque()
        self._places = Places(most)
        self._all: set[Connection] = set()

    async def ask(self, request: bytes) -> Response:
        """Raises Lost. What waits for a place counts in the time that is allowed."""
        until = time.perf_counter() + self._timeout_s
        await self._places.take()
        try:
            if until <= time.perf_counter():
                raise Lost(f"no free connection within {self._timeout_s:g} s")
            connection = self._free() or await self._opened(until)
            try:
                return await connection.ask(request, until)
            finally:
                if not connection.open:
                    self._all.discard(connection)
        finally:
            self._places.leave()

    def _free(self) -> Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
            self._all.discard(connection)
        return None

    async def _opened(self, until: float) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(until - time.perf_counter()):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._idle, self._timeout_s),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as error:
            raise Lost(f"no connection within {self._timeout_s:g} s") from error
        except ssl.SSLError as error:
            raise Lost(f"no connection ({error.reason or error})") from error
        except OSError as error:
            raise Lost(f"no connection ({error.strerror or type(error).__name__})") from error
        self._all.add(connection)
        return connection

    async def close(self) -> None:
        for connection in self._all:
            connection.abort()
        await asyncio.sleep(0)
