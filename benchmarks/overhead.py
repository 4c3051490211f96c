"""What does the service add to Triton's own time, for one caller?

    python benchmarks/overhead.py REPOSITORY [--url URL --triton ADDRESS] [--rounds 9]

Asks the same users of the Bento service over HTTP, and of Triton over gRPC with tensors that
are ready, one at a time and in turns, so that what else the machine does meets both. Without
addresses it starts `recserve serve` itself, with an event store, on free ports. Medians of
each round, and the median of their differences.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.load.mix import Mix
from client.load.questions import Question, Questions
from client.load.recording import RIGHT
from client.load.sending.targets import Target, connect
from recommender.release import Release, read_release
from serving.processes import free_ports

AIM_MS = 2.5


def main(
    repository: Path,
    url: Annotated[str | None, typer.Option(help="A service that runs, instead of ours.")] = None,
    triton: Annotated[str | None, typer.Option(help="Its Triton, grpc://host:port.")] = None,
    rounds: int = 9,
    requests: Annotated[int, typer.Option(help="Of each side of each round.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    release = read_release(repository)
    if url and triton:
        found = asyncio.run(measured(release, url, triton, rounds, requests))
    else:
        with served(repository) as (url, triton):
            found = asyncio.run(measured(release, url, triton, rounds, requests))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    low, high = min(found["differences_ms"]), max(found["differences_ms"])
    Console().print(
        f"The service {found['service_ms']:.2f} ms, Triton alone {found['triton_ms']:.2f} ms: "
        f"it adds {found['added_ms']:.2f} ms ({low:.2f} to {high:.2f}; aim {AIM_MS:g}). Medians of "
        f"{rounds} rounds of {requests} requests each, one caller; {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[0]:.1f}",
        soft_wrap=True,
    )


async def measured(
    release: Release, url: str, triton: str, rounds: int, requests: int
) -> dict[str, object]:
    now = int(time.time())
    endless = iter(Questions(release, release.users, mix=Mix(), n=10, now=now))
    asked = [next(endless) for _ in range(len(release.users))]
    model = release.models[0]
    service = connect(url, release, model=model, timeout_s=10, connections=1)
    direct = connect(triton, release, model=model, timeout_s=10, connections=1)
    sides: dict[str, list[float]] = {"service": [], "triton": []}
    try:
        for number in range(rounds + 1):  # the first is not counted
            part = [asked[(number * requests + i) % len(asked)] for i in range(requests)]
            order = [("service", service), ("triton", direct)]
            for name, target in order[:: -1 if number % 2 else 1]:
                median = await _median_ms(target, part)
                if number:
                    sides[name].append(median)
    finally:
        await service.close()
        await direct.close()
    differences = [a - b for a, b in zip(sides["service"], sides["triton"], strict=True)]
    return {
        "service_ms": statistics.median(sides["service"]),
        "triton_ms": statistics.median(sides["triton"]),
        "added_ms": statistics.median(differences),
        "differences_ms": differences,
    }


async def _median_ms(target: Target, asked: list[Question]) -> float:
    seconds = []
    for question in asked:
        began = time.perf_counter()
        heard = await target.ask(question)
        if heard.outcome is not RIGHT:
            raise typer.BadParameter(f"a question was not answered rightly: {heard.outcome.kind}")
        seconds.append(heard.done - began)
    return statistics.median(seconds) * 1000


@contextmanager
def served(repository: Path) -> Iterator[tuple[str, str]]:
    """Addresses of the service and its Triton."""
    http, grpc, metrics, port = free_ports(4)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "serving.cli", "serve",
                   "--repository", str(repository.resolve()), "--port", str(port),
                   "--http-port", str(http), "--grpc-port", str(grpc),
                   "--metrics-port", str(metrics),
                   "--store", f"sqlite:///{folder}/events.db"]  # fmt: skip
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if not any("is served at" in line for line in process.stdout):
                raise typer.Exit(1)  # it has said why
            yield f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{grpc}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


if __name__ == "__main__":
    typer.run(main)
