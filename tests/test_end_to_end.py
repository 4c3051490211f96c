"""The whole chain on trained weights: the same user, the same answer, whoever is asked."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import numpy as np
import pytest
from served import Stack

from client.control import Control
from client.service import RecserveClient
from client.tensors import connect
from export.parity import TOLERANCE, onnx_answerer, torchscript_answerer
from recommender.contract import RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT, Array
from recommender.errors import Unavailable
from recommender.features import Request, tensors
from recommender.models.graph import answer
from recommender.release import read_release
from recommender.runs import Run
from serving.running import running
from serving.tritonserver import SHM_FLAG

TIME = 1_743_500_000  # after all that users did, or a part of it would not be read
USERS = [f"user-{u:06d}" for u in range(0, 300, 25)]


def _request(run: Run, user: str) -> Request:
    row = run.users.row(user)
    assert row is not None
    history = run.users.history(row)
    return Request(
        history=history, request_time=TIME, user_features=run.users.features[row],
        exclude=history.items[::-1],
    )  # fmt: skip


def _through_triton(address: str, model: str, arrays: dict[str, Array]) -> dict[str, Array]:
    async def ask() -> dict[str, Array]:
        client = connect(address)
        try:
            return await client.infer(model, 1, arrays, timeout_s=60)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_every_way_to_ask_gives_the_same_top_10(run: Run, stack: Stack) -> None:
    limits, home = run.blueprint.limits, stack.repository
    onnx = onnx_answerer(home / RECOMMENDER_ONNX / "1" / "model.onnx")
    torchscript = torchscript_answerer(home / RECOMMENDER_TORCHSCRIPT / "1" / "model.pt")
    catalogue = read_release(home).catalogue
    with RecserveClient(stack.url) as client:
        for user in USERS:
            arrays = tensors([_request(run, user)], limits)
            eager = answer(run.graph, arrays, limits)
            answers = [onnx(arrays), torchscript(arrays)]
            answers += [
                _through_triton(address, model, arrays)
                for address in (stack.grpc, stack.http)
                for model in (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT)
            ]
            for other in answers:
                assert other["item"][0, :10].tolist() == eager["item"][0, :10].tolist()
                assert np.allclose(other["score"][0, :10], eager["score"][0, :10], atol=TOLERANCE)
            for model in (RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT):
                served = client.recommend(
                    user_id=user, n=10, context={"time": TIME}, model=model, deadline_ms=2000
                )
                assert not served.fallback
                assert [item.item_id for item in served.items] == [
                    catalogue.item_id(int(i)) for i in eager["item"][0, :10]
                ]
                scores = [item.score for item in served.items]
                assert np.allclose(scores, eager["score"][0, :10], atol=TOLERANCE)


def test_32_callers_are_answered_in_a_quarter_as_many_executions(run: Run, stack: Stack) -> None:
    """Counted by Triton itself, as Prometheus reads it: nv_inference_count and _exec_count. It is
    held up while they ask, so that all wait at once however slow this machine sends."""
    arrays = tensors([_request(run, USERS[0])], run.blueprint.limits)
    (server,) = stack.processes(SHM_FLAG)

    async def rounds(times: int) -> None:
        clients = [connect(stack.grpc) for _ in range(32)]
        for client in clients:
            while not await client.live():  # 32 connections at once: a busy machine may refuse one
                await asyncio.sleep(0.05)
        for _ in range(times):
            server.suspend()
            asked = [
                asyncio.create_task(client.infer(RECOMMENDER_ONNX, 1, arrays, timeout_s=60))
                for client in clients
            ]
            await asyncio.sleep(0.1)
            server.resume()
            await asyncio.gather(*asked)
        for client in clients:
            await client.close()

    before = _counts(stack)
    asyncio.run(rounds(5))
    after = _counts(stack)
    inferences, executions = (after[n] - before[n] for n in ("count", "exec_count"))
    assert inferences == 32 * 5
    assert executions <= inferences / 4


def _counts(stack: Stack) -> dict[str, int]:
    text = httpx.get(stack.metrics).text
    pattern = rf'nv_inference_(count|exec_count){{model="{RECOMMENDER_ONNX}",version="1"}} (\d+)'
    return {name: int(value) for name, value in re.findall(pattern, text)}


def test_an_unknown_user_gets_a_model_answer(stack: Stack) -> None:
    with RecserveClient(stack.url) as client:
        served = client.recommend(user_id="nobody has seen this one", n=10, deadline_ms=2000)
    assert len(served.items) == 10
    assert not served.fallback


def test_a_killed_model_process_is_loaded_again_and_nobody_gets_an_error(stack: Stack) -> None:
    (stub, *_) = stack.processes(f"/{RECOMMENDER_ONNX}/")
    stub.kill()
    until = time.monotonic() + 60
    with RecserveClient(stack.url) as client:
        while time.monotonic() < until:
            served = client.recommend(user_id=USERS[0], n=5)  # never an error
            assert len(served.items) == 5
            if not served.fallback:
                break
            time.sleep(0.1)
    assert not served.fallback


def test_control_names_the_loaded_version(stack: Stack) -> None:
    async def versions() -> list[int]:
        (here,) = running(stack.repository)
        async with Control(here.triton, here.key) as triton:
            return await triton.versions(RECOMMENDER_ONNX)

    assert asyncio.run(versions()) == [1]


def test_who_reaches_triton_may_not_load_or_unload(stack: Stack) -> None:
    """Over neither transport, with no key or a wrong one; only this user can read the right one."""

    async def unload(key: str) -> None:
        async with Control(stack.grpc.removeprefix("grpc://"), key) as triton:
            await triton.unload(RECOMMENDER_ONNX)

    for key in ("", "guessed"):
        with pytest.raises(Unavailable, match="restricted"):
            asyncio.run(unload(key))
    url = stack.http.removeprefix("triton+")
    for path in (f"models/{RECOMMENDER_ONNX}/unload", f"models/{RECOMMENDER_ONNX}/load", "index"):
        assert httpx.post(f"{url}/v2/repository/{path}").status_code == 403
    ready = httpx.get(f"{url}/v2/models/{RECOMMENDER_ONNX}/versions/1/ready")
    assert ready.status_code == 200
    (said,) = stack.repository.glob(".serving-*.json")
    assert said.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs.json", "/metrics"])
def test_what_operators_look_at_answers(stack: Stack, path: str) -> None:
    assert httpx.get(f"{stack.url}{path}").status_code == 200
