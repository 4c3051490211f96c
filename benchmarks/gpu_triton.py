"""A release in a real tritonserver with dynamic batching, in both formats, on GPU and CPU.

Single rows by gRPC, from clients spread over processes (one asyncio process tops out before a GPU
does), after the release's golden requests have been answered as they were at the export.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from triton_rates import Batch, batches_of, serving

from client.over_grpc import TritonGrpc
from export import golden
from export.parity import compare
from export.serving_config import ServingConfig
from export.triton_config import backend_of
from recommender.contract import RECOMMENDER, RECOMMENDER_ONNX, RECOMMENDER_TORCHSCRIPT
from recommender.release import Release, read_release
from serving import wheel

CLIENTS = (1, 32, 128)
MODELS = (RECOMMENDER_TORCHSCRIPT, RECOMMENDER_ONNX)
KINDS = ("gpu", "cpu")
LENGTH = 64  # of histories
Asked = tuple[str, str, int]  # address, model, version
_PROCESSES = 4  # of clients
_ROUNDS, _SECONDS = 3, 2.0


@dataclass(frozen=True)
class Served:
    model: str
    kind: str
    clients: int
    rows_s: float  # medians of the rounds
    p50_ms: float
    p99_ms: float


def measure(repository: Path, threads: int) -> dict[str, Any]:
    release = read_release(repository)
    found, answered, lacking = [], [], {}
    rows = _single_rows(release)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        list(pool.map(_started, [2.0] * _PROCESSES))
        for model, kind in itertools.product(MODELS, KINDS):
            if kind == "gpu" and not wheel.has_cuda(backend_of(model)):
                lacking[model] = f"the {backend_of(model)} installed here has no CUDA half"
                continue
            settings = ServingConfig(kind=kind, intra_op_threads=threads if kind == "cpu" else 1)
            with serving(release, model, settings) as address:
                said = asyncio.run(_golden(release, address, model))
                answered.append({"model": model, "kind": kind, **said})
                for clients in CLIENTS:
                    rates = _rates(pool, (address, model, release.version), clients, rows)
                    found.append(Served(model, kind, clients, *rates))
    return {
        "items": len(release.catalogue),
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "golden": answered,
        "lacking": lacking,
        "served": [asdict(one) for one in found],
    }


def _started(seconds: float) -> None:
    """Keeps a process busy, so that each of them has read this module before anything is asked."""
    time.sleep(seconds)


def _single_rows(release: Release) -> list[Batch]:
    batches = batches_of(release, 64, LENGTH)
    return [{n: a[i : i + 1] for n, a in one.items()} for one in batches for i in range(64)]


async def _golden(release: Release, address: str, model: str) -> dict[str, float]:
    """Requests asked, and the largest difference of a score. Raises ReleaseError where an answer
    is another than at the export."""
    client, asked, largest = TritonGrpc(address), 0, 0.0
    for one in golden.read(release.home):
        if one.kind == RECOMMENDER:
            seen = await client.infer(model, release.version, one.inputs, timeout_s=120)
            largest = max(largest, compare(one.outputs, seen, one.name))
            asked += len(one.outputs["item"])
    await client.close()
    return {"rows": asked, "largest": largest}


def _rates(
    pool: ProcessPoolExecutor, asked: Asked, clients: int, rows: list[Batch]
) -> tuple[float, float, float]:
    """Rows a second, and the median and 99th percentile of milliseconds: medians of rounds, of
    which the first is not counted."""
    shares = [len(part) for part in np.array_split(range(clients), min(clients, _PROCESSES))]
    rounds = []
    for _ in range(1 + _ROUNDS):
        begin = time.time() + 0.5  # when all are connected
        work = [pool.submit(callers, asked, share, rows, begin) for share in shares]
        took = np.concatenate([one.result() for one in work])
        rounds.append((len(took) / _SECONDS, *np.percentile(took, (50, 99)) * 1e3))
    rows_s, p50, p99 = np.median(rounds[1:], axis=0)
    return float(rows_s), float(p50), float(p99)


def callers(asked: Asked, count: int, rows: list[Batch], begin: float) -> list[float]:
    """Seconds of each answer that came within the time that is measured."""
    address, model, version = asked
    took: list[float] = []

    async def caller(client: TritonGrpc, number: int) -> None:
        await client.infer(model, version, rows[number], timeout_s=120)
        await asyncio.sleep(max(0.0, begin - time.time()))
        while (sent := time.time()) < begin + _SECONDS:
            question = rows[(number + count * len(took)) % len(rows)]
            await client.infer(model, version, question, timeout_s=120)
            if time.time() < begin + _SECONDS:
                took.append(time.time() - sent)

    async def all_of_them() -> None:
        client = TritonGrpc(address)
        await asyncio.gather(*(caller(client, number) for number in range(count)))
        await client.close()

    asyncio.run(all_of_them())
    return took
