"""Questions -> a target, at a pace of their own or of the target's -> a recording.

    closed loop   N callers, each asking its next question when the last is answered: the rate is
                  what the target can do
    open loop     every question at its instant, however many are under way: a target that stalls
                  cannot hide it, since latency counts from the instant that was scheduled

Knows no protocol and prints nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from client.load.questions import Question
from client.load.recording import Fate, Recording
from client.load.sending.clock import Alarm
from client.load.sending.targets import Target
from recommender.contract import Array
from recommender.errors import Unavailable

AT_ONCE = 64  # questions sent before answers are looked at again
GIVE_UP_S = 2.0  # behind the schedule: what comes after could not be caught up with


async def check(
    target: Target, questions: Iterator[Question], *, requests: int, address: str
) -> None:
    """Ask a few questions, before anything is measured. Raises Unavailable where none of them is
    answered; `address` is the target's, to name it."""
    recording = Recording()
    await closed(target, islice(questions, requests), recording, concurrency=min(8, requests))
    rows = recording.rows(0.0)
    failed = rows.fate(Fate.FAILED)
    if failed.all():
        kind, _ = Counter(rows.outcomes[i].kind for i in rows.outcome[failed]).most_common(1)[0]
        raise Unavailable(
            f"none of {requests} first requests to {address} was answered: {kind}",
            remedy="Check that a server runs there and serves the release of --repository.",
        )


def until(instant: float, questions: Iterable[Question]) -> Iterator[Question]:
    """Questions until time.perf_counter() is `instant`."""
    for question in questions:
        if time.perf_counter() >= instant:
            return
        yield question


async def closed(
    target: Target, work: Iterable[Question], recording: Recording, *, concurrency: int
) -> None:
    """Ask everything in `work`, shared by `concurrency` callers."""
    shared = iter(work)

    async def caller() -> None:
        for question in shared:
            await _ask(target, question, recording, time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(caller())


async def opened(
    target: Target, questions: Iterator[Question], recording: Recording, instants: Array
) -> None:
    """Ask a question at each of `instants` [n] (of time.perf_counter(), ascending), and wait for
    the last answer. Gives up when far behind: what was not sent then, and what was under way, is
    kept in the recording as that."""
    try:
        with Alarm() as alarm:
            async with asyncio.TaskGroup() as group:
                for number, due in enumerate(instants.tolist()):
                    late = time.perf_counter() - due
                    if late < 0:
                        await alarm.until(due)
                    elif late > GIVE_UP_S:
                        raise _GaveUp  # and with it everything that is under way
                    elif number % AT_ONCE == 0:
                        await asyncio.sleep(0)
                    group.create_task(_ask(target, next(questions), recording, due))
    except* _GaveUp:
        recording.give_up(instants)


class _GaveUp(Exception): ...


async def _ask(target: Target, question: Question, recording: Recording, due: float) -> None:
    sent = time.perf_counter()
    heard = await target.ask(question)
    recording.add(question.part, due, sent, heard.done, heard.outcome, heard.release)
