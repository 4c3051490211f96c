"""Triton killed, stopped, hung, reloaded and back under load, and more load than there is room for:
every request that is taken is answered, rightly or by what is popular, inside its deadline.
`make test-faults` does it more often and is stricter on time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toy
from bento_process import Service, answers, bentoml_serve, wait_until
from callers import OpenLoop, Seen
from scale import often
from toy_release import returning
from triton_process import Returning, assert_ended, leftovers, stubs_of

from client.control import Control
from export.index import locked
from export.serving_config import ServingConfig
from export.triton_config import config_text
from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from recommender.errors import RecserveError
from recommender.release import read_release
from serving import tritonserver

MODELS = (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT)
ASKED, IDLE = MODELS
LOADERS = 32
LOCKED_S = 600.0  # that one waits for the others
RATE = 100  # requests a second
DEADLINE_S = 0.3  # the service's default
BACK_S = 10.0  # from Triton's return to full service


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returning]:
    with returning(tmp_path_factory.mktemp("triton"), MODELS) as server:
        yield server


@pytest.fixture(scope="module")
def service(triton: Returning, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(triton, tmp_path_factory.mktemp("bento")) as running:
        yield running


@contextmanager
def serving(triton: Returning, tmp: Path, **variables: str) -> Iterator[Service]:
    variables |= {
        "RECSERVE_REPOSITORY": str(triton.repository),
        "RECSERVE_TRITON": f"grpc://127.0.0.1:{triton.ports.grpc}",
    }
    with bentoml_serve(tmp, variables) as running:
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


@pytest.mark.parametrize("stops", often(1, 20))
def test_sigterm_of_triton_under_load_costs_no_request(
    service: Service, triton: Returning, stops: int
) -> None:
    with OpenLoop(service.url, rate=RATE, ask=ask) as loop:
        for _ in range(stops):
            time.sleep(0.5)
            triton.process.terminate()
            assert_ended(triton.process, triton.log)
            wait_until(lambda: not leftovers(triton), seconds=10)
            time.sleep(0.5)
            triton.start()
            wait_until(lambda: model_answers(service), seconds=BACK_S)
    assert_kept(loop.seen, 1.0)
    assert any(seen.body["fallback"] for seen in loop.seen)


@pytest.mark.parametrize("times", often(1, 1_024))
def test_a_model_that_32_load_and_unload_at_once_harms_no_other(
    service: Service, triton: Returning, times: int
) -> None:
    """Each under the repository's lock, which every command takes that has the control key: without
    it, 32 at once ended Triton 2.51 by a segfault of its own. What serves is asked all the while;
    of the loads themselves some may be refused."""
    told = Counter[str]()

    async def churn(control: Control, number: int) -> None:
        for i in range(times):
            try:
                with locked(triton.repository, wait_s=LOCKED_S):
                    if (number + i) % 2:
                        await control.load(IDLE, [1], config_of(triton, IDLE), timeout_s=600)
                    else:
                        await control.unload(IDLE, timeout_s=600)
                told["done"] += 1
            except RecserveError as error:
                told[str(error)] += 1

    async def act(number: int) -> None:
        async with controlling(triton) as control:
            await churn(control, number)

    regions = shared_memory(triton)
    with OpenLoop(service.url, rate=RATE, ask=ask) as loop, ThreadPoolExecutor(LOADERS) as pool:
        list(pool.map(lambda number: asyncio.run(act(number)), range(LOADERS)))
    assert triton.process.poll() is None
    assert told["done"] > LOADERS * times // 4, told
    assert_kept(loop.seen, 1.0)
    # A load is a process that imports, on the same cores: some answers may come too late for it.
    late = sum(seen.body["fallback"] for seen in loop.seen)
    assert late <= len(loop.seen) // 4, (late, len(loop.seen))
    tritonserver.load_release(read_release(triton.repository), triton.ports, process=triton.process)
    wait_until(lambda: len(stubs_of(triton, IDLE)) == 1, seconds=10)  # one that went may linger
    wait_until(lambda: shared_memory(triton) == regions, seconds=10)


@pytest.mark.parametrize(("seconds", "margin_s"), [(5, 1.0), *often(10, 60, 0.05)])
def test_ten_times_the_capacity_is_turned_away_and_what_is_taken_is_in_time(
    triton: Returning, tmp_path: Path, seconds: int, margin_s: float
) -> None:
    """Triton takes a tenth of a second for each, four are let in at once: 40 a second at most."""
    capacity = 4 / 0.1
    slow = ServingConfig(queue_delay_us=100_000)
    reload(triton, config_text(ASKED, "onnxruntime", toy.LIMITS, slow))
    try:
        with serving(triton, tmp_path, RECSERVE_MAX_INFLIGHT="4") as service:
            with OpenLoop(service.url, rate=10 * capacity, ask=ask) as loop:
                time.sleep(seconds)
            wait_until(lambda: model_answers(service), seconds=5)
            assert model_answers(service)
    finally:
        reload(triton, config_of(triton, ASKED))
    taken = [seen for seen in loop.seen if seen.status == 200]
    refused = [seen for seen in loop.seen if seen.status == 429]
    assert len(taken) + len(refused) == len(loop.seen)
    assert_kept(taken, margin_s)
    assert len(taken) >= seconds * capacity / 4
    assert len(refused) > len(taken)
    assert sorted(seen.seconds for seen in refused)[len(refused) // 2] < 0.5


def config_of(triton: Returning, model: str) -> str:
    return (triton.repository / model / "config.pbtxt").read_text()


def controlling(triton: Returning) -> Control:
    address = f"127.0.0.1:{triton.ports.grpc}"
    return Control(address, tritonserver.control_key(triton.process))


def reload(triton: Returning, config: str) -> None:
    async def act() -> None:
        async with controlling(triton) as control:
            await control.unload(ASKED)
            await control.load(ASKED, [1], config, timeout_s=60)

    asyncio.run(act())


def shared_memory(triton: Returning) -> int:
    return len([one for one in leftovers(triton) if one.startswith("/dev/shm")])


def assert_kept(seen: list[Seen], margin_s: float) -> None:
    assert Counter(one.status for one in seen).keys() == {200}
    assert max(one.seconds for one in seen) < DEADLINE_S + margin_s
    assert all(len(one.body["items"]) == 5 for one in seen)
