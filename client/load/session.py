"""A plan -> one generator, or several processes of them -> a report: one load test.

    generators ─> all ready ─> one start instant ─> their ticks are added up for the progress,
                                                    their rows for the report

One generator runs in this process and event loop (uvloop, for figures that count); each of
several has a process of its own, which ends with this one.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np
import uvloop

from client.load.plan import Plan
from client.load.recording import Rows, merged
from client.load.report import Report, report
from client.load.sending.worker import TICK_S, Tell, Tick, generate
from recommender.errors import MachineError, RecserveError

__all__ = ["Plan", "Progress", "measure", "run"]

AHEAD_S = 0.2  # of the common start, for every process to hear of it
GRACE_S = 5.0  # for a process to end in


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Of a run under way, for whoever watches it."""

    elapsed_s: float
    right: int  # so far
    refused: int
    faults: int
    rate: float  # right answers a second, lately
    p50_ms: float  # lately; not a number where nothing was answered
    p99_ms: float


Watch = Callable[[Progress], None]
Begun = Callable[[float], None]


async def run(plan: Plan, *, progress: Watch | None = None) -> Report:
    """Raises BadInput, ReleaseError, DataError, or Unavailable where nobody answers."""
    return report(plan, await measure(plan, progress=progress))


async def measure(
    plan: Plan, *, progress: Watch | None = None, begun: Begun = lambda _: None
) -> Rows:
    """What `run` reports of, as it was recorded. `begun` hears, when all is ready, at which
    instant of time.perf_counter() what is measured begins."""
    tell = _Added(progress).tell if progress is not None else lambda _: None
    if plan.processes == 1:
        return await generate(plan, 0, partial(_now, plan, begun), tell)
    with _processes(plan) as generators:
        ready = asyncio.Barrier(plan.processes)
        start = cache(lambda: _at_once(plan, begun))
        work = (_followed(generator, ready, start, tell) for generator in generators)
        return merged(await asyncio.gather(*work))


async def _now(plan: Plan, begun: Begun) -> float:
    return _at_once(plan, begun, ahead_s=0.0)


def _at_once(plan: Plan, begun: Begun, ahead_s: float = AHEAD_S) -> float:
    """The start; only an open loop warms up behind it."""
    start = time.perf_counter() + ahead_s
    begun(start + (plan.warm_up_s if plan.arrivals else 0.0))
    return start


class _Added:
    """Ticks of all generators -> progress, as often as one of them ticks."""

    def __init__(self, progress: Watch) -> None:
        self._progress = progress
        self._began = self._shown = time.perf_counter()
        self._right = self._refused = self._faults = 0
        self._lately: list[Tick] = []

    def tell(self, tick: Tick) -> None:
        self._right += tick.right
        self._refused += tick.refused
        self._faults += tick.faults
        self._lately.append(tick)
        now = time.perf_counter()
        if (passed := now - self._shown) < 0.8 * TICK_S:
            return
        took = np.concatenate([tick.latencies for tick in self._lately]) * 1000
        p50, p99 = np.percentile(took, (50, 99)) if len(took) else (np.nan, np.nan)
        self._progress(
            Progress(
                elapsed_s=now - self._began,
                right=self._right,
                refused=self._refused,
                faults=self._faults,
                rate=len(took) / passed,
                p50_ms=float(p50),
                p99_ms=float(p99),
            )
        )
        self._shown, self._lately = now, []


# --- several processes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Generator:
    process: SpawnProcess
    pipe: Connection


@dataclass(frozen=True, kw_only=True)
class _Raised:
    error: RecserveError


READY = "ready"


async def _followed(
    generator: _Generator, ready: asyncio.Barrier, start: Callable[[], float], tell: Tell
) -> Rows:
    """Its rows. Raises what it raised, or MachineError where it died."""
    while True:
        try:
            message = await asyncio.to_thread(generator.pipe.recv)
            if message == READY:
                await ready.wait()
                generator.pipe.send(start())
        except (EOFError, ConnectionError):
            raise MachineError(
                f"a process of the load generator ended (exit code {generator.process.exitcode})",
                remedy="Often memory ran out: ask for fewer --processes, or a shorter run.",
            ) from None
        if isinstance(message, Tick):
            tell(message)
        elif isinstance(message, _Raised):
            raise message.error
        elif isinstance(message, Rows):
            return message


@contextmanager
def _processes(plan: Plan) -> Iterator[list[_Generator]]:
    """They never hear the terminal's Ctrl-C: the command does, and ends them."""
    context, found = multiprocessing.get_context("spawn"), list[_Generator]()
    resource_tracker.ensure_running()  # its own start lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for number in range(plan.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, plan, number), daemon=True)
            process.start()
            theirs.close()  # or its end would not be seen
            found.append(_Generator(process=process, pipe=ours))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield found
    finally:
        for generator in found:
            generator.process.terminate()
        for generator in found:
            generator.process.join(GRACE_S)
            if generator.process.is_alive():
                generator.process.kill()


def _work(pipe: Connection, plan: Plan, number: int) -> None:
    """A generator's life, in a process of its own."""

    async def start() -> float:
        pipe.send(READY)
        instant: float = await asyncio.to_thread(pipe.recv)
        return instant

    try:
        try:
            pipe.send(uvloop.run(generate(plan, number, start, pipe.send)))
        except RecserveError as error:
            pipe.send(_Raised(error=error))
    except (EOFError, ConnectionError):
        return  # the command has gone
