"""uvicorn's quick HTTP protocol, with what a server in the open needs before an application runs.

    head      at most MAX_HEAD bytes: its parser in C takes any number into memory
    refusals  what the application would turn away is answered here, for a tenth of what a call
              of it costs: ten times the traffic that fits must not cost what fits. And a head that
              was turned away within this second is not even parsed when it comes again
    idle      connections stay open longer than load balancers keep theirs (60 s are usual), which
              otherwise send a request into a connection that is just being closed
    answers   head and body leave together: two packets cost server and caller a system call more

h11, which uvicorn uses where httptools is not installed, costs each request more than everything
that we do with it. Knows no application: `use` names who turns away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bento.errors import Headers

MAX_HEAD = 65_536  # bytes
SMALL = 65_536  # bytes of a body that is read and dropped, rather than left in the way
KEEP_ALIVE_S = 75
_HEADS = 64  # that were turned away and are known when they come again
_SHORT = 2048  # bytes of such a head, at most


class Refused(NamedTuple):
    """An answer that turns away. `again` takes the requests under way and gives the request id of
    the next such answer to the same head, or None where there is room; None: no two are alike."""

    status: int
    headers: Headers
    body: bytes
    request_id: bytes
    again: Callable[[int], bytes | None] | None = None


class _Known(NamedTuple):
    """A head that was turned away."""

    length: int  # of the body that belongs to it
    parts: list[bytes]  # the answer, whose request ids were cut out
    again: Callable[[int], bytes | None]
    dated: object  # the server's headers then: another date makes another answer


# Requests under way, method, path and headers -> the answer that turns one away.
Refuse = Callable[[int, bytes, bytes, Headers], Refused | None]


def use(refuse: Refuse) -> None:
    """From now on, for servers of this process that name no protocol (BentoML's worker)."""
    Door.refuse = refuse
    Door.known = {}
    HTTP_PROTOCOLS["auto"] = f"{__name__}:Door"


class Door(HttpToolsProtocol):
    """A head that is too large gets 400 and the end, as anything else that is no HTTP."""

    refuse: ClassVar[Refuse]
    known: ClassVar[dict[bytes, _Known]] = {}
    _within = _reading = False  # a request, its head
    _chunk = b""  # that began with a request
    _unparsed = 0  # requests since the parser saw one
    _came = _parsed = 0  # bytes of the head: in earlier chunks, and in whole fields
    _refused: Refused | None = None  # said at the end of the request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = KEEP_ALIVE_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Whole(transport, self.loop))

    def data_received(self, data: bytes) -> None:
        between = not self._within and (self.cycle is None or self.cycle.response_complete)
        if between and Door.known and (answer := self._as_before(data)):
            self.transport.write(answer)
            self.server_state.total_requests += 1
            self._unparsed += 1
            return
        self._chunk = data if between else b""
        super().data_received(data)
        if self._reading:  # its end is still to come
            self._came += len(data)
            if self._came > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._within = self._reading = True
        self._came = self._parsed = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parsed += len(name) + len(value) + 4
        if self._parsed > MAX_HEAD:
            raise ValueError(f"a head of more than {MAX_HEAD} bytes")  # the parser's error, then
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading = False
        # `tasks` holds requests from their last header on: those whose turn is still to come
        # count, or whatever arrives at one instant would all be let in.
        self._refused = None
        if self._at_hand():
            method = self.parser.get_method()
            self._refused = Door.refuse(len(self.tasks), method, self.url, self.headers)
        if self._refused is None:  # the application turns away what is not at hand
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refused is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._within = False
        if self._refused is None:
            super().on_message_complete()
            return
        refused, self._refused = self._refused, None
        last = not self.parser.should_keep_alive()
        lines = [STATUS_LINE[refused.status]]
        for name, value in (*self.server_state.default_headers, *refused.headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"connection: close\r\n\r\n" if last else b"\r\n")
        answer = b"".join((*lines, refused.body))
        self.transport.write(answer)
        if last:
            self.transport.close()
        elif refused.again is not None:
            self._remember(answer, refused.request_id, refused.again)
        self.on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        if self._unparsed:  # uvicorn did not hear of them: from now on, once more
            self._unparsed = 0
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _as_before(self, data: bytes) -> bytes | None:
        """The answer to a whole request whose head was turned away within this second."""
        head = data.find(b"\r\n\r\n") + 4
        known = Door.known.get(data[:head])
        if (
            known is None
            or len(data) != head + known.length
            or known.dated is not self.server_state.default_headers
            or (request_id := known.again(len(self.tasks))) is None
        ):
            return None
        return request_id.join(known.parts)

    def _remember(
        self, answer: bytes, request_id: bytes, again: Callable[[int], bytes | None]
    ) -> None:
        """The head of the request that just ended, if that came in one piece and alone."""
        head = self._chunk.find(b"\r\n\r\n") + 4
        length = len(self._chunk) - head
        if not 4 <= head <= _SHORT or self._length() != length:
            return
        dated = self.server_state.default_headers
        if len(Door.known) >= _HEADS or any(k.dated is not dated for k in Door.known.values()):
            Door.known.clear()
        parts = answer.split(request_id)
        Door.known[self._chunk[:head]] = _Known(length, parts, again, dated)

    def _at_hand(self) -> bool:
        """Is a small body on its way, and no earlier request of the connection unanswered?"""
        if self.expect_100_continue or (self.cycle and not self.cycle.response_complete):
            return False
        length = self._length()
        return length is not None and length <= SMALL

    def _length(self) -> int | None:
        """Of the body, where the head says it."""
        named = next((value for name, value in self.headers if name == b"content-length"), b"")
        return int(named) if named.isdigit() else None


class _Whole(asyncio.Transport):
    """A transport that sends at once what is written in one turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._transport.write(data)

    # What uvicorn asks beside these is of the connection itself.

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)
