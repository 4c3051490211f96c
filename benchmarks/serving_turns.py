"""Several servers asked in turns, round by round, and what that gave in plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.progress import Progress
from serving_asking import Rate
from serving_paths import Server

Ask = Callable[[Server, str], Rate]
Found = dict[str, dict[str, list[Rate]]]  # what is asked -> path -> rounds


def in_turns(
    servers: Mapping[str, Server],
    asking: Mapping[int, Ask],
    rounds: int,
    step: Callable[[], None],
) -> Found:
    """Each path once a round for each kind of asking; whoever was first is last in the next."""
    found: Found = {str(kind): {name: [] for name in servers} for kind in asking}
    for number in range(rounds):
        for kind, ask in asking.items():
            for name in list(servers)[:: -1 if number % 2 else 1]:
                found[str(kind)][name].append(ask(servers[name], name))
                step()
    return found


def plain(found: Found) -> dict[str, Any]:
    return {
        kind: {name: [asdict(rate) for rate in rates] for name, rates in sides.items()}
        for kind, sides in found.items()
    }


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    with Progress(transient=True) as bar:
        task = bar.add_task("Asking in turns", total=total)
        yield lambda: bar.advance(task)
