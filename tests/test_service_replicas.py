"""Two services and one Redis: whichever of them is asked, it knows what the other was told."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from bento_process import Service, answers, bentoml_serve, wait_until
from stores import RedisServer, redis_server
from test_service_events import act, ids, send
from toy_release import beside
from triton_process import Returning


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def replicas(
    triton: Returning, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Service]]:
    tmp = tmp_path_factory.mktemp("bento")
    given = beside(triton, RECSERVE_STORE=redis.url)
    with bentoml_serve(tmp, given) as one, bentoml_serve(tmp, given) as other:
        for service in (one, other):
            wait_until(lambda service=service: answers(service.http, "/readyz"))
        yield one, other


def test_an_event_told_to_one_is_in_the_very_next_answer_of_the_other(
    replicas: tuple[Service, Service],
) -> None:
    for told, asked in (replicas, replicas[::-1]):
        best = ids(asked.recommend(user_id="ann", n=5))[0]
        send(told, act("ann", best))
        assert best not in ids(asked.recommend(user_id="ann", n=5))
        assert ids(told.recommend(user_id="ann")) == ids(asked.recommend(user_id="ann"))


def test_an_event_sent_to_both_counts_once(replicas: tuple[Service, Service]) -> None:
    event = act("bob", "i7", event_id="e1")
    assert [send(one, event)["accepted"] for one in replicas] == [1, 0]
    for service in replicas:
        assert len(service.post("/v1/history", {"user_id": "bob"})["events"]) == 1


def test_what_one_blocks_the_other_hides(replicas: tuple[Service, Service]) -> None:
    """Within a second, docs/api.md says; a busy machine may take longer."""
    one, other = replicas
    best = ids(other.recommend(user_id="eve", n=1))[0]
    one.post("/v1/blocked", {"add": [best]})
    wait_until(lambda: ids(other.recommend(user_id="eve", n=1)) != [best], seconds=5)
    one.post("/v1/blocked", {"remove": [best]})
    wait_until(lambda: ids(other.recommend(user_id="eve", n=1)) == [best], seconds=5)


def test_whom_one_forgets_the_other_does_not_know(replicas: tuple[Service, Service]) -> None:
    """Neither live events nor what the release was trained on: user `reader` is in it."""
    one, other = replicas
    send(one, act("reader", "i60"))
    assert ids(other.recommend(user_id="reader")) != ids(other.recommend(user_id="nobody"))
    one.post("/v1/forget", {"user_id": "reader"})
    assert ids(other.recommend(user_id="reader")) == ids(other.recommend(user_id="nobody"))
    assert other.post("/v1/history", {"user_id": "reader"})["events"] == []


def test_who_starts_without_the_store_is_not_ready_before_it_knows_what_is_blocked(
    replicas: tuple[Service, Service],
    triton: Returning,
    redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    given = beside(triton, RECSERVE_STORE=redis.url)
    best = ids(replicas[0].recommend(user_id="eve", n=1))[0]
    replicas[0].post("/v1/blocked", {"add": [best]})
    redis.kill()
    with bentoml_serve(tmp_path_factory.mktemp("late"), given) as late:
        wait_until(lambda: late.recommend(n=1)["fallback"] is False)  # Triton is there
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert not answers(late.http, "/readyz")
            time.sleep(0.2)
        redis.start()
        wait_until(lambda: answers(late.http, "/readyz"))
        assert ids(late.recommend(user_id="eve", n=1)) != [best]
