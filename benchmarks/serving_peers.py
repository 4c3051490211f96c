"""recserve beside its peers: the same release, the same requests, one awake at a time.

    python benchmarks/serving_peers.py REPOSITORY [--rounds 5] [--seconds 4] [--quick]

Starts all of them (serving_paths.py), refuses to measure unless all give the same items, then asks
them in rounds whose order turns round: by user id at 1, 8, 32 and 64 connections, ours also with
histories in the request, and users of each length bucket alone. Prints the ratios to what issue
and docs aim at, and writes docs/benchmarks.json, docs/benchmarks.md and its plots
(serving_page.py). `make bench` runs serving_settings.py before it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from serving_asking import Rate, fill_store, folder_of, measured, refuse_others
from serving_figures import INLINE, about, aims_of, keep, table_of
from serving_page import write
from serving_paths import OURS, PATHS, Server, all_paused
from serving_settings import best

from recommender.release import read_release

CONNECTIONS = (1, 8, 32, 64)
Ask = Callable[[Server, str], Rate]


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
    paths = [best(path, docs / "benchmarks-settings.json") for path in PATHS.values()]
    machine = about(release, paths)
    with tempfile.TemporaryDirectory() as folder, all_paused(paths, repository, Path(folder)) as up:
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
        with _progress(asks) as step:
            rates = in_turns({**servers, INLINE: servers[OURS]}, by_connections, rounds, step)
            lengths = in_turns(servers, buckets, 1 if quick else rounds, step)
        found: dict[str, Any] = {
            "about": machine,
            "how": {"rounds": rounds, "seconds": seconds, "events_of_a_user": events,
                    "events": stored, "same": same,
                    "minutes": (time.monotonic() - began) / 60},
            "rates": _plain(rates),
            "lengths": _plain(lengths),
        }  # fmt: skip
    Console().print(table_of(found), aims_of(found))
    if not quick:
        keep(docs, **found)
        write(docs)


Found = dict[str, dict[str, list[Rate]]]  # what is asked -> path -> rounds


def in_turns(
    servers: dict[str, Server], asking: dict[int, Ask], rounds: int, step: Callable[[], None]
) -> Found:
    """Each path once a round for each kind of asking; whoever was first is last in the next."""
    found: Found = {str(kind): {name: [] for name in servers} for kind in asking}
    for number in range(rounds):
        for kind, ask in asking.items():
            for name in list(servers)[:: -1 if number % 2 else 1]:
                found[str(kind)][name].append(ask(servers[name], name))
                step()
    return found


def _plain(found: Found) -> dict[str, Any]:
    return {
        kind: {name: [asdict(rate) for rate in rates] for name, rates in sides.items()}
        for kind, sides in found.items()
    }


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    with Progress(transient=True) as bar:
        task = bar.add_task("Asking in turns", total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    typer.run(main)
