"""Live events through a real service, its store and Triton: the next answer knows them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toy
from bento_process import (
    CLOCK,
    Service,
    answers,
    bentoml_serve,
    wait_until,
)
from stores import redis_server
from toy_release import beside
from triton_process import Returning

from client.service import RecserveClient
from recommender.errors import BadInput


def variables(triton: Returning, store: Path) -> dict[str, str]:
    return beside(triton, RECSERVE_STORE=f"sqlite:///{store}")


@pytest.fixture(scope="module")
def service(triton: Returning, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    tmp = tmp_path_factory.mktemp("bento")
    with bentoml_serve(tmp, variables(triton, tmp / "events.db")) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running


def ids(answer: Any) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def send(service: Service, *events: dict[str, Any]) -> dict[str, Any]:
    return service.post("/v1/events", {"events": events})


def act(user: str, item: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event": "view", **more}


def test_an_event_is_in_the_very_next_answer(service: Service) -> None:
    first = ids(service.recommend(user_id="ann", n=5))
    assert send(service, act("ann", first[0])) == {
        "accepted": 1, "duplicates": 0, "forgotten": 0, "ahead": 0, "unknown": []
    }  # fmt: skip
    now = ids(service.recommend(user_id="ann", n=5))
    assert first[0] not in now
    assert ids(service.recommend(user_id="ann", n=5)) == now
    # As if the caller had sent that history itself.
    assert now == ids(service.recommend(history=[first[0]], n=5, context={"time": CLOCK}))


def test_a_repeat_counts_once_and_an_unknown_item_is_kept_and_said(service: Service) -> None:
    event = act("bob", "i7", event_id="e1")
    assert send(service, event)["accepted"] == 1
    again = send(service, event, act("bob", "not-yet", event_id="e2"))
    assert (again["accepted"], again["duplicates"], again["unknown"]) == (1, 1, ["not-yet"])
    history = service.post("/v1/history", {"user_id": "bob"})["events"]
    assert [(e["item_id"], e["event"], e["title"]) for e in history] == [("i7", "view", "Title 7")]


def test_events_join_the_history_of_the_release_by_time(service: Service) -> None:
    send(service, act("reader", "i50", timestamp=CLOCK - 8))
    history = service.post("/v1/history", {"user_id": "reader"})["events"]
    assert [e["item_id"] for e in history] == [
        "i1", "i2", "i3", "i50", "i4", "i5", "i6", "i7", "i8", "i9", "i10"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (act("u", "i1", timestamp=int(time.time() * 1000)), "events[1].timestamp"),
        (act("", "i1"), "events[1].user_id"),
        (act("u", "i1", event=""), "events[1].event"),
        ({"user_id": "u", "item_id": "i1"}, "events[1]"),
        (act("u", "i1", price=3), "events[1].price"),
    ],
)
def test_a_batch_with_one_bad_event_is_refused_and_nothing_of_it_kept(
    service: Service, event: dict[str, Any], field: str
) -> None:
    body = {"events": [act("carol", "i9"), event]}
    response = service.http.post("/v1/events", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["field"] == field
    assert error["remedy"]
    assert service.post("/v1/history", {"user_id": "carol"})["events"] == []


def test_a_time_that_has_not_come_is_now_and_said(service: Service) -> None:
    later = act("dora", "i3", timestamp=int(time.time()) + 3600)
    assert send(service, later, act("erin", "i3"))["ahead"] == 1
    (event,) = service.post("/v1/history", {"user_id": "dora"})["events"]
    assert abs(event["timestamp"] - time.time()) < 30


def test_what_people_do_becomes_popular_and_one_person_alone_moves_little(
    service: Service,
) -> None:
    last = f"i{toy.ITEMS - 1}"
    best = service.post("/v1/popular", {"n": 1})["items"][0]
    send(service, *(act("flooder", last, event_id=f"f{i}") for i in range(500)))
    time.sleep(1.2)
    assert service.post("/v1/popular", {"n": 1})["items"][0] == best
    for start in range(0, 400, 200):
        send(service, *(act(f"crowd-{i}", last) for i in range(start, start + 200)))
    wait_until(lambda: ids(service.post("/v1/popular", {"n": 1})) == [last], seconds=5)


def test_a_blocked_item_is_nowhere_until_it_is_back(service: Service) -> None:
    best = ids(service.recommend(user_id="eve", n=1))[0]
    assert service.post("/v1/blocked", {"add": [best, "not-yet"]})["items"] == [best, "not-yet"]
    try:
        assert best not in ids(service.recommend(user_id="eve", n=10))
        assert best not in ids(service.post("/v1/popular", {"n": 10}))
        pinned = service.recommend(user_id="eve", n=3, rules={"pin": [best, "i5"]})
        assert ids(pinned)[0] == "i5"
    finally:
        assert service.post("/v1/blocked", {"remove": [best, "not-yet"]})["items"] == []
    assert ids(service.recommend(user_id="eve", n=1)) == [best]
    both = {"add": ["i1"], "remove": ["i1"]}
    assert service.post("/v1/blocked", both)["items"] == ["i1"]
    assert service.post("/v1/blocked", {"remove": ["i1"]})["items"] == []


def test_a_forgotten_user_is_a_stranger_here_and_in_the_release(service: Service) -> None:
    send(service, act("reader", "i60"), act("reader", "i61", event_id="late", timestamp=CLOCK + 5))
    erased = service.post("/v1/forget", {"user_id": "reader"})
    assert erased["events"] >= 2
    assert erased["left"] == 0
    assert service.post("/v1/history", {"user_id": "reader"})["events"] == []
    known, strange = (ids(service.recommend(user_id=u, n=9)) for u in ("reader", "nobody"))
    assert known == strange
    # A retry of before is no event; what the person does from now on is.
    late = act("reader", "i61", event_id="late", timestamp=CLOCK + 5)
    assert send(service, late)["forgotten"] == 1
    send(service, act("reader", "i62", timestamp=int(time.time()) + 2))
    history = service.post("/v1/history", {"user_id": "reader"})["events"]
    assert [e["item_id"] for e in history] in (["i62"], [])  # the same second counts as before


def test_the_client_speaks_of_events_in_types(service: Service) -> None:
    with RecserveClient(service.url) as client:
        accepted = client.events([{"user_id": "fay", "item_id": "i8", "event": "purchase"}])
        assert (accepted.accepted, accepted.duplicates) == (1, 0)
        assert [e.item_id for e in client.history(user_id="fay").events] == ["i8"]
        assert client.blocked().items == []
        assert client.forget(user_id="fay").events == 1
        with pytest.raises(BadInput, match="timestamp"):
            client.events([{"user_id": "u", "item_id": "i", "event": "view", "timestamp": -1}])


def test_impressions_and_clicks_are_counted_by_variant_and_release(service: Service) -> None:
    store = next(p for p in service.log.parent.glob("events.db"))
    assert_counted(service, f"sqlite:///{store}")


def test_they_are_through_redis_too(triton: Returning, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as redis:
        given = variables(triton, tmp_path) | {"RECSERVE_STORE": redis.url}
        with bentoml_serve(tmp_path, given) as running:
            wait_until(lambda: answers(running.http, "/readyz"))
            assert_counted(running, redis.url, alone=True)
            triton.kill()
            try:
                assert running.recommend(user_id="gus", n=3)["fallback"] is True
            finally:
                triton.start()
            wait_until(lambda: len(counted(redis.url)) == 2, seconds=20)
            of_models, away = counted(redis.url)
            assert (of_models["fallback"], of_models["answers"]) == (False, 1)
            assert (away["variant"], away["release"]) == ("default", 1)
            assert (away["fallback"], away["answers"], away["impressions"]) == (True, 1, 3)


def assert_counted(service: Service, store: str, *, alone: bool = False) -> None:
    """An answer with one of its items clicked; `alone`: nothing else has happened."""
    answer = service.recommend(user_id="gus", n=4)
    clicked = ids(answer)[1]
    send(service, act("gus", clicked, request_id=answer["request_id"]), act("gus", "i99"))

    def arrived() -> bool:
        rows = counted(store)
        if alone:
            wanted = {"variant": "default", "release": 1, "answers": 1, "impressions": 4}
            return rows != [] and rows[0].items() >= (wanted | {"clicks": 1}).items()
        return any(row["clicks"] for row in rows)

    wait_until(arrived, seconds=20)


def counted(store: str) -> list[dict[str, Any]]:
    command = ["click-through", "--store", store, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_without_a_store_it_says_so_and_recommends(triton: Returning, tmp_path: Path) -> None:
    given = variables(triton, tmp_path / "unused.db") | {"RECSERVE_STORE": ""}
    with bentoml_serve(tmp_path, given) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        response = running.http.post("/v1/events", json={"events": [act("u", "i1")]})
        assert response.status_code == 503
        assert "RECSERVE_STORE" in response.json()["error"]["remedy"]
        answer = running.recommend(user_id="reader")
        assert answer["fallback"] is False
        assert "notes" not in answer
