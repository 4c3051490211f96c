"""What reading the event store costs, where it holds more than the service keeps at hand.

    python benchmarks/serving_stores.py REPOSITORY [--rounds 5] [--seconds 4] [--times 5]

Users are made up: each is one of the release's under another id, with the newest of its events,
and the release knows none of them. There are so many that their events are `--times` what an
SQLite store keeps at hand, and they come in turn, so that whoever asks is read from the file; of
Redis nothing is ever at hand. The same users are asked for by id and with the history in the
request, which reads no store. A redis-server of its own is started on a free port; without that
program its rows are left out, and it says so. Adds its part to docs/benchmarks.json and writes
docs/benchmarks.md anew, unless told `--docs ""`.
"""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import httpx
import polars as pl
import redis
import typer
from rich.console import Console
from serving_asking import Rate, measured
from serving_figures import INLINE_OF, REDIS, SQLITE, about, aims_of, keep, store_aims
from serving_ours import scratch
from serving_page import write
from serving_paths import OURS, PATHS, Server, all_paused, awake
from serving_settings import FILE, OUT, best
from serving_turns import in_turns, plain, progress

from bento.store import Event, connect
from bento.store.recent import MOST_EVENTS
from recommender.release import Release, read_release
from serving import processes

CONNECTIONS = (32, 64)
NEWEST = 200  # events of a user
TOGETHER = 1000  # events sent to a store at once
PATIENT_S = 60.0


def main(
    repository: Path,
    rounds: int = 5,
    seconds: Annotated[float, typer.Option(help="Of each path of each round.")] = 4.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before them, not counted.")] = 1.0,
    times: Annotated[float, typer.Option(help="Events, over those kept at hand.")] = 5.0,
    docs: Annotated[
        str, typer.Option(help="Where the page and its figures go; empty: no")
    ] = "docs",
) -> None:
    release = read_release(repository)
    ours = best(PATHS[OURS], Path(docs) / FILE if docs else OUT)
    machine = about(release, [ours])
    with scratch(repository) as name, ExitStack() as running:
        folder = Path(name)
        people = made_up(release, folder, math.ceil(times * MOST_EVENTS))
        urls = {SQLITE: f"sqlite:///{folder / 'events.db'}"}
        if shutil.which("redis-server"):
            urls[REDIS] = running.enter_context(redis_server(folder))
        else:
            Console().print("There is no redis-server on the PATH: its rows are left out.")
        for store, url in urls.items():
            fill(store, url, people)
        paths = [ours.under({"STORE": url}) for url in urls.values()]
        up = running.enter_context(all_paused(paths, repository, folder))
        servers = dict(zip(urls, up, strict=True))
        for server in up:
            refuse_strangers(server, people)
        both = servers | {INLINE_OF[store]: server for store, server in servers.items()}
        asking = {
            count: lambda server, name, count=count: asked(
                server, repository, connections=count, seconds=seconds, warm_up_s=warm_up,
                inline=name in INLINE_OF.values(), data=folder,
            )
            for count in CONNECTIONS
        }  # fmt: skip
        with progress(rounds * len(both) * len(CONNECTIONS)) as step:
            found = plain(in_turns(both, asking, rounds, step))
        part = {"rounds": rounds, "seconds": seconds, "users": people["user_id"].n_unique(),
                "events": len(people), "at_hand": MOST_EVENTS, "machine": machine,
                "redis": _version(urls.get(REDIS)), "rates": found}  # fmt: skip
    Console().print(aims_of(store_aims(part)))
    if docs:
        keep(Path(docs), stores=part)
        write(Path(docs))


# --- who asks


def made_up(release: Release, folder: Path, events: int) -> pl.DataFrame:
    """user_id, item_id, timestamp of at least so many events, oldest first for each user; also as
    a data folder, for the load generator."""
    users = release.users
    newest = [
        (row, slice(max(0, int(users.lengths[row]) - NEWEST), None)) for row in range(len(users))
    ]
    one = pl.concat([
        pl.DataFrame({
            "user_id": [users.user_ids[row]] * len(items),
            "item_id": [release.catalogue.item_id(item) for item in items],
            "timestamp": users.history(row).times[part],
        })
        for row, part in newest
        if (items := users.history(row).items[part].tolist())
    ])  # fmt: skip
    copies = math.ceil(events / len(one))
    people = pl.concat(
        [one.with_columns(pl.col("user_id") + f"~{copy}") for copy in range(1, copies + 1)]
    )
    people.write_csv(folder / "interactions.csv")
    return people


def fill(name: str, url: str, people: pl.DataFrame) -> None:
    """By the store itself: through a service it would take minutes."""
    began = time.monotonic()
    events = [
        Event(event_id=str(number), user_id=user, item_id=item, event="view", timestamp=moment)
        for number, (user, item, moment) in enumerate(people.iter_rows())
    ]
    asyncio.run(_add(url, events))
    took = time.monotonic() - began
    Console().print(f"{name}: {len(events):,} events of made-up users in {took:.0f} s")


async def _add(url: str, events: Sequence[Event]) -> None:
    store = connect(url, wait_s=PATIENT_S)
    try:
        for at in range(0, len(events), TOGETHER):
            await store.add(events[at : at + TOGETHER], weights={})
    finally:
        await store.close()


def refuse_strangers(server: Server, people: pl.DataFrame) -> None:
    """Exits unless the service finds the whole past of somebody in its store."""
    user = people["user_id"][-1]
    wanted = set(people.filter(pl.col("user_id") == user)["item_id"])
    with awake(server):
        answer = httpx.post(f"{server.url}/v1/history", json={"user_id": user}, timeout=20)
    answer.raise_for_status()
    found = {event["item_id"] for event in answer.json()["events"]}
    if found != wanted:
        raise SystemExit(f"of {user}'s {len(wanted)} items the service finds {len(found)}; its log:"
                         f"\n{server.tail()}")  # fmt: skip


# --- how it is asked


def asked(
    server: Server, repository: Path, *, connections: int, seconds: float, warm_up_s: float,
    inline: bool, data: Path,
) -> Rate:  # fmt: skip
    """An answer for which the store was late, and that went on without it, is not right."""
    before = _late(server)
    rate = measured(server, repository, connections=connections, seconds=seconds,
                    warm_up_s=warm_up_s, inline=inline, data=data)  # fmt: skip
    return replace(rate, wrong=rate.wrong + _late(server) - before)


def _late(server: Server) -> int:
    with awake(server):
        told = httpx.get(f"{server.url}/metrics", timeout=20).text
    said = re.search(r'^recserve_stage_errors_total\{stage="store"\} (\S+)$', told, re.MULTILINE)
    if said is None:
        raise SystemExit(f"{server.url}/metrics does not say how often the store was late")
    return int(float(said[1]))


# --- a Redis


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """URL of a server of its own, as docs/events.md has it: what is acknowledged is on the disk."""
    (port,) = processes.free_ports(1)
    home = folder / "redis"
    home.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home),
               "--save", "", "--appendonly", "yes", "--appendfsync", "always",
               "--aof-load-truncated", "no", "--maxmemory-policy", "noeviction"]  # fmt: skip
    log = home / "log"
    with log.open("wb") as out:
        process = processes.spawn(command, log=out, cwd=home)
    try:
        until = time.monotonic() + PATIENT_S
        with redis.Redis(port=port) as client:
            while not _answers(client):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"redis-server does not answer; its log:\n{log.read_text()}")
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        processes.stop(process, PATIENT_S)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _version(url: str | None) -> str | None:
    """None: there is none."""
    if url is None:
        return None
    with redis.Redis.from_url(url) as client:
        return str(client.info("server")["redis_version"])


if __name__ == "__main__":
    typer.run(main)
