"""Event stores for the tests: a real redis-server that can be killed and hung, and a model that
says what a store must answer, in the plainest code."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import redis
from ports import free_ports

from bento.store import Counted, Event, Keep, Past, Store, connect, reading

DAY = 86_400
PATIENT_S = 30.0  # however busy the machine is
NOW = 1_700_000_000 // DAY * DAY + DAY // 2  # noon
WEIGHTS = {"view": 1.0, "purchase": 4.0, "return": -2.0, "impression": 0.0}


def past(*events: Event) -> Past:
    """What a store says of a user with these, oldest first."""
    return Past(
        [e.item_id for e in events], [e.event for e in events], [e.timestamp for e in events]
    )


def ids_of(url: str) -> list[str]:
    """Of all events that are kept: oldest first, and of one time as they arrived."""
    with reading(url) as reader:
        return [e.event_id for e in sorted(reader.events(), key=lambda e: e.timestamp)]


class RedisServer:
    """A server of its own, whose every acknowledged write is on the disk."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder, self.flags = folder, flags
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
                   "--dir", str(self.folder), "--save", "", "--appendonly", "yes",
                   "--appendfsync", "always", "--aof-load-truncated", "no",
                   *self.flags]  # fmt: skip
        self._mend()
        until = time.monotonic() + 60
        while True:
            with (self.folder / "redis.log").open("ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log)
            if self._answers(until):
                return
            # of one that was killed, a child that rewrites the log may hold the port a moment more
            assert time.monotonic() < until, (self.folder / "redis.log").read_text()[-2000:]
            time.sleep(0.05)

    def _mend(self) -> None:
        """Cut off what a kill has left half written, as docs/events.md has it."""
        manifest = self.folder / "appendonlydir" / "appendonly.aof.manifest"
        if manifest.exists():
            mend = ["redis-check-aof", "--fix", str(manifest)]
            done = subprocess.run(mend, input="y\n", capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    def _answers(self, until: float) -> bool:
        """Once it does; false where it has ended."""
        with redis.Redis(port=self.port, retry=None) as client:
            while self.process.poll() is None:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    assert time.monotonic() < until
                    time.sleep(0.02)
        return False

    def signal(self, which: signal.Signals) -> None:
        os.kill(self.process.pid, which)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def empty(self) -> None:
        with redis.Redis(port=self.port) as client:
            client.flushall()


@contextmanager
def redis_server(folder: Path, *flags: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *flags)
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def opened(
    url: str,
    keep: Keep = Keep(),  # noqa: B008 - frozen
    wait_s: float = PATIENT_S,
) -> AsyncIterator[Store]:
    store = connect(url, keep=keep, wait_s=wait_s)
    try:
        yield store
    finally:
        await store.close()


def event(
    number: int, user: str = "ann", item: str = "i1", kind: str = "view", at: int = NOW,
    request: str | None = None,
) -> Event:  # fmt: skip
    return Event(
        event_id=f"e{number}", user_id=user, item_id=item, event=kind, timestamp=at,
        request_id=request,
    )  # fmt: skip


class Model:
    """A store that one caller uses at a time, in memory."""

    def __init__(self, cap: int = 10_000) -> None:
        self.cap = cap
        self.kept: dict[str, list[tuple[int, int, Event, float]]] = {}  # time, arrival, _, vote
        self.horizon: dict[str, int] = {}
        self.erased: dict[str, int] = {}
        self.votes: list[tuple[str, int, float]] = []  # item, time, vote
        self.arrivals = 0
        self.dropped = False  # events with votes, which another half-life does not find again

    def add(self, events: Sequence[Event]) -> Counted:
        return Counted(*map(sum, zip(*(self._add(e) for e in events), strict=True)))

    def _add(self, e: Event) -> tuple[int, int, int]:
        mine = self.kept.setdefault(e.user_id, [])
        horizon = self.horizon.get(e.user_id, -math.inf)
        if e.timestamp <= self.erased.get(e.user_id, -math.inf):
            return 0, 0, 1
        if e.timestamp <= horizon or any(k.event_id == e.event_id for _, _, k, _ in mine):
            return 0, 1, 0
        day = e.timestamp // DAY
        counted = sum(
            v for t, _, k, v in mine if (k.item_id, t // DAY) == (e.item_id, day)
        )  # fmt: skip
        vote = max(0.0, WEIGHTS.get(e.event, 1.0) - counted)
        if WEIGHTS.get(e.event, 1.0) <= 0 or day <= horizon // DAY:
            vote = 0.0
        if vote:
            self.votes.append((e.item_id, e.timestamp, vote))
        self.arrivals += 1
        mine.append((e.timestamp, self.arrivals, e, vote))
        mine.sort(key=lambda kept: kept[:2])
        while len(mine) > self.cap:
            gone = mine.pop(0)
            self.dropped = True
            self.horizon[e.user_id] = max(gone[0], self.horizon.get(e.user_id, gone[0]))
        return 1, 0, 0

    def history(self, user: str) -> list[Event]:
        return [e for _, _, e, _ in self.kept.get(user, [])]

    def forget(self, user: str, now: int) -> int:
        gone = self.kept.pop(user, [])
        self.horizon.pop(user, None)
        for time_, _, e, vote in gone:
            if vote:
                self.votes.remove((e.item_id, time_, vote))
        self.erased[user] = max(now, self.erased.get(user, now))
        return len(gone)

    def trends(self, now: int, half_life_days: float) -> dict[str, float]:
        sums: dict[str, float] = {}
        for item, at, vote in self.votes:
            sums[item] = sums.get(item, 0.0) + vote * 2 ** ((at - now) / (half_life_days * DAY))
        return {item: votes for item, votes in sums.items() if votes > 1e-6}
