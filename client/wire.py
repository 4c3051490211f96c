"""HTTP/1.1 to one server: a request -> its answer, on connections that stay open.

What a general client does for the open web (redirects, cookies, proxies, pools of many hosts)
costs as much time as a small model: between two processes of one machine, this is what is left.
The parser is httptools'. Use and close inside one event loop. Knows no Triton.

HTTP has no way to call a request back: what nobody waits for any more is computed all the same.
So its connection is kept until the answer comes, and while LEFT of those are there nothing more
is sent, or what is left behind would grow with every caller who gives up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

LEFT = 2  # requests whose callers gave up, that the server may still have
LEFT_S = 10.0  # after which such a connection is closed: it may never answer


@dataclass(slots=True)
class Reply:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class Lost(ConnectionError):
    """The connection ended before the answer; `begun`: part of the answer had come."""

    def __init__(self, why: str, *, begun: bool) -> None:
        super().__init__(why)
        self.begun = begun


class _Connection(asyncio.Protocol):
    """One request at a time. `open` until either side ends it, or what came was no HTTP."""

    ended: asyncio.Future[None]  # the answer is here, or will never be

    def __init__(self) -> None:
        self.open = self.used = False
        self._reply: Reply | None = None  # under way

    async def ask(self, request: Sequence[bytes]) -> Reply:
        """Raises Lost. Cancelled, the answer may still come: `ended`."""
        if not self.open:
            raise Lost("the connection was closed", begun=False)
        self._reply = reply = Reply()
        self._parts, self._begun, self._why = list[bytes](), False, ""
        self._parser = httptools.HttpResponseParser(self)
        self.ended = asyncio.get_running_loop().create_future()
        self._transport.writelines(request)
        await asyncio.wait([self.ended])
        if self._why:
            raise Lost(self._why, begun=self._begun)
        self.used = True
        return reply

    def close(self) -> None:
        self._end("the connection was closed")

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is no subclass of asyncio's.
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.close()  # nobody asked
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"it answers no HTTP ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        self._end(str(error) if error else "the connection was closed")

    def _end(self, why: str) -> None:
        if self.open:
            self.open = False
            self._transport.abort()
        if self._reply is not None:
            self._why = why
            self._answered()

    def _answered(self) -> None:
        self._reply = None
        self.ended.set_result(None)

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None:
            self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._reply is None:
            return
        self._reply.status = self._parser.get_status_code()
        self._reply.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._answered()
        if not self._parser.should_keep_alive():
            self.close()


class Http:
    """`address` is host:port, an IPv6 host in brackets."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(f"//{address}")
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._named = address.encode("ascii")
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._left: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Sequence[bytes] = (),
        timeout_s: float | None = None,
    ) -> Reply:
        """Raises TimeoutError; OSError where nobody answers (Lost is one). What was sent on a
        connection that had just been closed is sent again on a new one, once."""
        lines = [f"{method} {path} HTTP/1.1\r\n".encode("ascii"), b"host: ", self._named]
        for name, value in (headers or {}).items():
            lines.append(f"\r\n{name}: {value}".encode("ascii"))
        lines.append(b"\r\ncontent-length: %d\r\n\r\n" % sum(map(len, body)))
        request = [b"".join(lines), *body]
        async with asyncio.timeout(timeout_s):
            while len(self._left) >= LEFT:
                await asyncio.wait(self._left, return_when=asyncio.FIRST_COMPLETED)
            while True:
                connection = self._idle.pop() if self._idle else await self._connect()
                try:
                    return await self._asked(connection, request)
                except Lost as error:
                    if error.begun or not connection.used:
                        raise

    async def _asked(self, connection: _Connection, request: Sequence[bytes]) -> Reply:
        self._busy.add(connection)
        try:
            reply = await connection.ask(request)
        except asyncio.CancelledError:
            left = asyncio.create_task(self._drain(connection))
            self._left.add(left)
            left.add_done_callback(self._left.discard)
            raise
        except Lost:
            self._busy.discard(connection)
            raise
        self._free(connection)
        return reply

    async def _drain(self, connection: _Connection) -> None:
        """Until the answer has come that nobody waits for any more."""
        await asyncio.wait([connection.ended], timeout=LEFT_S)
        if not connection.ended.done():
            connection.close()
        self._free(connection)

    def _free(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if connection.open:
            self._idle.append(connection)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection

    def close(self) -> None:
        """Whoever waits for an answer gets Lost."""
        for task in self._left:
            task.cancel()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
