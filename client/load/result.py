"""A plan and what is wanted of it -> runs -> one result: for a table, for JSON, for a page.

    nothing else   one run
    objectives     of a run at a fixed pace: do they hold; else the highest rate that holds them
    a command      before, during and after it
    another target the two in turns

Knows no terminal.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from client.load.compare import Ask, Comparison, compare
from client.load.cost import NOBODY, Cost, Meter, Servers
from client.load.during import During, run_during
from client.load.objective import Found, Objective, Search, Verdict, verdicts
from client.load.plan import Plan
from client.load.recording import Fate, Rows
from client.load.report import Report, report
from client.load.session import Watch, measure, run

Say = Callable[[str], None]
CPUS = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Besides the run itself."""

    objectives: tuple[Objective, ...] = ()
    search: bool = False  # for the highest rate that holds them
    resolution: float = 0.05  # of that rate, as a share
    trial_s: float = 3.0  # of each of the search's short runs
    duration_s: float = 15.0  # of the search's last run; of a run with a command
    command: str | None = None
    against: str | None = None  # another target
    rounds: int = 8
    servers: Servers = NOBODY  # of the target
    servers_against: Servers = NOBODY  # of the other one
    price_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    plan: Plan  # of the run; of a search and a comparison: what all their runs have in common
    report: Report | None  # of the run; of the search's last; none of a comparison
    verdicts: tuple[Verdict, ...] = ()
    search: Found | None = None
    compare: Comparison | None = None
    during: During | None = None
    cost: Cost | None = None  # of the run
    costs: Mapping[str, Cost] = field(default_factory=dict)  # of the comparison's "a" and "b"
    machine: str = ""
    at: str = ""

    @property
    def passed(self) -> bool:
        """It was measured, and every objective that was stated held; with none, every answer was
        right. And what was run meanwhile succeeded."""
        if self.compare is not None:
            return self.compare.passed
        if self.during is not None and self.during.command.code:
            return False
        if self.verdicts:
            return self._held and self.measured
        return self.report is not None and self.report.passed

    @property
    def measured(self) -> bool:
        """The generator kept up; or was late, which only adds to latency, and what was wanted
        holds all the same. Where it gave requests up, nothing is known of theirs."""
        if self.compare is not None:
            return not any(one.behind for pair in self.compare.rounds for one in pair)
        if self.report is None or not self.report.behind:
            return True
        return self._held and not self.report.unsent

    @property
    def _held(self) -> bool:
        return bool(self.verdicts) and all(verdict.held for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """The report's own fields at the top, the rest beside them; `asked` is all that it takes
        to run it again."""
        found = {
            "passed": self.passed,
            "measured": self.measured,
            "at": self.at,
            "machine": self.machine,
            "asked": self.plan.to_json(),
            **({} if self.report is None else asdict(self.report)),
        }
        parts = {
            "objectives": [_verdict(one) for one in self.verdicts],
            "search": self.search and asdict(self.search),
            "compare": self.compare and asdict(self.compare),
            "during": self.during and asdict(self.during),
            "cost": self.cost and asdict(self.cost),
            "costs": {side: asdict(cost) for side, cost in self.costs.items()},
        }
        return {**found, **{name: part for name, part in parts.items() if part}}


def _verdict(one: Verdict) -> dict[str, Any]:
    """JSON has no infinity: of what is not known, null."""
    return {**asdict(one), "seen": one.seen if math.isfinite(one.seen) else None}


async def examine(
    plan: Plan, wanted: Wanted, *, progress: Watch | None = None, say: Say = lambda _: None
) -> Result:
    """Raises what a run raises, and BadInput for processes that are not there."""
    runs, price = _Runs(wanted.servers, progress), wanted.price_per_hour
    found = search = compared = during = None
    costs: dict[str, Cost | None] = {}
    if wanted.against is not None:
        other = replace(plan, target=wanted.against)
        others = _Runs(wanted.servers_against, progress)
        for one in (plan, other):  # before the first round of one shows that the other is away
            await run(replace(one, arrivals=None, requests=1, duration_s=None, concurrency=1,
                              processes=1, warm_up_s=0))  # fmt: skip
        ask = _each(runs, other, others)
        compared = await compare(plan, other, ask, rounds=wanted.rounds, say=say)
        costs = {"a": runs.cost(price), "b": others.cost(price)}
    elif wanted.search:
        search = await Search(
            plan, wanted.objectives, runs.ask, trial_s=wanted.trial_s, last_s=wanted.duration_s,
            resolution=wanted.resolution, say=say,
        ).run()  # fmt: skip
        found = search.report or search.trials[-1].report
    elif wanted.command is not None:
        during = await run_during(plan, wanted.command, runs.measure, duration_s=wanted.duration_s)
        found = during.whole
    else:
        found = await runs.ask(plan)
    return Result(
        plan=plan,
        report=found,
        verdicts=tuple(verdicts(wanted.objectives, found)) if found else (),
        search=search,
        compare=compared,
        during=during,
        cost=runs.cost(price, last=1) if found else None,
        costs={side: cost for side, cost in costs.items() if cost},
        machine=machine(),
        at=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    )


@dataclass(frozen=True, kw_only=True)
class _Ran:
    right: int
    recommended: int  # of them
    elapsed_s: float
    cpu_s: float  # of the servers


class _Runs:
    """Runs of one target, with its servers' CPU time."""

    def __init__(self, servers: Servers, progress: Watch | None) -> None:
        self._servers, self._progress = servers, progress
        self._ran: list[_Ran] = []
        Meter(servers.pids)  # refuses processes that are not there, before anything runs

    async def ask(self, plan: Plan) -> Report:
        return report(plan, await self.measure(plan, lambda _: None))

    async def measure(self, plan: Plan, begun: Callable[[float], None]) -> Rows:
        meter, loop = Meter(self._servers.pids), asyncio.get_running_loop()

        def begins(instant: float) -> None:
            begun(instant)
            loop.call_later(max(instant - time.perf_counter(), 0), meter.begin)

        rows = await measure(plan, progress=self._progress, begun=begins)
        right = rows.fate(Fate.RIGHT)
        items = np.array([part.endpoint != "events" for part in rows.parts], bool)[rows.part]
        self._ran.append(
            _Ran(
                right=int(right.sum()),
                recommended=int((right & items).sum()),
                elapsed_s=float(rows.done.max(initial=0.0)),
                cpu_s=meter.cpu_s(),
            )
        )
        return rows

    def cost(self, price: float | None, *, last: int = 0) -> Cost | None:
        """Of the `last` runs; of all."""
        if not self._servers.pids and price is None:
            return None
        ran = self._ran[-last:]
        return Cost.of(
            right=sum(one.right for one in ran),
            recommended=sum(one.recommended for one in ran),
            elapsed_s=sum(one.elapsed_s for one in ran),
            servers=self._servers,
            cpu_s=sum(one.cpu_s for one in ran) if self._servers.pids else None,
            price=price,
        )


def _each(runs: _Runs, other: Plan, others: _Runs) -> Ask:
    """Asks each target in its own runs."""

    async def ask(plan: Plan) -> Report:
        return await (others if plan is other else runs).ask(plan)

    return ask


def machine() -> str:
    """In words: processor, cores, and what else it does."""
    return f"{processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end"


def processor() -> str:
    lines = CPUS.read_text().splitlines() if CPUS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
