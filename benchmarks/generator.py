"""What can the load generator itself do, and how right is what it measures?

    python benchmarks/generator.py [--rounds 5] [--seconds 4] [--realtime] [--json]

1. Against a server that does nothing, on the other core: right answers a second that one core of
   the generator asks for and checks, in a closed loop of 32 callers.
2. Against a server that holds its answers for draws from a known distribution: percentiles that
   an open loop measures, beside those of how long the server held them.

Exit code 1 where a median of the rounds misses its aim, which is said on stderr.

The release is made up: 1,000 items, histories of MovieLens' lengths (20 to 700), an answer of
ten items with titles and categories, as the service gives it.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from client.load.arrivals import Arrivals
from client.load.plan import Plan
from client.load.recording import Rows
from client.load.report import Report, report
from client.load.session import measure
from recommender.catalogue import Catalogue
from recommender.contract import Array, Limits
from recommender.stored import SCHEMA
from recommender.users import Users
from recommender.verify import sha256
from serving.processes import free_ports

ITEMS, USERS = 1000, 500
AIM_RATE, AIM_ERROR = 4000, 0.02
CALLERS, RATE = 32, 400
PERCENTILES = (50, 90, 95, 99)
CORES = os.sched_getaffinity(0)


def main(
    rounds: int = 5,
    seconds: Annotated[float, typer.Option(help="Of each round.")] = 4,
    realtime: Annotated[
        bool,
        typer.Option(
            help="2. at real-time priority, which root may have: what else a machine does then "
            "disturbs less."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
) -> None:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seconds)
        with console.status("A server that does nothing ..."):
            speeds = [bench.speed() for _ in range(rounds)]
        if realtime:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        errors = {}
        for name, delays in distributions(int(RATE * seconds)).items():
            with console.status(f"Delays that are {name} ..."):
                errors[name] = [bench.errors(delays) for _ in range(rounds)]
    aims = missed(speeds, errors)
    if as_json:
        typer.echo(json.dumps({"speed": speeds, "errors": errors, "missed": aims}, indent=2))
    else:
        _show(speeds, errors)
    for aim in aims:
        typer.echo(f"missed: {aim}", err=True)
    if aims:
        raise typer.Exit(1)


def missed(speeds: list[dict[str, float]], errors: dict[str, list[dict[str, float]]]) -> list[str]:
    """The aims that medians of the rounds do not reach, in words."""
    rate = medians(speeds)["per_core_second"]
    aims = [f"{rate:,.0f} right answers a core-second, not {AIM_RATE:,}"] if rate < AIM_RATE else []
    for name, found in errors.items():
        shares = medians(found)
        aims += [
            f"{name}: p{p} is {shares[f'p{p}']:+.2%} off, not within {AIM_ERROR:.0%}"
            for p in PERCENTILES
            if abs(shares[f"p{p}"]) >= AIM_ERROR
        ]
    return aims


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def distributions(count: int) -> dict[str, Array]:
    """[count] seconds each."""
    random = np.random.default_rng(7)
    two = np.where(random.random(count) < 0.85, 0.010, 0.080)
    return {
        "exponential, mean 20 ms": random.exponential(0.020, count),
        "log-normal, median 15 ms": random.lognormal(np.log(0.015), 0.6, count),
        "uniform, 5 to 45 ms": random.uniform(0.005, 0.045, count),
        "near 10 ms, one in seven near 80 ms": two * random.normal(1, 0.02, count),
    }


class Bench:
    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self.repository = write_release(folder / "repository")
        self.answer = folder / "answer.json"
        self.answer.write_bytes(right_answer())

    def speed(self) -> dict[str, float]:
        with self._server() as address:
            plan = Plan(
                target=address,
                repository=self.repository,
                concurrency=CALLERS,
                duration_s=self.seconds,
                warm_up_s=0.5,
            )
            found, _ = self._run(plan)
        return {"per_second": found.throughput, "per_core_second": found.right / found.cpu_s}

    def errors(self, delays: Array) -> dict[str, float]:
        """By percentile, how much more or less was measured than the server held its answers, as a
        share; in ms at the median, with the way there and back; and what the generator knows of
        its own lateness."""
        drawn, held = self.folder / "delays", self.folder / "held"
        drawn.write_text("\n".join(map(str, delays)))
        arrivals = Arrivals(kind="poisson", rate=RATE, duration_s=self.seconds)
        with self._server("--delays", str(drawn), "--held", str(held)) as address:
            plan = Plan(target=address, repository=self.repository, arrivals=arrivals)
            found, rows = self._run(plan)
        known = np.array(held.read_text().split(), float)[-len(rows) :]  # not the first questions
        exact, measured = (np.percentile(s, PERCENTILES) for s in (known, rows.done - rows.due))
        shares = measured / exact - 1
        named = {f"p{p}": float(share) for p, share in zip(PERCENTILES, shares, strict=True)}
        more_ms = float(measured[0] - exact[0]) * 1000
        return {**named, "more_ms": more_ms, "lag_ms": found.lag_ms["p99"]}

    def _run(self, plan: Plan) -> tuple[Report, Rows]:
        rows = uvloop.run(measure(plan))
        found = report(plan, rows)
        if found.right != found.requests:
            raise typer.Exit(_said(found))
        return found, rows

    @contextmanager
    def _server(self, *more: str) -> Iterator[str]:
        (port,) = free_ports(1)
        script = Path(__file__).parent / "known_server.py"
        process = subprocess.Popen([sys.executable, script, str(port), self.answer, *more])
        os.sched_setaffinity(process.pid, {max(CORES)})
        os.sched_setaffinity(0, {min(CORES)})
        try:
            _wait_for(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def write_release(folder: Path) -> Path:
    """As a release looks to whoever reads it; it has no model."""
    home = folder / "toy_onnx" / "1"
    home.mkdir(parents=True)
    random = np.random.default_rng(1)
    lengths = np.clip(random.lognormal(np.log(65), 1.0, USERS), 20, 700).astype(np.int64)
    seen = [random.permutation(ITEMS - 10)[:length] + 1 for length in lengths]
    Catalogue(
        item_ids=tuple(f"item-{i:06}" for i in range(1, ITEMS + 1)),
        titles=tuple(f"The title of {i}" for i in range(1, ITEMS + 1)),
        categories=(("Drama", "Comedy"),) * ITEMS,
        popularity=np.ones(ITEMS, np.float32),
    ).write(home)
    Users(
        user_ids=tuple(f"user-{u:06}" for u in range(USERS)),
        features=np.zeros((USERS, 1), np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.concatenate(seen),
        times=np.full(lengths.sum(), 1_000_000, np.int64),
        weights=np.ones(lengths.sum(), np.float32),
    ).write(home)
    files = {str(path.relative_to(folder)): sha256(path) for path in home.glob("*.parquet")}
    release = {
        "schema": SCHEMA, "version": 1, "family": "toy", "items": ITEMS, "models": ["toy_onnx"],
        "limits": vars(Limits(user_features=1, category_words=1)), "user_features": [],
        "mean_rating": None, "clock": 2_000_000, "files": files,
    }  # fmt: skip
    path = home / "release.json"
    path.write_text(json.dumps(release))
    index = {
        "schema": SCHEMA, "serving": 1, "previous": None,
        "releases": {"1": str(path.relative_to(folder))}, "checksums": {"1": sha256(path)},
    }  # fmt: skip
    (folder / "releases.json").write_text(json.dumps(index))
    return folder


def right_answer() -> bytes:
    """Items that nobody has seen: right for every user."""
    items = [
        {
            "item_id": f"item-{index:06}", "score": 2.5 - rank / 7, "rank": rank,
            "title": f"The title of {index}", "categories": ["Drama", "Comedy"],
        }
        for rank, index in enumerate(range(ITEMS - 9, ITEMS + 1), start=1)
    ]  # fmt: skip
    more: dict[str, Any] = {"release": 1, "model": "toy_onnx", "variant": "default"}
    more |= {"fallback": False, "ignored": [], "request_id": "8f14e45fceea167a"}
    return msgspec.json.encode({"items": items, **more})


def _said(found: Report) -> str:
    return f"not every answer was right: {found.errors or found.wrong}"


def _show(speeds: list[dict[str, float]], errors: dict[str, list[dict[str, float]]]) -> None:
    console = Console(soft_wrap=True)
    rates = [round_["per_core_second"] for round_ in speeds]
    console.print(
        f"{statistics.median(rates):,.0f} right answers a second and core "
        f"({min(rates):,.0f} to {max(rates):,.0f}; aim {AIM_RATE:,}), "
        f"{statistics.median(r['per_second'] for r in speeds):,.0f} a second in all, from "
        f"{CALLERS} callers. {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}."
    )
    rows = Table("delays", box=None, title=f"Measured less held, {RATE}/s; aim {AIM_ERROR:.0%}")
    for name in (*(f"p{p}" for p in PERCENTILES), "p50, ms", "lag p99, ms"):
        rows.add_column(name, justify="right")
    for name, found in errors.items():
        *shares, more, lag = medians(found).values()
        rows.add_row(name, *(f"{share:+.2%}" for share in shares), f"{more:+.2f}", f"{lag:.2f}")
    console.print(rows)
    console.print(f"Medians of {len(speeds)} rounds.")


if __name__ == "__main__":
    typer.run(main)
