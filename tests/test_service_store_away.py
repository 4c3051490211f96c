"""The store gone, hung or full under a real service: recommendations go on and say so, nothing
that was accepted is lost, nothing counts twice; then all of it is back."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil
import pytest
import redis as redis_client
from bento_process import Service, answers, bentoml_serve, wait_until, worker_of
from scale import often
from stores import RedisServer
from test_service_events import act, ids, send
from toy_release import beside
from triton_process import Returning

from bento.store.redis_reading import RedisReader
from client.service import RecserveClient
from recommender.errors import Unavailable


class Outage(Protocol):
    """A store that can be taken away; each way of it is undone by `back`."""

    url: str
    ways: tuple[str, ...]

    def take(self, way: str, service: Service) -> None: ...
    def back(self, way: str, service: Service) -> None: ...
    def event_ids(self) -> list[str]:
        """Of all events that are kept."""


class OfSqlite:
    ways = ("moved", "full")

    def __init__(self, folder: Path) -> None:
        self.folder, self.elsewhere = folder / "store", folder / "elsewhere"
        self.path = self.folder / "events.db"
        self.url = f"sqlite:///{self.path}"

    def take(self, way: str, service: Service) -> None:
        if way == "moved":
            self.folder.rename(self.elsewhere)
        else:  # no file of the worker may grow: the disk is full
            worker_of(service).rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))

    def back(self, way: str, service: Service) -> None:
        if way == "moved":
            self.elsewhere.rename(self.folder)
        else:
            unlimited = (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY)
            worker_of(service).rlimit(psutil.RLIMIT_FSIZE, unlimited)

    def event_ids(self) -> list[str]:
        with sqlite3.connect(self.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return [row[0] for row in db.execute("SELECT event_id FROM events")]


class OfRedis:
    ways = ("killed", "full", "hung")

    def __init__(self, folder: Path) -> None:
        self.server = RedisServer(folder / "redis")
        self.url = self.server.url

    def take(self, way: str, service: Service) -> None:
        if way == "killed":
            self.server.kill()
        elif way == "hung":
            self.server.signal(signal.SIGSTOP)
        else:
            self._memory(1)

    def back(self, way: str, service: Service) -> None:
        if way == "killed":
            self.server.start()
        elif way == "hung":
            self.server.signal(signal.SIGCONT)
        else:
            self._memory(0)

    def event_ids(self) -> list[str]:
        reader = RedisReader(self.url)
        try:
            return [event.event_id for event in reader.events()]
        finally:
            reader.close()

    def _memory(self, most: int) -> None:
        with redis_client.Redis(port=self.server.port) as client:
            client.config_set("maxmemory", most)


@contextmanager
def outage(kind: str, folder: Path) -> Iterator[Outage]:
    if kind == "sqlite":
        yield OfSqlite(folder)
        return
    store = OfRedis(folder)
    try:
        yield store
    finally:
        store.server.kill()


def sent(service: Service, event: dict[str, Any]) -> httpx.Response:
    return service.http.post("/v1/events", json={"events": [event]})


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_a_store_that_is_away_or_full_costs_the_answer_its_past_and_nothing_else(
    kind: str, triton: Returning, tmp_path: Path
) -> None:
    with (
        outage(kind, tmp_path) as store,
        bentoml_serve(tmp_path, beside(triton, RECSERVE_STORE=store.url)) as service,
    ):
        wait_until(lambda: answers(service.http, "/readyz"))
        stranger = ids(service.recommend(user_id="nobody"))
        service.post("/v1/forget", {"user_id": "reader"})  # who is in the release
        send(service, act("ann", "i5", event_id="kept"))
        for number, way in enumerate(store.ways):
            unsure = act("ann", f"i{6 + number}", event_id=way)
            store.take(way, service)
            response = sent(service, unsure)  # kept or not, it is not accepted
            assert response.status_code == 503, way
            assert response.headers["retry-after"]
            for user in ("reader", "eve"):
                answer = service.recommend(user_id=user)
                assert answer["fallback"] is False
                assert ids(answer) == stranger, way
                # Full, it can still be read: then nothing is missing.
                assert answer.get("notes", []) == ([] if way == "full" else ["store"]), way
            store.back(way, service)
            wait_until(lambda unsure=unsure: sent(service, unsure).status_code == 200, seconds=20)
            history = service.post("/v1/history", {"user_id": "ann"})["events"]
            assert [e["item_id"] for e in history] == [f"i{5 + i}" for i in range(number + 2)]
        store.take(store.ways[0], service)
        with RecserveClient(service.url) as client, pytest.raises(Unavailable):
            client.forget(user_id="ann")


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("kills", often(2, 100))
def test_kill_9_of_the_service_while_its_store_comes_and_goes_loses_and_doubles_nothing(
    triton: Returning, tmp_path: Path, kind: str, kills: int
) -> None:
    rng, accepted = random.Random(kills), list[str]()
    event: dict[str, Any] | None = None  # what was not accepted: sent again, with its id
    with outage(kind, tmp_path) as store:
        for number in range(kills):
            with bentoml_serve(tmp_path, beside(triton, RECSERVE_STORE=store.url)) as service:
                way, at = rng.choice(store.ways), rng.randrange(1, 30)
                until, i = time.monotonic() + rng.uniform(0.05, 1.5), 0
                while time.monotonic() < until:
                    i += 1
                    if i == at:
                        store.take(way, service)
                    elif i == at + 3:
                        store.back(way, service)
                    event_id = f"{number}-{i}"
                    event = event or act(f"user-{i % 7}", f"i{1 + i % 99}", event_id=event_id)
                    response = sent(service, event)
                    assert response.status_code in (200, 503), response.text
                    if response.status_code == 200:
                        accepted.append(event["event_id"])
                        event = None
                if at <= i < at + 3:
                    store.back(way, service)
                event = event or act("user-0", "i1", event_id=f"{number}-last")
                _kill(service)
                with pytest.raises(httpx.TransportError):
                    sent(service, event)
        assert event is not None
        kept = store.event_ids()
    assert len(accepted) > kills
    assert len(kept) == len(set(kept))
    assert set(accepted) <= set(kept) <= {*accepted, event["event_id"]}


def _kill(service: Service) -> None:
    """The worker and its master, at once."""
    port = service.url.rpartition(":")[2]
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if "bentoml" in command and f"--port {port}" in command:
            for one in [process, *process.children(recursive=True)]:
                one.kill()
            return
    raise AssertionError(f"no service at port {port}")
