"""An HTTP server that does nothing but answer, at once or after draws from a known distribution.

    python benchmarks/known_server.py PORT ANSWER_FILE [--delays FILE]

Each line of FILE is the delay of one answer in seconds, from when its request came; then again
from the first. At once it runs on uvloop; with delays on asyncio, looking at the clock all the
time, since the timers of both round to milliseconds: it takes a core.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Annotated

import httptools
import typer
import uvloop


class Known(asyncio.Protocol):
    def __init__(self, payload: bytes, delays: itertools.cycle[float] | None) -> None:
        self._payload, self._delays = payload, delays
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._delays is None:
            self._transport.write(self._payload)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(next(self._delays), self._transport.write, self._payload)


async def serve(port: int, answer: bytes, delays: list[float]) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}"
    payload = head.encode() + b"\r\n\r\n" + answer
    drawn = itertools.cycle(delays) if delays else None
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Known(payload, drawn), "127.0.0.1", port, backlog=2048)
    while delays:
        await asyncio.sleep(0)  # never idle: a timer that is due is seen within microseconds
    await asyncio.Event().wait()


def main(port: int, answer: Path, delays: Annotated[Path | None, typer.Option()] = None) -> None:
    drawn = [float(line) for line in delays.read_text().split()] if delays else []
    (asyncio.run if drawn else uvloop.run)(serve(port, answer.read_bytes(), drawn))


if __name__ == "__main__":
    typer.run(main)
