"""uvicorn's quick HTTP protocol, with what a server in the open needs before an application runs.

    head      at most MAX_HEAD bytes: its parser in C takes any number into memory
    refusals  what the application would turn away is answered here, for a tenth of what a call
              of it costs: ten times the traffic that fits must not cost what fits
    idle      connections stay open longer than load balancers keep theirs (60 s are usual), which
              otherwise send a request into a connection that is just being closed

h11, which uvicorn uses where httptools is not installed, costs each request more than everything
that we do with it. Knows no application: `use` names who turns away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bento.errors import Headers

MAX_HEAD = 65_536  # bytes
SMALL = 65_536  # bytes of a body that is read and dropped, rather than left in the way
KEEP_ALIVE_S = 75


class Refused(NamedTuple):
    status: int
    headers: Headers
    body: bytes


# Requests under way, method, path and headers -> the answer that turns one away.
Refuse = Callable[[int, bytes, bytes, Headers], Refused | None]


def use(refuse: Refuse) -> None:
    """From now on, for servers of this process that name no protocol (BentoML's worker)."""
    Door.refuse = refuse
    HTTP_PROTOCOLS["auto"] = f"{__name__}:Door"


class Door(HttpToolsProtocol):
    """A head that is too large gets 400 and the end, as anything else that is no HTTP."""

    refuse: ClassVar[Refuse]
    _reading = False
    _came = _parsed = 0  # bytes of the head: in earlier chunks, and in whole fields
    _refused: Refused | None = None  # said at the end of the request

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = KEEP_ALIVE_S

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._reading:  # its end is still to come
            self._came += len(data)
            if self._came > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        self._reading, self._came, self._parsed = True, 0, 0
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
        if self._refused is None:
            super().on_message_complete()
            return
        (status, headers, body), self._refused = self._refused, None
        last = not self.parser.should_keep_alive()
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"connection: close\r\n\r\n" if last else b"\r\n")
        self.transport.write(b"".join((*lines, body)))
        if last:
            self.transport.close()
        self.on_response_complete()

    def _at_hand(self) -> bool:
        """Is a small body on its way, and no earlier request of the connection unanswered?"""
        if self.expect_100_continue or (self.cycle and not self.cycle.response_complete):
            return False
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return length.isdigit() and int(length) <= SMALL
