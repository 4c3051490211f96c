"""Triton killed, hung and back under load: every request is answered, rightly or by what is
popular, inside its deadline. `make test-faults` does it more often and is stricter on time."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from bento_process import Service, answers, bentoml_serve, wait_until
from callers import OpenLoop, Seen
from scale import often
from toy_release import returning
from triton_process import Returning

RATE = 100  # requests a second
DEADLINE_S = 0.3  # the service's default
BACK_S = 10.0  # from Triton's return to full service


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returning]:
    with returning(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="module")
def service(triton: Returning, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    variables = {
        "RECSERVE_REPOSITORY": str(triton.repository),
        "RECSERVE_TRITON": f"grpc://127.0.0.1:{triton.ports.grpc}",
    }
    with bentoml_serve(tmp_path_factory.mktemp("bento"), variables) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running


def ask(number: int) -> tuple[str, dict[str, Any]]:
    return "/v1/recommend", {"user_id": f"user-{number % 50}", "n": 5}


def model_answers(service: Service) -> bool:
    return service.recommend(n=1)["fallback"] is False


@pytest.mark.parametrize(("kills", "margin_s"), [(2, 1.0), *often(10, 20, 0.05)])
def test_kill_9_of_triton_under_load_costs_no_request(
    service: Service, triton: Returning, kills: int, margin_s: float
) -> None:
    away: list[tuple[float, float]] = []
    with OpenLoop(service.url, rate=RATE, ask=ask) as loop:
        for _ in range(kills):
            time.sleep(1.0)
            began = time.monotonic()
            triton.kill()
            time.sleep(1.0)
            triton.start()
            wait_until(lambda: model_answers(service), seconds=BACK_S)
            away.append((began, time.monotonic()))
        time.sleep(1.0)
    assert_kept(loop.seen, margin_s)
    fell_back = [seen for seen in loop.seen if seen.body["fallback"]]
    assert len(fell_back) > kills * RATE // 2
    # Only while it was away, and a little before: a request may have left just before the kill.
    for seen in fell_back:
        assert any(began - DEADLINE_S - margin_s < seen.at < ended for began, ended in away)


def test_a_triton_that_hangs_under_load_costs_few_requests_their_time(
    service: Service, triton: Returning
) -> None:
    with OpenLoop(service.url, rate=RATE, ask=ask) as loop:
        time.sleep(0.5)
        os.kill(triton.process.pid, signal.SIGSTOP)
        hung = time.monotonic()
        time.sleep(3.0)
        os.kill(triton.process.pid, signal.SIGCONT)
        wait_until(lambda: model_answers(service), seconds=BACK_S)
        time.sleep(0.5)
    assert_kept(loop.seen, 1.0)
    # The breaker is open by then: nobody waits for what is known to be away.
    waited = [s for s in loop.seen if hung + 1.5 < s.at < hung + 2.5 and s.body["fallback"]]
    assert len(waited) > RATE // 2
    assert sorted(s.seconds for s in waited)[len(waited) // 2] < DEADLINE_S / 2


def assert_kept(seen: list[Seen], margin_s: float) -> None:
    assert Counter(one.status for one in seen).keys() == {200}
    assert max(one.seconds for one in seen) < DEADLINE_S + margin_s
    assert all(len(one.body["items"]) == 5 for one in seen)
