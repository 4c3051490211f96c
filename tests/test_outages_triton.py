"""Triton told to stop while a hundred requests wait in it: each is answered first."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Any

import httpx
import toy
from triton_process import assert_ended, assert_equal, three_ports

from client.tensors import connect
from export.serving_config import ServingConfig
from export.triton_config import config_text
from recommender.contract import RECOMMENDER_ONNX
from serving import tritonserver

IN_FLIGHT = 100


def test_sigterm_answers_the_hundred_that_are_in_flight(tmp_path: Path) -> None:
    """All of them wait in one queue for neighbours that do not come."""
    limits = dataclasses.replace(toy.LIMITS, max_batch_size=IN_FLIGHT + 28)
    toy.write_onnx(tmp_path / "model.onnx")
    patient = ServingConfig(queue_delay_us=1_000_000)
    repository, name = tmp_path / "repository", RECOMMENDER_ONNX
    text = config_text(name, "onnxruntime", limits, patient)
    toy.add_model(repository, name, "onnxruntime", tmp_path / "model.onnx", config=text)
    release = dataclasses.replace(toy.release(repository, (name,)), limits=limits)
    ports, log = three_ports(), tmp_path / "triton.log"
    process = tritonserver.launch(repository, ports, log=log)
    batches = [toy.batch(1, 4, seed=seed) for seed in range(IN_FLIGHT)]

    def waiting() -> int:
        text = httpx.get(f"http://127.0.0.1:{ports.metrics}/metrics").text
        return sum(
            map(int, re.findall(r"^nv_inference_pending_request_count{.* (\d+)$", text, re.M))
        )

    async def act() -> list[Any]:
        triton = connect(f"grpc://127.0.0.1:{ports.grpc}")
        try:
            for _ in range(10):  # a busy machine may need longer to send them than they wait
                asked = [
                    asyncio.create_task(triton.infer(name, 1, b, timeout_s=20)) for b in batches
                ]
                while (there := await asyncio.to_thread(waiting)) < IN_FLIGHT:
                    if any(task.done() for task in asked):
                        break
                    await asyncio.sleep(0.01)
                if there == IN_FLIGHT:
                    process.terminate()
                    return await asyncio.gather(*asked)
                await asyncio.gather(*asked)
            raise AssertionError("never a hundred at once")
        finally:
            await triton.close()

    try:
        tritonserver.load_release(release, ports, process=process, log=log)
        found = asyncio.run(act())
        assert_ended(process, log)
    finally:
        tritonserver.stop(process)
    for answer, arrays in zip(found, batches, strict=True):
        assert_equal(answer, toy.eager(arrays))
