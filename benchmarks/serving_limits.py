"""recserve alone, near its capacity and far above it: two runs that compare with nobody.

    python benchmarks/serving_limits.py soak REPOSITORY [--minutes 10] [--share 0.7]
    python benchmarks/serving_limits.py overload REPOSITORY [--seconds 60] [--factor 10] [--apart]

Both run under the defaults, as `recserve serve` does: what serves most in a closed loop may be slow
to answer the last of a hundred in an open one (docs/triton.md). They first ask what 64 connections
get in a closed loop: that is the capacity. Then an open loop, whose latencies count from when a
request was due. Each adds its part to docs/benchmarks.json and writes docs/benchmarks.md anew,
unless told `--docs ""`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.pretty import pprint
from serving_asking import fill_store, measured
from serving_figures import about, keep
from serving_ours import scratch
from serving_page import write
from serving_paths import OURS, PATHS, Server, serving

from bento.settings import Settings
from client.load.arrivals import Arrivals
from client.load.report import Report, Second
from client.load.session import Plan, run
from recommender.release import read_release

app = typer.Typer()
CALM_S = 20  # before the overload, and after it
CALM = 0.5  # of capacity
Docs = Annotated[str, typer.Option(help="Where the page and its figures go; empty: nowhere.")]


@app.command()
def soak(
    repository: Path,
    minutes: float = 10.0,
    share: Annotated[float, typer.Option(help="Of capacity.")] = 0.7,
    docs: Docs = "docs",
) -> None:
    with _ours(repository) as server:
        capacity = _capacity(server, repository)
        server.go_on()
        plan = Plan(
            target=server.url,
            repository=repository,
            arrivals=Arrivals(rate=share * capacity, duration_s=60 * minutes),
            warm_up_s=min(30.0, 6 * minutes),
        )
        with _memory(server, every_s=0.6 * minutes) as memory:
            found = uvloop.run(run(plan))
    tenth = max(1, len(memory) // 10)
    first, last = statistics.mean(memory[tenth : 2 * tenth]), statistics.mean(memory[-tenth:])
    _say(repository, docs, "soak", {
        "minutes": minutes,
        "share": share,
        "capacity": capacity,
        "rate": share * capacity,
        "requests": found.requests,
        "errors": found.requests - found.right,
        "kinds": {**found.errors, **found.wrong, **found.refused},
        "p50_ms": found.latency_ms["p50"],
        "p99_ms": found.latency_ms["p99"],
        "max_ms": found.latency_ms["max"],
        "memory_mb": memory,
        "growth": last / first - 1,
        "why_behind": found.why_behind,
        "lag_ms": dict(found.lag_ms),
    })  # fmt: skip


@app.command()
def overload(
    repository: Path,
    seconds: float = 60.0,
    factor: Annotated[float, typer.Option(help="Times the capacity.")] = 10.0,
    processes: Annotated[int, typer.Option(help="Generators.")] = 1,
    apart: Annotated[
        bool, typer.Option(help="Servers on one half of the cores, generator on the other.")
    ] = False,
    docs: Docs = "docs",
) -> None:
    ours, others = _halves() if apart else (os.sched_getaffinity(0),) * 2
    os.sched_setaffinity(0, ours)  # what is started now stays there
    with _ours(repository) as server, tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, others)
        capacity = _capacity(server, repository)
        server.go_on()
        trace = Path(folder) / "trace"
        calm = (CALM * capacity, CALM_S)
        np.savetxt(trace, _instants([calm, (factor * capacity, seconds), calm]), fmt="%.6f")
        plan = Plan(
            target=server.url,
            repository=repository,
            arrivals=Arrivals(kind="trace", trace=trace),
            processes=processes,
        )
        found = uvloop.run(run(plan))
    os.sched_setaffinity(0, ours | others)
    refused = sum(found.refused.values())
    begin, end = CALM_S, CALM_S + int(seconds)
    _say(repository, docs, "overload_apart" if apart else "overload", {
        "seconds": seconds,
        "factor": factor,
        "capacity": capacity,
        "requests": found.requests,
        "deadline_ms": Settings().deadline_ms,
        "accepted_ms": dict(found.latency_ms),
        "worst_ms": max(s.p99_ms or 0.0 for s in found.seconds[begin:end]),
        "refused_ms": dict(found.refused_ms),
        "refused": dict(found.refused),
        "fallbacks": found.fallbacks,
        "errors": found.requests - found.right - found.fallbacks - refused,
        "kinds": {**found.errors, **found.wrong},
        "goodput": sum(s.right for s in found.seconds[begin:end]) / seconds / capacity,
        "normal_s": _normal(found, end),
        "why_behind": found.why_behind,
        "lag_ms": dict(found.lag_ms),
    })  # fmt: skip


def _halves() -> tuple[set[int], set[int]]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise typer.BadParameter("--apart wants two cores at least, and there is one.")
    half = len(cores) // 2
    return set(cores[:half]), set(cores[half:])


@contextmanager
def _ours(repository: Path) -> Iterator[Server]:
    with (
        scratch(repository) as folder,
        serving(PATHS[OURS], repository, Path(folder)) as server,
    ):
        fill_store(server, read_release(repository), newest=20)
        yield server


def _capacity(server: Server, repository: Path) -> float:
    """Requests a second of 64 connections, the median of three times."""
    rates = [
        measured(server, repository, connections=64, seconds=4, warm_up_s=1).rate for _ in range(3)
    ]
    return statistics.median(rates)


def _instants(phases: Sequence[tuple[float, float]]) -> np.ndarray:
    """Poisson arrivals at each phase's rate, for its seconds."""
    random, parts, at = np.random.default_rng(0), [], 0.0
    for rate, seconds in phases:
        parts.append(np.sort(at + seconds * random.random(random.poisson(rate * seconds))))
        at += seconds
    return np.concatenate(parts)


def _normal(found: Report, end: int) -> int | None:
    """Seconds after `end` from which on everything was as before the overload; None: never."""
    before = statistics.median(s.p99_ms for s in found.seconds[2:CALM_S] if s.p99_ms is not None)

    def calm(second: Second) -> bool:
        late = second.p99_ms is None or second.p99_ms > max(2 * before, 25)
        return not (late or second.refused or second.errors)

    after = [calm(second) for second in found.seconds[end:]]
    # The last second is cut short by the end of the run.
    return next((i for i in range(len(after) - 1) if all(after[i:-1])), None)


@contextmanager
def _memory(server: Server, every_s: float) -> Iterator[list[float]]:
    """MB of all its processes, as time passes."""
    found, ended = list[float](), threading.Event()

    def watch() -> None:
        while not ended.wait(every_s):
            found.append(server.memory_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _say(repository: Path, docs: str, part: str, found: dict[str, Any]) -> None:
    pprint(found, console=Console(), max_length=20)
    if docs:
        machine = about(read_release(repository), [PATHS[OURS]])
        keep(Path(docs), **{part: {**found, "machine": machine}})
        write(Path(docs))


if __name__ == "__main__":
    app()
