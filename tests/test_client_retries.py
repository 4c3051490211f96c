"""What the client sends again, how often, and when: against a server that misbehaves on command."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from client.retry import asked_for_s
from client.service import AsyncRecserveClient, RecserveClient
from recommender.errors import BadInput, Denied, NotFound, Unavailable

ANSWER = {"items": [], "release": 1, "model": "m", "variant": "default", "fallback": False,
          "ignored": [], "request_id": "r"}  # fmt: skip
BODIES = {
    "/v1/events": {"accepted": 1, "duplicates": 0, "unknown": ["i9"]},
    "/v1/history": {"user_id": "u", "events": [
        {"item_id": "i1", "event": "view", "timestamp": 7, "title": "One"},
        {"item_id": "i2", "event": "buy", "timestamp": 8}]},
    "/v1/forget": {"events": 3, "left": 0},
    "/v1/blocked": {"items": ["i1"]},
}  # fmt: skip
DROP = 0  # instead of a status: the connection ends without an answer


class Server(ThreadingHTTPServer):
    """Answers with the statuses in `wrong` first, then as it should."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.wrong: list[int] = []
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, object], str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers["Authorization"]))
        status = self.server.wrong.pop(0) if self.server.wrong else 200
        if status == DROP:
            self.close_connection = True
            return
        fault = {"field": "f", "value": 1, "message": f"status {status}", "remedy": "wait"}
        answer = BODIES.get(self.path, ANSWER) if status == 200 else {
            "error": fault, "request_id": "r"}  # fmt: skip
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in (self.server.headers if status != 200 else {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


Call = Callable[[RecserveClient], object]
EVENT = {"user_id": "u", "item_id": "i", "event": "view"}
READS: dict[str, Call] = {
    "/v1/recommend": lambda c: c.recommend(user_id="u"),
    "/v1/similar": lambda c: c.similar(item_id="i"),
    "/v1/rank": lambda c: c.rank(candidates=["i"]),
    "/v1/popular": lambda c: c.popular(),
    "/v1/history": lambda c: c.history("u"),
    "/v1/blocked": lambda c: c.blocked(),
    "/v1/events": lambda c: c.events([EVENT]),
}
ACTS: dict[str, Call] = {
    "/v1/forget": lambda c: c.forget("u"),
    "/v1/blocked": lambda c: c.blocked(add=["i"]),
}


@pytest.mark.parametrize("path", READS)
def test_what_only_reads_is_repeated_when_it_is_lost_or_the_server_is_busy(
    server: Server, path: str
) -> None:
    server.wrong = [503, DROP, 429]
    with RecserveClient(server.url) as client:
        READS[path](client)
    assert [seen[0] for seen in server.seen] == [path] * 4
    assert all(seen[1] == server.seen[0][1] for seen in server.seen)  # events keep their ids


@pytest.mark.parametrize("path", ACTS)
@pytest.mark.parametrize("wrong", [503, DROP])
def test_what_acts_is_sent_once(server: Server, path: str, wrong: int) -> None:
    server.wrong = [wrong]
    with RecserveClient(server.url) as client, pytest.raises(Unavailable):
        ACTS[path](client)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadInput), (401, Denied), (403, Denied), (404, NotFound), (413, BadInput),
     (500, Unavailable)],
)  # fmt: skip
def test_what_would_be_refused_again_is_not_repeated(
    server: Server, status: int, kind: type[Exception]
) -> None:
    server.wrong = [status]
    with RecserveClient(server.url) as client, pytest.raises(kind, match=f"status {status}"):
        client.recommend()
    assert len(server.seen) == 1


def test_it_gives_up_after_its_retries_with_the_servers_words(server: Server) -> None:
    server.wrong = [503] * 9
    with RecserveClient(server.url, retries=2) as client, pytest.raises(Unavailable, match="503"):
        client.recommend()
    assert len(server.seen) == 3


def test_retry_after_is_waited_for_and_never_beyond_the_time_there_is(server: Server) -> None:
    server.wrong, server.headers = [429], {"Retry-After": "1"}
    began = time.monotonic()
    with RecserveClient(server.url) as client:
        client.popular()
    assert time.monotonic() - began >= 1
    server.wrong, server.headers = [503], {"Retry-After": "30"}
    began = time.monotonic()
    with RecserveClient(server.url) as client, pytest.raises(Unavailable, match="503"):
        client.popular()
    assert time.monotonic() - began < 20


def test_retry_after_may_be_a_date_and_nonsense_asks_for_nothing() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=40)
    assert 30 < asked_for_s(format_datetime(soon, usegmt=True)) <= 40
    assert asked_for_s(format_datetime(soon.replace(tzinfo=None))) > 30
    for nothing in (None, "", "soon", "-3", "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert asked_for_s(nothing) == 0


def test_events_get_an_id_each_unless_they_have_one(server: Server) -> None:
    with RecserveClient(server.url) as client:
        answer = client.events([EVENT, EVENT, {**EVENT, "event_id": "mine"}])
    ids = [event["event_id"] for event in server.seen[0][1]["events"]]
    assert len(set(ids)) == 3 and ids[2] == "mine" and len(ids[0]) == 32
    assert "event_id" not in EVENT
    assert (answer.accepted, answer.duplicates, answer.unknown) == (1, 0, ["i9"])


def test_answers_are_typed(server: Server) -> None:
    with RecserveClient(server.url) as client:
        first, second = client.history("u").events
        assert (first.item_id, first.event, first.timestamp, first.title) == (
            "i1",
            "view",
            7,
            "One",
        )
        assert second.title is None
        assert client.forget("u").events == 3
        assert client.blocked(add=["i1"], remove=["i2"]).items == ["i1"]
    assert server.seen[-1][1] == {"add": ["i1"], "remove": ["i2"]}


def test_the_key_is_sent_as_a_bearer_token(server: Server) -> None:
    for key, sent in (("rsk_secret", "Bearer rsk_secret"), (None, None)):
        with RecserveClient(server.url, api_key=key) as client:
            client.popular()
        assert server.seen[-1][2] == sent


def test_the_async_client_repeats_alike(server: Server) -> None:
    async def ask() -> None:
        async with AsyncRecserveClient(server.url, api_key="k") as client:
            server.wrong = [503, DROP]
            await client.recommend(user_id="u")
            await client.events([EVENT])
            assert (await client.history("u")).user_id == "u"
            assert (await client.blocked()).items == ["i1"]
            server.wrong = [503]
            with pytest.raises(Unavailable):
                await client.forget("u")

    asyncio.run(ask())
    paths = [path for path, _, _ in server.seen]
    assert paths == ["/v1/recommend"] * 3 + ["/v1/events", "/v1/history", "/v1/blocked",
                                             "/v1/forget"]  # fmt: skip
    assert {key for _, _, key in server.seen} == {"Bearer k"}


def test_a_server_that_is_slow_is_not_waited_for_longer_than_allowed(server: Server) -> None:
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)  # nobody serves it
    url = f"http://127.0.0.1:{listening.server_port}"
    began = time.monotonic()
    with RecserveClient(url, timeout_s=0.5) as client, pytest.raises(Unavailable, match="in time"):
        client.popular()
    assert time.monotonic() - began < 10
    listening.server_close()
