"""Options of `recserve load` -> what is asked, and what is wanted of it besides; or why not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import typer

from client.load.arrivals import KINDS, Arrivals, Kind
from client.load.cost import Servers
from client.load.objective import objectives
from client.load.result import Wanted
from client.load.sending import targets
from serving.running import servers_of

REQUESTS = 1000
LASTS = 15.0  # seconds, with --slo or --during
TRIAL = 1 / 5  # of --duration: a short run of the search
WARM_UP, MOST_WARM_UP_S = 1 / 10, 5.0  # of what a run lasts; and at most
WARM_UP_S = 1.0  # where only the number of requests says how long it lasts


def check_numbers(**options: float | None) -> None:
    """`inf` and `nan` are numbers to click, and to nobody else."""
    for name, value in options.items():
        if value is not None and not math.isfinite(value):
            raise typer.BadParameter(f"--{name.replace('_', '-')} is {value}: give a number")


def check_targets(model: str | None, *addresses: str | None) -> None:
    """Raises BadInput for what is no address."""
    for address in filter(None, addresses):
        scheme, _ = targets.parts(address)
        if model is not None and scheme.startswith("http"):
            raise typer.BadParameter(f"--model is Triton's, and {address} is the service")


def servers(pids: list[int] | None, target: str | None, repository: Path) -> Servers:
    if pids or target is None:
        return Servers(pids=tuple(pids or ()))
    return servers_of(target, repository)


def warm_up(lasts: float | None) -> float:
    return WARM_UP_S if lasts is None else min(lasts * WARM_UP, MOST_WARM_UP_S)


def wanted(
    slo: list[str], search: bool, during: str | None, against: str | None, lasts: float | None
) -> Wanted:
    if against is not None and (slo or during is not None):
        raise typer.BadParameter("--compare goes with neither --slo nor --during")
    if (search or during is not None) and lasts is None:
        raise typer.BadParameter("--slo without --rate, and --during, take --duration")
    seconds = lasts or LASTS
    return Wanted(
        objectives=objectives(slo) if slo else (),
        search=search,
        trial_s=seconds * TRIAL,
        duration_s=seconds,
        command=during,
        against=against,
    )


def arrivals(
    rate: float | None,
    kind: str,
    peak: float,
    trace: Path | None,
    requests: int | None,
    duration: float | None,
) -> Arrivals | None:
    """None for a closed loop."""
    if kind not in KINDS:
        raise typer.BadParameter(f"--arrivals is {kind!r}, none of {', '.join(KINDS)}")
    if (kind == "trace") != (trace is not None):
        raise typer.BadParameter("--arrivals trace goes with --trace FILE, no other does")
    if kind in ("ramp", "flash", "trace") and requests is not None:
        raise typer.BadParameter(f"--arrivals {kind} takes --duration, not --requests")
    if kind == "trace":
        return Arrivals(kind="trace", rate=rate, duration_s=duration, trace=trace)
    if rate is None:
        if kind != "poisson":
            raise typer.BadParameter(f"--arrivals {kind} needs --rate")
        return None
    seconds = duration or (requests or REQUESTS) / rate
    return Arrivals(kind=cast(Kind, kind), rate=rate, duration_s=seconds, peak=peak)
