"""Faults of single processes below `recserve serve`, under an open loop: what dies is replaced, and
no caller hears of it but those whose connection it was."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bento_process import wait_until
from callers import OpenLoop
from scale import often
from served import Stack, serving
from toy_release import toy_release

from serving.tritonserver import SHM_FLAG

RATE = 100  # requests a second
BACK_S = 15.0  # until models answer again
LATE_S = 2.0  # beyond the default deadline of .3 s: a busy test machine
STUB, WORKER = "triton_python_backend_stub", "_bentoml_impl.worker.service"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_release(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def stack(toys: Path, tmp_path: Path) -> Iterator[Stack]:
    with serving(toys, tmp_path) as running:
        yield running


def ask(number: int) -> tuple[str, dict[str, Any]]:
    return "/v1/recommend", {"user_id": f"user-{number % 50}", "n": 5}


def model_answers(url: str) -> bool:
    try:
        response = httpx.post(f"{url}/v1/recommend", json={"n": 1}, timeout=5)
    except httpx.TransportError:
        return False
    return response.status_code == 200 and response.json()["fallback"] is False


@pytest.mark.parametrize("kills", often(1, 10))
def test_kill_9_of_every_stub_costs_no_request(stack: Stack, kills: int) -> None:
    """The model's process dies, Triton lives: `recserve serve` loads it again. What such a stub
    shared is kept by this Triton where a request was under way, and goes with it."""
    killed: set[int] = set()
    regions, size = shared_memory(stack)
    with OpenLoop(stack.url, rate=RATE, ask=ask) as loop:
        for _ in range(kills):
            time.sleep(0.5)
            stubs = stack.processes(STUB)
            assert stubs
            killed |= {stub.pid for stub in stubs}
            for stub in stubs:
                stub.kill()
            time.sleep(0.2)
            wait_until(lambda: model_answers(stack.url), seconds=BACK_S)
        time.sleep(0.5)
    assert Counter(seen.status for seen in loop.seen).keys() == {200}
    assert max(seen.seconds for seen in loop.seen) < 0.3 + LATE_S
    assert killed.isdisjoint(stub.pid for stub in stack.processes(STUB))
    regions_now, size_now = shared_memory(stack)
    assert regions_now <= regions + len(killed)  # no more than that
    assert size_now <= size * (1 + len(killed))
    left = prefix_of(stack)
    os.kill(stack.process.pid, signal.SIGTERM)
    assert stack.process.wait(timeout=20) == 0
    assert not list(Path("/dev/shm").glob(f"{left}*"))


def shared_memory(stack: Stack) -> tuple[int, int]:
    """Regions of its Triton, and their bytes."""
    sizes = [path.stat().st_size for path in Path("/dev/shm").glob(f"{prefix_of(stack)}*")]
    assert sizes
    return len(sizes), sum(sizes)


def prefix_of(stack: Stack) -> str:
    (triton,) = stack.processes(SHM_FLAG)
    (prefix,) = (a.removeprefix(SHM_FLAG) for a in triton.cmdline() if a.startswith(SHM_FLAG))
    return prefix


@pytest.mark.parametrize("kills", often(1, 10))
def test_kill_9_of_the_worker_costs_only_its_own_connections(stack: Stack, kills: int) -> None:
    gone: list[tuple[float, float]] = []
    with OpenLoop(stack.url, rate=RATE, ask=ask) as loop:
        for _ in range(kills):
            time.sleep(0.5)
            (worker,) = stack.processes(WORKER)
            began = time.monotonic()
            worker.kill()
            wait_until(lambda: model_answers(stack.url), seconds=BACK_S)
            gone.append((began, time.monotonic()))
        time.sleep(0.5)
    # The listening socket is the master's: who comes meanwhile waits there, or is told to go.
    assert Counter(seen.status for seen in loop.seen).keys() <= {200, 0, 429, 503}
    for seen in loop.seen:
        if seen.status != 200:
            assert any(began - 1.0 < seen.at < ended for began, ended in gone), seen


def test_sigterm_under_load_fails_no_request_that_was_taken(stack: Stack) -> None:
    with OpenLoop(stack.url, rate=RATE, ask=ask) as loop:
        time.sleep(1.0)
        before = time.monotonic()
        os.kill(stack.process.pid, signal.SIGTERM)
        assert stack.process.wait(timeout=20) == 0
    taken = [seen for seen in loop.seen if seen.at < before]
    assert len(taken) > RATE / 2
    assert Counter(seen.status for seen in taken).keys() == {200}
    # Afterwards the port is closed: no answer, and none that says something failed.
    assert Counter(seen.status for seen in loop.seen).keys() <= {200, 0}
