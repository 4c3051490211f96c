"""The real Triton on this machine -> a `Service`, and how far the queueing model is from it.

Starts a tritonserver with all models of a release, as `recserve serve` does, and asks its first
model for single rows: closed loops of more and more callers give the time of batches of every size
(Triton's own statistics by batch size) and the CPU that they cost; then open loops at shares of
the capacity give the queue time of `nv_inference_queue_duration_us` and latencies, which the
discrete-event simulation of the same arrivals is set beside.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from autoscaling import queueing
from autoscaling.service import Check, Service
from prometheus_client.parser import text_string_to_metric_families
from triton_rates import Batch, batches_of
from tritonclient.grpc import service_pb2

from client.load.result import processor
from client.over_grpc import TritonGrpc
from export.serving_config import ServingConfig
from recommender.contract import Array
from recommender.release import Release, read_release
from serving import tritonserver
from serving.processes import free_ports

SIZES = (1, 2, 4, 8, 16, 32, 64)
CALLERS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.3, 0.6, 0.8)
LENGTH = 200  # of histories, padded: one shape, so that all requests may share a batch, and long,
# so that Triton has more to do than the client that shares its cores
ROUNDS = 3  # a neighbour on the machine only ever slows: the best of them counts


@dataclass(frozen=True, kw_only=True)
class _Server:
    ports: tritonserver.Ports
    process: psutil.Process
    start_s: float

    def cpu_s(self) -> float:
        """Of Triton and its stubs, since they began."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    def metric(self, name: str, model: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports.metrics}/metrics") as page:
            families = text_string_to_metric_families(page.read().decode())
        return sum(
            sample.value for family in families for sample in family.samples
            if sample.name.removesuffix("_total") == name and sample.labels.get("model") == model
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stage:
    """What Triton says of some seconds."""

    rows: int
    batches: int
    seconds: float
    cpu_s: float
    queue_s: float  # mean of a request
    compute_s: float  # mean of a request, that is of its batch
    by_size: dict[int, tuple[int, float]]  # rows of a batch: batches, seconds in all
    latency_s: float  # mean, the client's

    @property
    def batch_s(self) -> float:
        """Mean time that a batch computed."""
        return sum(seconds for _, seconds in self.by_size.values()) / self.batches


def measure(repository: Path, *, seconds: float = 2.0) -> Service:
    """`seconds` for each of the closed loops, four times as much for each open one."""
    release = read_release(repository)
    model = release.models[0]
    rows = [
        {name: a[i : i + 1] for name, a in one.items()}
        for one in batches_of(release, 64, LENGTH)
        for i in range(64)
    ]
    with _triton(release) as server:
        _stage(server, release, rows, 8, 1.0)  # warm
        rounds = [
            [_stage(server, release, rows, callers, seconds) for callers in CALLERS]
            for _ in range(ROUNDS)
        ]
        service = _service(model, server.start_s, rounds)
        checks = [
            min(
                (_check(server, release, rows, service, share, 4 * seconds) for _ in range(ROUNDS)),
                key=lambda check: check.late_ms,
            )
            for share in SHARES
        ]
    return replace(service, checks=tuple(checks))


@contextmanager
def _triton(release: Release) -> Iterator[_Server]:
    ports = tritonserver.Ports(*free_ports(3))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "triton.log"
        began = time.perf_counter()
        process = tritonserver.launch(release.repository, ports, log=log)
        try:
            tritonserver.load_release(release, ports, process=process, log=log)
            took = time.perf_counter() - began
            yield _Server(ports=ports, process=psutil.Process(process.pid), start_s=took)
        finally:
            tritonserver.stop(process)


# --- closed loops


def _stage(
    server: _Server, release: Release, rows: list[Batch], callers: int, seconds: float
) -> _Stage:
    before, cpu, began = _statistics(server, release), server.cpu_s(), time.perf_counter()
    latencies = asyncio.run(_closed(server, release, rows, callers, seconds))
    took, count = time.perf_counter() - began, len(latencies)
    after = _statistics(server, release, least=before.inference_count + count)
    old = {one.batch_size: one for one in before.batch_stats}
    by_size = {}
    for one in after.batch_stats:
        was = old.get(one.batch_size)
        batches = one.compute_infer.count - (was.compute_infer.count if was else 0)
        if batches:
            by_size[one.batch_size] = batches, _computed(one) - (_computed(was) if was else 0)
    now, then = after.inference_stats, before.inference_stats
    return _Stage(
        rows=count,
        batches=after.execution_count - before.execution_count,
        seconds=took,
        cpu_s=server.cpu_s() - cpu,
        queue_s=(now.queue.ns - then.queue.ns) / 1e9 / count,
        compute_s=(_computed(now) - _computed(then)) / count,
        by_size=by_size,
        latency_s=float(np.mean(latencies)),
    )


async def _connected(server: _Server) -> TritonGrpc:
    """On a busy machine a first connection may take several tries."""
    client = TritonGrpc(f"127.0.0.1:{server.ports.grpc}")
    while not await client.live():
        await asyncio.sleep(0.05)
    return client


def _computed(one: Any) -> float:
    parts = one.compute_input, one.compute_infer, one.compute_output
    return float(sum(part.ns for part in parts) / 1e9)


def _statistics(server: _Server, release: Release, *, least: int = 0) -> Any:
    """Once `least` requests are in them: Triton counts a request after it has answered it."""

    async def asked() -> Any:
        client, found = await _connected(server), None
        request = service_pb2.ModelStatisticsRequest(
            name=release.models[0], version=str(release.version)
        )
        async with asyncio.timeout(10):
            while found is None or found.inference_count < least:
                (found,) = (await client.call("ModelStatistics", request, timeout_s=10)).model_stats
        await client.close()
        return found

    return asyncio.run(asked())


async def _closed(
    server: _Server, release: Release, rows: list[Batch], callers: int, seconds: float
) -> list[float]:
    """Latencies of `callers` who ask one row after the other."""
    client, took = await _connected(server), list[float]()
    until = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while (sent := time.perf_counter()) < until:
            row = rows[(number + len(took)) % len(rows)]
            await client.infer(release.models[0], release.version, row, timeout_s=60)
            took.append(time.perf_counter() - sent)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    await client.close()
    return took


def _service(model: str, start_s: float, rounds: list[list[_Stage]]) -> Service:
    lone = min((stages[0] for stages in rounds), key=lambda stage: stage.latency_s)
    # Answers are handed out between two batches: what full queues show beyond computing, a row.
    between = min((s[-1].seconds - s[-1].batch_s * s[-1].batches) / s[-1].rows for s in rounds)
    rows, seconds = np.array(_points(rounds)).T
    if rows[-1] < SIZES[-1]:  # the fullest batches seen are not quite full: on in a line
        slope = (seconds[-1] - seconds[-2]) / (rows[-1] - rows[-2])
        seconds = np.append(seconds, seconds[-1] + slope * (SIZES[-1] - rows[-1]))
        rows = np.append(rows, SIZES[-1])
    work = np.array([[one.batches, one.rows] for stages in rounds for one in stages], dtype=float)
    cpu_s = np.array([one.cpu_s for stages in rounds for one in stages])
    cpu_batch, cpu_row = np.linalg.lstsq(work, cpu_s, rcond=None)[0]
    return Service(
        machine=f"{os.cpu_count()} CPUs, {processor()}",
        taken=f"{datetime.date.today()}, load {os.getloadavg()[0]:.1f}, single rows",
        model=model,
        sizes=SIZES,
        batch_s=tuple(
            float(s) for s in np.interp(SIZES, rows, seconds) + max(0.0, between) * np.array(SIZES)
        ),
        delay_s=ServingConfig().queue_delay_us / 1e6,
        beside_s=float(lone.latency_s - lone.queue_s - lone.compute_s),
        cpu_batch_s=max(0.0, float(cpu_batch)),
        cpu_row_s=max(0.0, float(cpu_row)),
        start_s=start_s,
    )


def _points(rounds: list[list[_Stage]]) -> list[tuple[float, float]]:
    """(rows, seconds) of batches near each of SIZES, of the round that was fastest at it."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for stages in rounds:
        pooled: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for stage in stages:
            for rows, (batches, seconds) in stage.by_size.items():
                nearest = min(SIZES, key=lambda size: abs(np.log(size / rows)))
                pooled[nearest].append((batches, batches * rows, seconds))
        for nearest, parts in pooled.items():
            count, rows, seconds = (sum(column) for column in zip(*parts, strict=True))
            if count >= 5:
                found[nearest].append((rows / count, seconds / count))
    return sorted(min(points, key=lambda point: point[1] / point[0]) for points in found.values())


# --- open loops


def _check(
    server: _Server, release: Release, rows: list[Batch], service: Service, share: float,
    seconds: float,
) -> Check:  # fmt: skip
    model, rate = release.models[0], share * service.capacity
    due = queueing.poisson(rate, seed=1, requests=int(rate * seconds))
    names = "nv_inference_queue_duration_us", "nv_inference_request_success"
    before = [server.metric(name, model) for name in names]
    took, late = asyncio.run(_open(server, release, rows, due))
    waited, answered = (
        server.metric(name, model) - was for name, was in zip(names, before, strict=True)
    )
    computed = queueing.run(due, service)
    return Check(
        share=share,
        rate=rate,
        late_ms=float(np.percentile(late, 99) * 1e3),
        queue_us=(waited / answered, float(computed.waits.mean() * 1e6)),
        p50_ms=_both(took, computed.latencies, 50),
        p99_ms=_both(took, computed.latencies, 99),
    )


def _both(measured: Array, computed: Array, of: float) -> tuple[float, float]:
    return float(np.percentile(measured, of) * 1e3), float(np.percentile(computed, of) * 1e3)


async def _open(
    server: _Server, release: Release, rows: list[Batch], due: Array
) -> tuple[Array, Array]:
    """Latency of each request since it was due, and how late it was sent."""
    client = await _connected(server)
    took, late = np.zeros(len(due)), np.zeros(len(due))

    async def ask(i: int, at: float) -> None:
        late[i] = time.perf_counter() - at
        await client.infer(release.models[0], release.version, rows[i % len(rows)], timeout_s=60)
        took[i] = time.perf_counter() - at

    began = time.perf_counter() + 0.1
    async with asyncio.TaskGroup() as asked:
        for i, after in enumerate(due.tolist()):
            if (left := began + after - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            asked.create_task(ask(i, began + after))
    await client.close()
    return took, late
