"""recserve beside its peers: the same release, the same requests, one awake at a time.

    python benchmarks/serving_peers.py REPOSITORY [--rounds 5] [--seconds 4] [--quick]

Starts all of them (serving_paths.py), refuses to measure unless all give the same items, then asks
them in rounds whose order turns round: by user id at 1, 8, 32 and 64 connections, ours also with
histories in the request, and users of each length bucket alone. Prints the ratios to what issue
and docs aim at, and writes docs/benchmarks.json, docs/benchmarks.md and its plots
(serving_page.py). `make bench` runs serving_settings.py before it, whose best settings it starts
all with, ours too, and serving_stores.py after it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from serving_asking import fill_store, folder_of, measured, refuse_others
from serving_figures import INLINE, about, aims, aims_of, keep, table_of
from serving_ours import scratch
from serving_page import write
from serving_paths import OURS, PATHS, all_paused
from serving_settings import FILE, best
from serving_turns import Ask, in_turns, plain, progress

from recommender.release import read_release

CONNECTIONS = (1, 8, 32, 64)


def main(
    repository: Path,
    rounds: int = 5,
    seconds: Annotated[float, typer.Option(help="Of each path of each round.")] = 4.0,
    warm_up: Annotated[float, typer.Option(help="Seconds before them, not counted.")] = 1.0,
    events: Annotated[int, typer.Option(help="Newest events of each user, in our store.")] = 20,
    quick: Annotated[bool, typer.Option(help="Two short rounds; docs stay as they are.")] = False,
    docs: Annotated[Path, typer.Option(help="Where the page and its figures go.")] = Path("docs"),
) -> None:
    counts = CONNECTIONS
    if quick:
        rounds, seconds, warm_up, counts = 2, 2.0, 0.5, (1, 32, 64)
    release, began = read_release(repository), time.monotonic()
    paths = [best(path, docs / FILE) for path in PATHS.values()]
    machine = about(release, paths)
    with scratch(repository) as folder, all_paused(paths, repository, Path(folder)) as up:
        servers = {server.path.name: server for server in up}
        stored = fill_store(servers[OURS], release, events)
        same = refuse_others(servers, release)
        Console().print(f"All {len(servers)} give the same items for {same} bodies.")

        def asked(connections: int, data: Path | None = None) -> Ask:
            return lambda server, name: measured(
                server, repository, connections=connections, seconds=seconds, warm_up_s=warm_up,
                inline=name == INLINE, data=data,
            )  # fmt: skip

        by_connections = {count: asked(count) for count in counts}
        buckets = {
            bucket: asked(32, data)
            for bucket in release.limits.length_buckets
            if (data := folder_of(release, bucket, Path(folder)))
        }
        asks = rounds * len(by_connections) * (len(servers) + 1)
        asks += (1 if quick else rounds) * len(buckets) * len(servers)
        with progress(asks) as step:
            rates = in_turns({**servers, INLINE: servers[OURS]}, by_connections, rounds, step)
            lengths = in_turns(servers, buckets, 1 if quick else rounds, step)
        found: dict[str, Any] = {
            "about": machine,
            "how": {"rounds": rounds, "seconds": seconds, "events_of_a_user": events,
                    "events": stored, "same": same,
                    "minutes": (time.monotonic() - began) / 60},
            "rates": plain(rates),
            "lengths": plain(lengths),
        }  # fmt: skip
    Console().print(table_of(found), aims_of(aims(found)))
    if not quick:
        keep(docs, **found)
        write(docs)


if __name__ == "__main__":
    typer.run(main)
