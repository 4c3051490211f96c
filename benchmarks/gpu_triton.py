"""A release's TorchScript in a real tritonserver with dynamic batching, on the GPU and on the CPU.

Single rows by gRPC, from clients spread over processes (one asyncio process tops out before a GPU
does), after the release's golden requests have been answered as they were at the export.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Mapping
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
from recommender.contract import RECOMMENDER, RECOMMENDER_TORCHSCRIPT
from recommender.release import Release, read_release

CLIENTS = (1, 32, 128)
KINDS = ("gpu", "cpu")
LENGTH = 64  # of histories
_PROCESSES = 4  # of clients
_ROUNDS, _SECONDS = 3, 2.0


@dataclass(frozen=True)
class Served:
    kind: str
    clients: int
    rows_s: float  # medians of the rounds
    p50_ms: float
    p99_ms: float


def measure(repository: Path, threads: int) -> dict[str, Any]:
    release = read_release(repository)
    found, answered = [], {}
    rows = _single_rows(release)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        list(pool.map(_started, [2.0] * _PROCESSES))
        for kind in KINDS:
            settings = ServingConfig(kind=kind, intra_op_threads=threads if kind == "cpu" else 1)
            with serving(release, RECOMMENDER_TORCHSCRIPT, settings) as address:
                answered[kind] = asyncio.run(_golden(release, address))
                for clients in CLIENTS:
                    rates = _rates(pool, address, release.version, clients, rows)
                    found.append(Served(kind, clients, *rates))
    return {
        "items": len(release.catalogue),
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "golden": answered,
        "served": [asdict(one) for one in found],
    }


def _started(seconds: float) -> None:
    """Keeps a process busy, so that each of them has read this module before anything is asked."""
    time.sleep(seconds)


def _single_rows(release: Release) -> list[Batch]:
    batches = batches_of(release, 64, LENGTH)
    return [{n: a[i : i + 1] for n, a in one.items()} for one in batches for i in range(64)]


async def _golden(release: Release, address: str) -> dict[str, float]:
    """Requests asked, and the largest difference of a score. Raises ReleaseError where an answer
    is another than at the export."""
    client, asked, largest = TritonGrpc(address), 0, 0.0
    for one in golden.read(release.home):
        if one.kind == RECOMMENDER:
            seen = await client.infer(
                RECOMMENDER_TORCHSCRIPT, release.version, one.inputs, timeout_s=120
            )
            largest = max(largest, compare(one.outputs, seen, one.name))
            asked += len(one.outputs["item"])
    await client.close()
    return {"rows": asked, "largest": largest}


def _rates(
    pool: ProcessPoolExecutor, address: str, version: int, clients: int, rows: list[Batch]
) -> tuple[float, float, float]:
    """Rows a second, and the median and 99th percentile of milliseconds: medians of rounds, of
    which the first is not counted."""
    shares = [len(part) for part in np.array_split(range(clients), min(clients, _PROCESSES))]
    rounds = []
    for _ in range(1 + _ROUNDS):
        begin = time.time() + 0.5  # when all are connected
        work = [pool.submit(callers, address, version, share, rows, begin) for share in shares]
        took = np.concatenate([one.result() for one in work])
        rounds.append((len(took) / _SECONDS, *np.percentile(took, (50, 99)) * 1e3))
    rows_s, p50, p99 = np.median(rounds[1:], axis=0)
    return float(rows_s), float(p50), float(p99)


def callers(
    address: str, version: int, count: int, rows: list[Mapping[str, Any]], begin: float
) -> list[float]:
    """Seconds of each answer that came within the time that is measured."""
    took: list[float] = []

    async def caller(client: TritonGrpc, number: int) -> None:
        await client.infer(RECOMMENDER_TORCHSCRIPT, version, rows[number], timeout_s=120)
        await asyncio.sleep(max(0.0, begin - time.time()))
        while (sent := time.time()) < begin + _SECONDS:
            question = rows[(number + count * len(took)) % len(rows)]
            await client.infer(RECOMMENDER_TORCHSCRIPT, version, question, timeout_s=120)
            if time.time() < begin + _SECONDS:
                took.append(time.time() - sent)

    async def all_of_them() -> None:
        client = TritonGrpc(address)
        await asyncio.gather(*(caller(client, number) for number in range(count)))
        await client.close()

    asyncio.run(all_of_them())
    return took
