"""One generator: a share of a plan -> rows, in this process or in one of its own.

    target checked, warmed up ─> ready ─> start instant, the same for all ─> ticks ... ─> rows

Knows no report and no other generator.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from client.load import arrivals, population
from client.load.plan import Plan
from client.load.questions import Question, Questions
from client.load.recording import Fate, Recording, Rows
from client.load.sending import generator, targets
from client.load.sending.checking import Releases
from recommender.contract import Array
from recommender.errors import BadInput
from recommender.release import Release, read_release

TICK_S = 0.5
SCHEDULED = Path("/proc/thread-self/schedstat")  # nanoseconds
FIRST = 20  # questions, or two a caller: whether anybody is there


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What was answered since the last one."""

    right: int = 0
    refused: int = 0
    faults: int = 0  # no answer, a wrong one, or a fallback
    latencies: Array  # [right] float64 seconds


Tell = Callable[[Tick], None]
Start = Callable[[], Awaitable[float]]  # when all are ready -> when to start, by perf_counter()


async def generate(plan: Plan, number: int, start: Start, tell: Tell) -> Rows:
    """Generator `number`'s part of `plan`. Raises RecserveError where it cannot begin."""
    release = read_release(plan.repository)
    releases = Releases(plan.repository)
    releases.add(release)
    releases.read_all()
    callers = plan.share(plan.concurrency, number)
    target = targets.connect(
        plan.target,
        release,
        model=plan.model or release.models[0],
        timeout_s=plan.timeout_s,
        connections=plan.connections if plan.arrivals else callers,
        mix=plan.mix,
        releases=releases,
    )
    try:
        questions = _questions(plan, number, release)
        first = max(2 * callers, FIRST)
        await generator.check(target, questions, requests=first, address=plan.target)
        with _undisturbed():
            run = _closed if plan.arrivals is None else _opened
            return await run(plan, number, target, questions, start, tell)
    finally:
        await target.close()


def _questions(plan: Plan, number: int, release: Release) -> Iterator[Question]:
    users = release.users
    if plan.data is not None:
        users = population.of_folder(plan.data, release.catalogue, release.limits.user_features)
    return iter(
        Questions(
            release,
            users,
            mix=plan.mix,
            n=plan.n,
            now=int(time.time()),
            zipf=plan.zipf,
            inline=plan.inline,
            seed=plan.seed,
            stream=number,
        )
    )


async def _closed(
    plan: Plan,
    number: int,
    target: targets.Target,
    questions: Iterator[Question],
    start: Start,
    tell: Tell,
) -> Rows:
    callers = plan.share(plan.concurrency, number)
    if plan.warm_up_s:
        warm = generator.until(time.perf_counter() + plan.warm_up_s, questions)
        await generator.closed(target, warm, Recording(), concurrency=callers)
    began = await start()
    work = questions
    if plan.requests is not None:
        work = islice(questions, plan.share(plan.requests, number))
    if plan.duration_s is not None:
        work = generator.until(began + plan.duration_s, work)
    await asyncio.sleep(began - time.perf_counter())
    recording, spent = Recording(), _Spent()
    async with _ticking(recording, tell):
        await generator.closed(target, work, recording, concurrency=callers)
    return recording.rows(began, cpu_s=spent.cpu_s, busy=spent.busy)


async def _opened(
    plan: Plan,
    number: int,
    target: targets.Target,
    questions: Iterator[Question],
    start: Start,
    tell: Tell,
) -> Rows:
    assert plan.arrivals is not None
    measured = arrivals.instants(plan.arrivals, plan.seed)
    if not len(measured):
        raise BadInput(
            "no request is due in what is measured",
            remedy="Ask for a longer --duration, or a higher --rate.",
            field="rate",
            value=plan.arrivals.rate,
        )
    before = arrivals.at_first(plan.arrivals, plan.warm_up_s, plan.seed)
    # Of one schedule, so that the sum is what was planned.
    instants = np.concatenate([before, measured])[number :: plan.processes]
    began = await start() + plan.warm_up_s
    recording, spent = Recording(), _Spent()
    asyncio.get_running_loop().call_later(max(began - time.perf_counter(), 0), spent.begin)
    async with _ticking(recording, tell):
        await generator.opened(target, questions, recording, instants + began)
    return recording.rows(began, cpu_s=spent.cpu_s, busy=spent.busy)


class _Spent:
    """CPU of this process; and how long its loop ran or waited for a core, as a share of the time
    that passes: a generator that is never idle is not on time either."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._began = time.perf_counter()
        self._cpu, self._wanted = time.process_time(), _wanted_s()

    @property
    def cpu_s(self) -> float:
        return time.process_time() - self._cpu

    @property
    def busy(self) -> float:
        return (_wanted_s() - self._wanted) / (time.perf_counter() - self._began)


def _wanted_s() -> float:
    """For which this thread ran, or could have run and was not let."""
    try:
        ran, waited, _ = map(int, SCHEDULED.read_text().split())
    except OSError:  # a kernel that does not count it
        return time.thread_time()
    return (ran + waited) / 1e9


@asynccontextmanager
async def _ticking(recording: Recording, tell: Tell) -> AsyncIterator[None]:
    """Tells what is recorded while the block lasts, and the rest at its end."""
    seen = 0

    def tick() -> None:
        nonlocal seen
        fates = [outcome.fate for outcome in recording.outcomes]
        before, seen = seen, len(recording.outcome)
        fate = np.array(fates)[np.array(recording.outcome[before:seen], np.int64)]
        right = fate == Fate.RIGHT
        took = np.array(recording.done[before:seen]) - np.array(recording.due[before:seen])
        refused = int((fate == Fate.REFUSED).sum())
        tell(
            Tick(
                right=int(right.sum()),
                refused=refused,
                faults=int(len(fate) - right.sum() - refused),
                latencies=took[right],
            )
        )

    async def ticks() -> None:
        while True:
            await asyncio.sleep(TICK_S)
            tick()

    task = asyncio.create_task(ticks())
    try:
        yield
    finally:
        task.cancel()
        tick()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """By the garbage collector, whose pauses would be measured: what is there is not looked
    through again, and what comes rarely."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
