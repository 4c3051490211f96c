"""An HTTP server that does nothing but answer, at once or after draws from a known distribution.

    python benchmarks/known_server.py PORT ANSWER_FILE [--delays FILE --held FILE]

Each line of FILE is the delay of one answer in seconds, from when its request came; then again
from the first. It keeps them by the kernel's timers, since those of event loops round to
milliseconds; SIGTERM ends it, and then it writes how long it really held each answer.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from pathlib import Path
from typing import Annotated

import httptools
import typer
import uvloop

from client.load.sending.clock import Alarm


class AtOnce(asyncio.Protocol):
    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._transport.write(self._payload)


class Later(AtOnce):
    def __init__(self, payload: bytes, delays: itertools.cycle[float], held: list[float]) -> None:
        super().__init__(payload)
        self._delays, self._held = delays, held
        self._alarm = Alarm().__enter__()  # each connection has one request at a time

    def connection_lost(self, _: Exception | None) -> None:
        self._alarm.__exit__(None, None, None)

    def on_message_complete(self) -> None:
        came = time.perf_counter()
        self._held.append(0.0)
        self._task = asyncio.create_task(self._answer(came, len(self._held) - 1))

    async def _answer(self, came: float, number: int) -> None:
        await self._alarm.until(came + next(self._delays))
        self._transport.write(self._payload)
        self._held[number] = time.perf_counter() - came


async def serve(port: int, answer: bytes, delays: list[float]) -> list[float]:
    """Until SIGTERM. How long each answer was held, by the order of the requests."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}"
    payload, held = head.encode() + b"\r\n\r\n" + answer, list[float]()
    drawn = itertools.cycle(delays)

    def protocol() -> AtOnce:
        return Later(payload, drawn, held) if delays else AtOnce(payload)

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await loop.create_server(protocol, "127.0.0.1", port, backlog=2048)
    await ended.wait()
    return held


def main(
    port: int,
    answer: Path,
    delays: Annotated[Path | None, typer.Option()] = None,
    held: Annotated[Path | None, typer.Option()] = None,
) -> None:
    drawn = [float(line) for line in delays.read_text().split()] if delays else []
    found = uvloop.run(serve(port, answer.read_bytes(), drawn))
    if held is not None:
        held.write_text("\n".join(map(str, found)))


if __name__ == "__main__":
    typer.run(main)
