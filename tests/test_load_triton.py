"""An open loop on a real Triton, over gRPC and HTTP: on schedule, and so many at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import toy
import uvloop
from toy_release import toy_release
from triton_process import Returning

from client.load.arrivals import Arrivals
from client.load.plan import Plan
from client.load.result import Wanted, examine
from client.load.session import run
from export.configs import CONFIG
from export.triton_config import ServingConfig, config_text
from recommender.contract import RECOMMENDER_ONNX
from serving import tritonserver

DELAY_S = 0.2  # for which a request that is alone waits for others


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Returning]:
    folder = tmp_path_factory.mktemp("slow")
    repository = toy_release(folder)
    slow = ServingConfig(queue_delay_us=int(DELAY_S * 1e6))
    config = config_text(RECOMMENDER_ONNX, "onnxruntime", toy.LIMITS, slow)
    (repository / RECOMMENDER_ONNX / CONFIG).write_text(config)
    running = Returning(repository, folder / "triton.log")
    yield running
    tritonserver.stop(running.process)


@pytest.fixture(params=["grpc", "triton+http"])
def address(request: pytest.FixtureRequest, server: Returning) -> str:
    port = server.ports.grpc if request.param == "grpc" else server.ports.http
    return f"{request.param}://127.0.0.1:{port}"


def test_a_triton_that_stalls_cannot_hide_it(address: str, server: Returning) -> None:
    pid = server.process.pid
    pace = Arrivals(kind="constant", rate=40, duration_s=3)
    plan = Plan(target=address, repository=server.repository, arrivals=pace)
    wanted = Wanted(command=f"kill -STOP {pid}; sleep 1; kill -CONT {pid}", duration_s=3)
    found = uvloop.run(examine(plan, wanted))
    assert found.report is not None and found.during is not None
    assert (found.report.errors, found.report.wrong) == ({}, {})
    assert found.report.requests == found.report.right == 120  # the stall's, too
    ran = found.during.command
    assert (ran.code, ran.output) == (0, "")
    assert found.report.latency_ms["max"] >= 900, ran


def test_who_finds_no_place_waits_and_the_wait_counts(address: str, server: Returning) -> None:
    pace = Arrivals(kind="constant", rate=100, duration_s=0.2)
    plan = Plan(target=address, repository=server.repository, arrivals=pace, connections=1)
    found = uvloop.run(run(plan))
    assert found.requests == found.right == 20
    # One at a time, alone in its batch, each takes the delay; all at once they would share one.
    assert found.elapsed_s >= 20 * DELAY_S * 0.9
    assert found.latency_ms["max"] >= 1000 * (20 * DELAY_S * 0.9 - 0.2)


def test_who_waits_for_a_place_for_too_long_is_given_up(address: str, server: Returning) -> None:
    """The wait counts in the time that is allowed: of two at once, the second has a place for less
    time than an answer takes."""
    allowed_s = 1.5 * DELAY_S
    kinds = {f"no free place within {allowed_s:g} s", f"no answer within {allowed_s:g} s"}
    for count in (2, 40):
        pace = Arrivals(kind="constant", rate=400, duration_s=count / 400)
        plan = Plan(
            target=address,
            repository=server.repository,
            arrivals=pace,
            connections=1,
            timeout_s=allowed_s,
        )
        found = uvloop.run(run(plan))
        assert found.requests == count and found.right <= count / 2
        assert set(found.errors) <= kinds and sum(found.errors.values()) == count - found.right
