"""uvicorn's quick HTTP protocol, with a bound on the head of a request.

Its parser in C takes a head of any size into memory; h11, which uvicorn uses where httptools is
not installed, is bounded, but costs each request more than everything that we do with it.
Knows no application.
"""

from __future__ import annotations

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65_536  # bytes


def use() -> None:
    """From now on, for servers of this process that name no protocol (BentoML's worker)."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:Bounded"


class Bounded(HttpToolsProtocol):
    """Answers 400 and closes, as to anything else that is no HTTP."""

    _reading = False
    _came = _parsed = 0  # bytes of the head: in earlier chunks, and in whole fields

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
        super().on_headers_complete()
