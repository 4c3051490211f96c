"""bento/door.py in a real uvicorn: who is turned away before the application hears of it, and that
the connection is as good as before."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from ports import free_ports

from bento import door
from bento.access import Call
from bento.app import App, Route
from bento.metrics import Metrics
from bento.settings import Settings

Reply = tuple[int, dict[str, str], bytes]
POST = b"POST /%s HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n%s\r\n%s"


def post(path: str, body: bytes = b"{}", more: bytes = b"") -> bytes:
    return POST % (path.encode(), len(body), more, body)


class Held:
    """An application whose one route answers when `free` is set; two may be under way."""

    def __init__(self, settings: Settings) -> None:
        self.free, self.metrics, self.heard = asyncio.Event(), Metrics(), list[bytes]()
        self.looked_at = 0  # requests that the application was asked about
        self.app = App(self.metrics, settings=settings)
        post = {"method": "POST", "handler": self._answer}
        self.app.routes = {
            "/wait": Route(**post, modelled=True),
            "/events": Route(**post),
            "/get": Route(method="GET", handler=self._at_once),
        }

    def refused(self, *asked: Any) -> door.Refused | None:
        self.looked_at += 1
        return self.app.refused(*asked)

    async def _answer(self, body: bytes, _: Call) -> bytes:
        self.heard.append(body)
        await self.free.wait()
        return b'"held"'

    async def _at_once(self, _: bytes, __: Call) -> bytes:
        return b'"at once"'


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> Reply:
        self.writer.write(request)
        return await self.reply()

    async def reply(self) -> Reply:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(fields["content-length"]))
        return int(head[0].split()[1]), fields, body


Connect = Callable[[], Awaitable[Connection]]


def with_two_under_way(
    scenario: Callable[[Held, Connect], Awaitable[None]], settings: Settings | None = None
) -> None:
    async def run() -> None:
        held = Held(settings or Settings(max_inflight=2))
        door.use(held.refused)
        (port,) = free_ports(1)
        config = uvicorn.Config(
            held.app, port=port, http=door.Door, lifespan="off", log_level="warning"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)

        async def connect() -> Connection:
            return Connection(*await asyncio.open_connection("127.0.0.1", port))

        try:
            first = [await connect() for _ in range(2)]
            for connection in first:
                connection.writer.write(post("wait"))
            while len(held.heard) < 2:
                await asyncio.sleep(0.01)
            await scenario(held, connect)
            held.free.set()
            assert [(await one.reply())[2] for one in first] == [b'"held"'] * 2
        finally:
            held.free.set()
            server.should_exit = True
            await serving

    uvloop.run(run())


def assert_turned_away(reply: Reply, request_id: str | None = None) -> None:
    status, headers, body = reply
    assert (status, headers["retry-after"]) == (429, "1")
    assert headers["content-type"] == "application/json"
    said = json.loads(body)
    assert "as many requests are under way as can be answered in time" in said["error"]["message"]
    assert said["error"].keys() == {"field", "value", "message", "remedy"}
    assert said["request_id"] == headers["x-request-id"]
    assert request_id is None or said["request_id"] == request_id


def test_what_finds_no_room_is_told_so_and_its_connection_goes_on() -> None:
    async def scenario(held: Held, connect: Connect) -> None:
        one = await connect()
        for number in range(3):
            more = b"x-request-id: mine-%d\r\n" % number
            assert_turned_away(await one.ask(post("wait", more=more)), f"mine-{number}")
        assert (await one.ask(b"GET /get HTTP/1.1\r\nhost: here\r\n\r\n"))[2] == b'"at once"'
        assert len(held.heard) == 2
        text = held.metrics.text().decode()
        assert 'recserve_requests_total{route="/wait",status="429"} 3.0' in text
        assert 'recserve_refused_total{reason="overload"} 3.0' in text
        held.free.set()
        async with asyncio.timeout(10):
            while (reply := await one.ask(post("wait")))[0] == 429:
                await asyncio.sleep(0.01)
        assert reply[::2] == (200, b'"held"')

    with_two_under_way(scenario)


def test_a_head_that_comes_again_is_turned_away_unparsed_until_there_is_room() -> None:
    async def scenario(held: Held, connect: Connect) -> None:
        many = [await connect() for _ in range(4)]
        before, ids = held.looked_at, set[str]()
        for number in range(100):
            reply = await many[number % 4].ask(post("wait", b'"%02d"' % number))
            assert_turned_away(reply)
            ids.add(reply[1]["x-request-id"])
        assert len(ids) == 100
        assert held.looked_at - before <= 10, "one head, which is looked at once a second"
        text = held.metrics.text().decode()
        assert 'recserve_requests_total{route="/wait",status="429"} 100.0' in text
        assert 'recserve_refused_total{reason="overload"} 100.0' in text
        assert 'recserve_request_seconds_count{route="/wait"}' not in text
        held.free.set()
        async with asyncio.timeout(10):
            while (reply := await many[0].ask(post("wait", b'"in"')))[0] == 429:
                await asyncio.sleep(0.01)
        assert reply[::2] == (200, b'"held"')
        assert held.heard[-1] == b'"in"'

    with_two_under_way(scenario)


@pytest.mark.parametrize(
    ("written", "answers"),
    [
        ([post("wait", b"{}")[:-1], b"}"], [429]),  # in two pieces
        ([post("wait")[:20], post("wait")[20:]], [429]),
        ([post("wait") + post("wait")], [429, 429]),  # two in one
        ([post("wait") + post("wait")[:30], post("wait")[30:]], [429, 429]),
        ([post("wait", b"{ }")], [429]),  # another head
        ([post("wait") + b"GET /get HTTP/1.1\r\nhost: here\r\n\r\n"], [429, 200]),
        ([post("get")], [405]),
        ([post("wait", more=b"connection: close\r\n")], [429]),
    ],
)
def test_what_only_looks_like_a_head_that_was_turned_away_is_read_as_what_it_is(
    written: list[bytes], answers: list[int]
) -> None:
    async def scenario(_: Held, connect: Connect) -> None:
        one = await connect()
        for _again in range(2):
            assert_turned_away(await one.ask(post("wait")))
        for piece in written:
            one.writer.write(piece)
            await asyncio.sleep(0.02)
        assert [(await one.reply())[0] for _ in answers] == answers

    with_two_under_way(scenario)


def test_a_connection_stays_open_while_it_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(_: Held, connect: Connect) -> None:
        one = await connect()
        for _again in range(30):
            assert_turned_away(await one.ask(post("wait")))
            await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            assert await one.reader.read() == b"", "and is closed when it is left idle"

    monkeypatch.setattr(door, "KEEP_ALIVE_S", 0.5)
    with_two_under_way(scenario)


def test_only_what_asks_a_model_goes_by_their_pace() -> None:
    async def scenario(held: Held, connect: Connect) -> None:
        held.app.pace.limit = 2
        one, events = await connect(), await connect()
        assert_turned_away(await one.ask(post("wait")))
        events.writer.write(post("events", b"bought"))
        async with asyncio.timeout(10):
            while b"bought" not in held.heard:
                await asyncio.sleep(0.01)
        held.free.set()
        assert (await events.reply())[0] == 200

    with_two_under_way(scenario, Settings(max_inflight=64))


def test_a_body_that_comes_in_pieces_is_read_to_its_end() -> None:
    async def scenario(_: Held, connect: Connect) -> None:
        one = await connect()
        whole = post("wait", b"x" * 5000)
        for at in range(0, len(whole), 1000):
            one.writer.write(whole[at : at + 1000])
            await asyncio.sleep(0.01)
        assert_turned_away(await one.reply())
        assert_turned_away(await one.ask(post("wait")))

    with_two_under_way(scenario)


@pytest.mark.parametrize(
    "request_",
    [
        post("wait", more=b"connection: close\r\n"),
        POST.replace(b"HTTP/1.1", b"HTTP/1.0") % (b"wait", 2, b"", b"{}"),
        post("wait", b"x" * 500_000),  # nobody reads it
        b"POST /wait HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\n\r\n",
    ],
    ids=["closing", "HTTP 1.0", "large", "chunked"],
)
def test_a_connection_that_cannot_go_on_ends_with_the_answer(request_: bytes) -> None:
    async def scenario(held: Held, connect: Connect) -> None:
        one = await connect()
        reply = await one.ask(request_)
        assert_turned_away(reply)
        assert reply[1]["connection"] == "close"
        async with asyncio.timeout(10):
            assert await one.reader.read() == b""
        assert 'recserve_refused_total{reason="overload"} 1.0' in held.metrics.text().decode()

    with_two_under_way(scenario)


def test_answers_keep_the_order_of_what_was_sent_ahead() -> None:
    async def scenario(held: Held, connect: Connect) -> None:
        held.app.pace.most = held.app.pace.limit = 3
        one = await connect()
        one.writer.write(post("wait") + post("wait"))
        while len(held.heard) < 3:
            await asyncio.sleep(0.01)
        held.free.set()
        assert [(await one.reply())[0] for _ in range(2)] == [200, 200]

    with_two_under_way(scenario)


def test_head_and_body_of_an_answer_come_in_one_packet() -> None:
    async def scenario(_: Held, connect: Connect) -> None:
        one = await connect()
        for _ in range(5):
            reply = await one.ask(b"GET /get HTTP/1.1\r\nhost: here\r\n\r\n")
            assert reply[2] == b'"at once"'
        assert packets_with_data(one) == 5

    with_two_under_way(scenario)


def packets_with_data(connection: Connection) -> int:
    """That came, by Linux' `struct tcp_info`: its `tcpi_data_segs_in`."""
    ours = connection.writer.get_extra_info("socket")
    (count,) = struct.unpack_from(
        "I", ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152
    )
    return int(count)


def test_a_page_of_an_allowed_origin_may_read_why() -> None:
    async def scenario(_: Held, connect: Connect) -> None:
        origin = b"origin: https://shop.example.com\r\n"
        reply = await (await connect()).ask(post("wait", more=origin))
        assert_turned_away(reply)
        assert reply[1]["access-control-allow-origin"] == "https://shop.example.com"

    with_two_under_way(scenario, Settings(max_inflight=2, cors=("https://shop.example.com",)))
