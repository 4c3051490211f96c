"""What does Triton cost, and what does its batching bring? Over a release, on this machine.

    python benchmarks/triton_rates.py REPOSITORY [--rounds 9] [--seconds 2] [--threads 1] [--json]
    python benchmarks/triton_rates.py REPOSITORY --triton THESE.toml --against THOSE.toml

    whole batches   Triton, fed batches over gRPC with two calls under way, against ONNX Runtime
                    alone in this process with the same threads
    single rows     asyncio clients that ask one row each, of a Triton with dynamic batching and of
                    one without

With `--against`, both are asked of two Tritons under two settings files (docs/triton.md) instead.
It starts the servers itself, on free ports; only one side works at a time, in turns, so that what
else the machine does meets both. Medians over rounds; ratios of rows/s are those within a round.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer
from graph import requests_of
from rich.console import Console
from rich.table import Table

from client.control import Control
from client.over_grpc import TritonGrpc
from export.serving_config import ServingConfig, parse
from export.triton_config import backend_of, config_text
from recommender.contract import Array
from recommender.features import tensors
from recommender.release import Release, read_release
from serving import tritonserver, wheel
from serving.processes import free_ports

Batch = dict[str, Array]
CALLS = 2  # under way at once, as client/join.py has them
AIMS = {"whole batches": 0.9, "single rows": 1.5}


@dataclasses.dataclass(frozen=True)
class Rate:
    """One side of one round."""

    rows_s: float
    p99_ms: float


Side = Callable[[], Rate]
Found = dict[str, dict[str, list[Rate]]]  # what was measured -> side -> round


def main(
    repository: Path,
    version: Annotated[int | None, typer.Option(help="Default: the one that serves.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: the one that serves.")] = None,
    rounds: int = 9,
    seconds: Annotated[float, typer.Option(help="Of each side of each round.")] = 2.0,
    batch: int = 64,
    length: int = 64,
    clients: int = 32,
    threads: Annotated[int, typer.Option(help="Within an operator, unless a file says.")] = 1,
    triton: Annotated[Path | None, typer.Option(help="Settings, as of `recserve export`.")] = None,
    against: Annotated[Path | None, typer.Option(help="Others to compare them with.")] = None,
    whole: Annotated[bool, typer.Option(help="Measure whole batches.")] = True,
    single: Annotated[bool, typer.Option(help="Measure single rows.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    release = read_release(repository, version)
    model = model or release.models[0]
    batches = batches_of(release, batch, length)
    rows = [{n: a[i : i + 1] for n, a in one.items()} for one in batches for i in range(batch)]
    these = settings_of(triton, model, threads)
    those = (
        settings_of(against, model, threads)
        if against
        else dataclasses.replace(these, batching=False)
    )

    def asked(address: str, questions: list[Batch], callers: int) -> Side:
        return lambda: fed(address, release, model, questions, callers, seconds)

    found: Found = {}
    with serving(release, model, these) as one, serving(release, model, those) as other:
        names = (str(triton or "defaults"), str(against)) if against else None
        if whole:
            first, second = names or ("Triton", "ONNX Runtime alone")
            session = alone_of(release, these.intra_op_threads)
            found["whole batches"] = in_turns(rounds, {
                first: asked(one, batches, CALLS),
                second: asked(other, batches, CALLS)
                if against
                else lambda: repeated(session, batches, seconds),
            })  # fmt: skip
        if single:
            first, second = names or ("batching", "no batching")
            found["single rows"] = in_turns(rounds, {
                first: asked(one, rows, clients),
                second: asked(other, rows, clients),
            })  # fmt: skip
    if as_json:
        typer.echo(json.dumps({name: summary(sides) for name, sides in found.items()}, indent=2))
        return
    console = Console()
    console.print(table_of(found, aims={} if against else AIMS))
    console.print(
        f"{model}, batches of {batch}, {clients} clients, histories of {length}, "
        f"{these.intra_op_threads} threads; medians of {rounds} rounds of {seconds:g} s; "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        soft_wrap=True,
    )


def settings_of(file: Path | None, model: str, threads: int) -> ServingConfig:
    content = file.read_bytes() if file else b""
    said = f"intra_op_threads = {threads}\n".encode() if b"intra_op_threads" not in content else b""
    return parse(said + content, str(file)).of(model)


# --- what is asked


def batches_of(release: Release, rows: int, length: int, count: int = 8) -> list[Batch]:
    """Questions of the release's own users, padded or cut to `length`, in any order."""
    asked = [one for bucket in requests_of(release).values() for one in bucket]
    picked = np.random.default_rng(0).integers(0, len(asked), (count, rows))
    return [tensors([asked[i] for i in row], release.limits, length=length) for row in picked]


# --- who answers


def alone_of(release: Release, threads: int) -> onnxruntime.InferenceSession:
    """The same graph without Triton."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = release.home / "model.onnx"
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


@contextmanager
def serving(release: Release, model: str, settings: ServingConfig) -> Iterator[str]:
    """Address of a tritonserver that has loaded `model` under these settings."""
    text = config_text(model, backend_of(model), release.limits, settings)
    ports = tritonserver.Ports(*free_ports(3))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "triton.log"
        process = tritonserver.launch(release.repository, ports, log=log)
        try:
            control = Control(f"127.0.0.1:{ports.grpc}", tritonserver.control_key(process))
            asyncio.run(_load(control, model, release.version, text))
            yield f"127.0.0.1:{ports.grpc}"
        finally:
            tritonserver.stop(process)


async def _load(server: Control, model: str, version: int, text: str) -> None:
    cpu_only = {b: "KIND_CPU" for b in wheel.CUDA_LIBRARIES if not wheel.has_cuda(b)}
    async with server as control:
        while not await control.tensors.live():
            await asyncio.sleep(0.05)
        await control.load(model, [version], text, automatic=cpu_only)
        while not await control.tensors.ready(model, version):
            await asyncio.sleep(0.05)


# --- how fast


def in_turns(rounds: int, sides: dict[str, Side]) -> dict[str, list[Rate]]:
    """Every side once a round, in an order that turns round; a first round is not counted."""
    found: dict[str, list[Rate]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            rate = sides[name]()
            if number:
                found[name].append(rate)
    return found


def repeated(session: onnxruntime.InferenceSession, batches: list[Batch], seconds: float) -> Rate:
    took: list[float] = []
    started = time.perf_counter()
    while (sent := time.perf_counter()) < started + seconds:
        session.run(None, batches[len(took) % len(batches)])
        took.append(time.perf_counter() - sent)
    return rate(took, time.perf_counter() - started, batches)


def fed(
    address: str, release: Release, model: str, questions: list[Batch], callers: int, seconds: float
) -> Rate:
    """`callers` ask one question after another until `seconds` have passed."""
    took: list[float] = []

    async def caller(client: TritonGrpc, number: int, until: float) -> None:
        while (sent := time.perf_counter()) < until:
            question = questions[(number + callers * len(took)) % len(questions)]
            await client.infer(model, release.version, question, timeout_s=60)
            took.append(time.perf_counter() - sent)

    async def all_callers() -> float:
        client = TritonGrpc(address)
        await client.infer(model, release.version, questions[0], timeout_s=60)  # it is connected
        started = time.perf_counter()
        await asyncio.gather(*(caller(client, n, started + seconds) for n in range(callers)))
        elapsed = time.perf_counter() - started
        await client.close()
        return elapsed

    return rate(took, asyncio.run(all_callers()), questions)


def rate(took: list[float], elapsed: float, questions: list[Batch]) -> Rate:
    rows = len(questions[0]["exclude"])
    return Rate(rows * len(took) / elapsed, float(np.percentile(took, 99)) * 1e3)


# --- what is said


def ratio(sides: dict[str, list[Rate]]) -> list[float]:
    """Of each round: rows/s of the first side by those of the second."""
    first, second = sides.values()
    return [one.rows_s / other.rows_s for one, other in zip(first, second, strict=True)]


def summary(sides: dict[str, list[Rate]]) -> dict[str, object]:
    ratios = sorted(ratio(sides))
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        **{
            name: {
                "rows_s": statistics.median(r.rows_s for r in rates),
                "p99_ms": statistics.median(r.p99_ms for r in rates),
            }
            for name, rates in sides.items()
        },
    }


def table_of(found: Found, aims: dict[str, float]) -> Table:
    table = Table("", "side", "rows/s", "p99, ms", "ratio (quartiles)", "aim", box=None)
    for name, sides in found.items():
        low, middle, high = np.percentile(ratio(sides), (25, 50, 75))
        told = f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{aims[name]:g}" if name in aims else ""
        for row, (side, rates) in enumerate(sides.items()):
            rows_s = statistics.median(r.rows_s for r in rates)
            p99_ms = statistics.median(r.p99_ms for r in rates)
            first = ("", "") if row else told
            table.add_row("" if row else name, side, f"{rows_s:,.0f}", f"{p99_ms:.1f}", *first)
    return table


if __name__ == "__main__":
    typer.run(main)
