"""Hours of everything that callers do, good and bad: memory, files, threads and shared memory of
the service and of Triton stay what they were once they are warm."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import psutil
import pytest
from bento_process import Service, worker_of
from scale import often
from served import ITEMS, Stack

from serving.tritonserver import SHM_FLAG

RATE = 350  # requests a second, at most: ten million in eight hours
CALLERS = 8
SAMPLE_S = 0.5
GROWTH = 0.05  # of memory, from the second quarter to the last
MOST = 100e6  # bytes that it may grow by, however much there is
AN_HOUR = 1e6  # bytes that it may grow by in an hour, of a soak of hours
FEW = 3  # files and threads that come and go


@dataclass(frozen=True, kw_only=True)
class Held:
    """By the processes of one server, at a moment."""

    memory: int
    files: int
    threads: int


@pytest.mark.parametrize("seconds", often(12, 8 * 3600))
def test_hours_of_mixed_load_leave_everything_as_it_was(
    stack: Stack, aside: Service, seconds: int
) -> None:
    triton = stack.processes("triton")
    assert len(triton) > 4  # the server, and a stub for each model
    servers = {"service": [worker_of(aside)], "triton": triton}
    seen: dict[str, list[Held]] = {name: [] for name in servers}
    shared: list[int] = []

    def look() -> None:
        for name, processes in servers.items():
            seen[name].append(_held(processes))
        shared.append(_shared_memory(triton[0]))

    answered = asyncio.run(_soak(aside.url, seconds, look))
    assert len({path for path, _ in answered}) == len(KINDS)
    # Of the items of the data, some never happened: no release knows them.
    others = {one for one in answered if one[1] != 200}
    assert {(BAD, 400)} <= others <= {(BAD, 400), ("/v1/similar", 404)}, answered
    assert (BAD, 200) not in answered
    for name, held in seen.items():
        warm, late = _quarter(held, 1), _quarter(held, 3)
        grown = _middle(late, "memory") - _middle(warm, "memory")
        assert grown <= min(GROWTH * _middle(warm, "memory"), MOST), (
            name,
            grown,
            held[:: len(held) // 8],
        )
        if (hours := seconds / 3600) >= 1:
            assert grown / (hours / 2) <= AN_HOUR, (name, grown)
        for what in ("files", "threads"):
            assert _middle(late, what) <= _middle(warm, what) + FEW, (name, what)
    assert max(shared[len(shared) * 3 // 4 :]) <= max(shared[: len(shared) // 2])


def _held(processes: list[psutil.Process]) -> Held:
    return Held(
        memory=sum(p.memory_info().rss for p in processes),
        files=sum(p.num_fds() for p in processes),
        threads=sum(p.num_threads() for p in processes),
    )


def _shared_memory(triton: psutil.Process) -> int:
    """Bytes in /dev/shm of this server."""
    (prefix,) = (a.removeprefix(SHM_FLAG) for a in triton.cmdline() if a.startswith(SHM_FLAG))
    return sum(path.stat().st_size for path in Path("/dev/shm").glob(f"{prefix}*"))


def _quarter(held: list[Held], number: int) -> list[Held]:
    size = len(held) // 4
    return held[number * size : (number + 1) * size]


def _middle(held: list[Held], what: str) -> float:
    return median(getattr(one, what) for one in held)


async def _soak(url: str, seconds: float, look: Callable[[], None]) -> Counter[tuple[str, int]]:
    """How often which kind of request was answered how."""
    began, sent = time.monotonic(), 0
    answered: Counter[tuple[str, int]] = Counter()

    async def caller(session: aiohttp.ClientSession, rng: random.Random) -> None:
        nonlocal sent
        while (now := time.monotonic() - began) < seconds:
            if sent / RATE > now:
                await asyncio.sleep(sent / RATE - now)
            sent += 1
            kind = rng.choices(list(KINDS), WEIGHTS)[0]
            path = "/v1/recommend" if kind == BAD else kind
            async with session.post(path, json=KINDS[kind](rng)) as response:
                await response.read()
            answered[kind, response.status] += 1

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            await asyncio.to_thread(look)
            await asyncio.sleep(SAMPLE_S)

    timeout = aiohttp.ClientTimeout(total=30)
    async with (
        aiohttp.ClientSession(url, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(watch())
        for number in range(CALLERS):
            group.create_task(caller(session, random.Random(number)))
    return answered


def _user(rng: random.Random) -> str:
    return f"user-{rng.randrange(500):06d}"  # some of whom nobody knows


def _item(rng: random.Random) -> str:
    return f"item-{rng.randrange(1, ITEMS + 1):06d}"


def _asked(rng: random.Random) -> dict[str, Any]:
    return rng.choice((
        {"user_id": _user(rng)},
        {"user_id": _user(rng), "n": 20, "diversity": 0.3},
        {"user_id": _user(rng), "explain": True, "n": 3},
        {"history": [_item(rng) for _ in range(rng.randrange(30))]},
        {"user_id": _user(rng), "filter": {"categories": ["group-001"]}},
        {"user_id": _user(rng), "filter": {"only": [_item(rng) for _ in range(20)]}},
    ))  # fmt: skip


BAD = "bad"
KINDS: dict[str, Callable[[random.Random], Any]] = {
    "/v1/recommend": _asked,
    "/v1/similar": lambda rng: {"item_id": _item(rng), "n": 5},
    "/v1/rank": lambda rng: {"user_id": _user(rng), "candidates": [_item(rng) for _ in range(20)]},
    "/v1/popular": lambda rng: rng.choice(({"n": 5}, {"n": 5, "text": "1"})),
    "/v1/events": lambda rng: {"events": [
        {"user_id": _user(rng), "item_id": _item(rng), "event": "view"} for _ in range(3)
    ]},
    "/v1/history": lambda rng: {"user_id": _user(rng)},
    "/v1/forget": lambda rng: {"user_id": _user(rng)},
    "/v1/blocked": lambda rng: {"add": [_item(rng)], "remove": [_item(rng) for _ in range(5)]},
    BAD: lambda rng: rng.choice(([], {"n": -1}, {"user_id": 7}, {"history": ["x" * 3000]})),
}  # fmt: skip
WEIGHTS = (50, 8, 8, 8, 10, 4, 2, 1, 9)
