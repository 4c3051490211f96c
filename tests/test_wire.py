"""client/wire.py against servers that answer late, in pieces, not at all, or go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from ports import free_ports

from client import wire
from client.wire import Http, Lost

OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nwhat: %s\r\n\r\n%s"
Serve = Callable[["Seen", asyncio.StreamWriter], Awaitable[None]]


class Seen:
    """What the server has read, request by request, and from how many connections."""

    def __init__(self) -> None:
        self.requests, self.connections, self.free = list[bytes](), 0, asyncio.Event()


async def echo(seen: Seen, writer: asyncio.StreamWriter) -> None:
    body = seen.requests[-1]
    writer.write(OK % (len(body), b"echo", body))


def against(serve: Serve, scenario: Callable[[Http, Seen], Awaitable[None]]) -> None:
    async def run() -> None:
        seen = Seen()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.connections += 1
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                    seen.requests.append(await reader.readexactly(length))
                    await serve(seen, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        (port,) = free_ports(1)
        server = await asyncio.start_server(connected, "127.0.0.1", port)
        http = Http(f"127.0.0.1:{port}")
        try:
            async with asyncio.timeout(30):
                await scenario(http, seen)
        finally:
            http.close()
            server.close()

    uvloop.run(run())


async def post(http: Http, body: bytes, timeout_s: float | None = 10) -> bytes:
    reply = await http.ask("POST", "/here", body=[body[:1], body[1:]], timeout_s=timeout_s)
    assert reply.status == 200
    return reply.body


def test_answers_go_to_whom_they_belong_on_connections_that_stay_open() -> None:
    async def scenario(http: Http, seen: Seen) -> None:
        for _ in range(3):
            bodies = [b"%d" % i * 5000 for i in range(8)]
            assert await asyncio.gather(*(post(http, body) for body in bodies)) == bodies
        assert seen.connections == 8
        reply = await http.ask("POST", "/", headers={"a": "b"}, body=[b"x"])
        assert (reply.headers["what"], reply.body) == ("echo", b"x")

    against(echo, scenario)


def test_an_answer_in_chunks_and_in_pieces_is_put_together() -> None:
    async def pieces(_: Seen, writer: asyncio.StreamWriter) -> None:
        whole = (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        for at in range(len(whole)):
            writer.write(whole[at : at + 1])
            await asyncio.sleep(0.001)

    async def scenario(http: Http, _: Seen) -> None:
        assert [await post(http, b"x") for _ in range(2)] == [b"abcde"] * 2

    against(pieces, scenario)


def test_a_connection_that_was_closed_meanwhile_is_replaced_unnoticed() -> None:
    async def once(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await echo(seen, writer)
        if seen.connections % 2:
            writer.write_eof()  # and the next request on it is for nobody

    async def scenario(http: Http, seen: Seen) -> None:
        for number in range(6):
            assert await post(http, b"%d" % number) == b"%d" % number
        assert seen.connections > 1

    against(once, scenario)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "closed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
    ],
)
def test_what_ends_before_its_answer_is_lost_and_said_so(said: bytes, why: str) -> None:
    async def cut(_: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    async def scenario(http: Http, seen: Seen) -> None:
        with pytest.raises(Lost, match=why):
            await post(http, b"x")
        assert len(seen.requests) == 1, "nobody knows what was done with it"

    against(cut, scenario)


def test_nobody_there_is_an_error_at_once() -> None:
    async def ask() -> None:
        (port,) = free_ports(1)
        with pytest.raises(OSError):
            await Http(f"127.0.0.1:{port}").ask("GET", "/")

    asyncio.run(ask())


def test_what_nobody_waits_for_any_more_does_not_grow_behind_a_slow_server() -> None:
    async def slow(seen: Seen, writer: asyncio.StreamWriter) -> None:
        body = seen.requests[-1]
        await seen.free.wait()
        writer.write(OK % (len(body), b"late", body))

    async def scenario(http: Http, seen: Seen) -> None:
        for number in range(10):
            with pytest.raises(TimeoutError):
                await post(http, b"given up %d" % number, timeout_s=0.05)
        assert len(seen.requests) == wire.LEFT
        seen.free.set()
        assert await post(http, b"now") == b"now", "no answer of those that were given up"
        assert seen.connections <= wire.LEFT

    against(slow, scenario)


def test_a_server_that_never_answers_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def first_never(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if len(seen.requests) <= wire.LEFT:
            await asyncio.sleep(60)
        await echo(seen, writer)

    async def scenario(http: Http, _: Seen) -> None:
        for _again in range(wire.LEFT):
            with pytest.raises(TimeoutError):
                await post(http, b"x", timeout_s=0.05)
        assert await post(http, b"y") == b"y"

    monkeypatch.setattr(wire, "LEFT_S", 0.3)
    against(first_never, scenario)


def test_closing_frees_whoever_waits() -> None:
    async def never(seen: Seen, _: asyncio.StreamWriter) -> None:
        await seen.free.wait()

    async def scenario(http: Http, seen: Seen) -> None:
        waiting = asyncio.create_task(post(http, b"x"))
        while not seen.requests:
            await asyncio.sleep(0.01)
        http.close()
        with pytest.raises(Lost):
            await waiting
        seen.free.set()

    against(never, scenario)
