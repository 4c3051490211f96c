"""Questions -> N workers, each asking its next one when the last is answered -> a recording.

A closed loop: the rate is what the target can do with N callers. Other
schedules are other iterators of work. Knows no protocol and prints nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from client.load.questions import Question, fault
from client.load.targets import Target
from recommender.errors import RecserveError, Unavailable


@dataclass(kw_only=True)
class Recording:
    """What happened to every question that was asked after the warm-up."""

    latencies: list[float] = field(default_factory=list)  # seconds, of answers right and wrong
    errors: Counter[str] = field(default_factory=Counter)  # no answer, by kind
    wrong: Counter[str] = field(default_factory=Counter)  # an answer that is not right, by kind
    elapsed_s: float = 0.0  # from the first question to the last answer

    @property
    def right(self) -> int:
        return len(self.latencies) - self.wrong.total()


def for_seconds(questions: Iterable[Question], seconds: float) -> Iterator[Question]:
    """Questions until `seconds` have passed since the first was taken."""
    end = time.perf_counter() + seconds
    for question in questions:
        if time.perf_counter() >= end:
            return
        yield question


async def measure(
    target: Target,
    questions: Iterator[Question],
    *,
    items: int,
    concurrency: int,
    requests: int | None = None,
    duration_s: float | None = None,
) -> Recording:
    """Ask with `concurrency` workers, `requests` times or for `duration_s` seconds.

    `questions` must not end; `items` is the size of the catalogue. A warm-up of
    at least one question a worker comes first and is not recorded. Raises
    Unavailable when it brings no answer at all.
    """
    warm_up = max(2 * concurrency, 20)
    warm = await run(target, islice(questions, warm_up), items=items, concurrency=concurrency)
    if not warm.latencies:
        kind, _ = warm.errors.most_common(1)[0]
        raise Unavailable(
            f"none of {warm_up} first requests was answered: {kind}",
            remedy="Check that a server runs there and serves the release of --repository.",
        )
    work: Iterator[Question] = islice(questions, requests)
    if duration_s is not None:
        work = for_seconds(work, duration_s)
    return await run(target, work, items=items, concurrency=concurrency)


async def run(
    target: Target, work: Iterable[Question], *, items: int, concurrency: int
) -> Recording:
    """Ask everything in `work`, shared by `concurrency` workers."""
    recording = Recording()
    shared = iter(work)
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(_worker(target, shared, items, recording))
    recording.elapsed_s = time.perf_counter() - started
    return recording


async def _worker(
    target: Target, work: Iterator[Question], items: int, recording: Recording
) -> None:
    for question in work:
        sent = time.perf_counter()
        try:
            answer = await target.ask(question)
        except RecserveError as error:
            recording.errors[error.what] += 1
            continue
        recording.latencies.append(time.perf_counter() - sent)
        if wrong := fault(answer, question, wanted=target.wanted, items=items):
            recording.wrong[wrong] += 1
