"""A plan and what is wanted of it -> runs -> one result: for a table, for JSON, for a page.

    nothing else   one run
    objectives     of a run at a fixed pace: do they hold; else the highest rate that holds them
    a command      before, during and after it
    another target the two in turns

Knows no terminal.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from client.load.compare import Comparison, compare
from client.load.cost import Cost, Meter
from client.load.during import During, run_during
from client.load.objective import Found, Objective, Search, Verdict, verdicts
from client.load.plan import Plan
from client.load.recording import Rows
from client.load.report import Report, report
from client.load.session import Watch, measure

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
    pids: Sequence[int] = ()  # of the servers, on this machine
    price_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    report: Report | None  # of the run; of the search's last; none of a comparison
    verdicts: tuple[Verdict, ...] = ()
    search: Found | None = None
    compare: Comparison | None = None
    during: During | None = None
    cost: Cost | None = None
    machine: str = ""
    at: str = ""

    @property
    def passed(self) -> bool:
        """Every objective that was stated held; with none, every answer was right. And what was
        run meanwhile succeeded."""
        if self.compare is not None:
            return self.compare.passed
        if self.during is not None and self.during.command.code:
            return False
        if self.verdicts:
            return self._held
        return self.report is not None and self.report.passed

    @property
    def measured(self) -> bool:
        """The generator kept up; or was late, and what was wanted holds all the same."""
        return self.report is None or not self.report.behind or self._held

    @property
    def _held(self) -> bool:
        return bool(self.verdicts) and all(verdict.held for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """The report's own fields at the top, the rest beside them."""
        found = {} if self.report is None else asdict(self.report)
        parts = {
            "objectives": [asdict(one) for one in self.verdicts],
            "search": self.search and asdict(self.search),
            "compare": self.compare and asdict(self.compare),
            "during": self.during and asdict(self.during),
            "cost": self.cost and asdict(self.cost),
        }
        return {**found, **{name: part for name, part in parts.items() if part}}


async def examine(
    plan: Plan, wanted: Wanted, *, progress: Watch | None = None, say: Say = lambda _: None
) -> Result:
    """Raises what a run raises, and BadInput for processes that are not there."""
    runs = _Runs(wanted, progress)
    found = search = compared = during = None
    if wanted.against is not None:
        other = replace(plan, target=wanted.against)
        compared = await compare(plan, other, runs.ask, rounds=wanted.rounds, say=say)
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
        report=found,
        verdicts=tuple(verdicts(wanted.objectives, found)) if found else (),
        search=search,
        compare=compared,
        during=during,
        cost=runs.cost(found) if found else None,
        machine=machine(),
        at=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    )


class _Runs:
    """Runs, with the servers' CPU time of the last one."""

    def __init__(self, wanted: Wanted, progress: Watch | None) -> None:
        self._wanted, self._progress = wanted, progress
        self._cpu_s: float | None = None
        Meter(wanted.pids)  # refuses processes that are not there, before anything runs

    async def ask(self, plan: Plan) -> Report:
        return report(plan, await self.measure(plan, lambda _: None))

    async def measure(self, plan: Plan, begun: Callable[[float], None]) -> Rows:
        meter, loop = Meter(self._wanted.pids), asyncio.get_running_loop()

        def begins(instant: float) -> None:
            begun(instant)
            loop.call_later(max(instant - time.perf_counter(), 0), meter.begin)

        rows = await measure(plan, progress=self._progress, begun=begins)
        self._cpu_s = meter.cpu_s() if meter.pids else None
        return rows

    def cost(self, of: Report) -> Cost | None:
        if not self._wanted.pids and self._wanted.price_per_hour is None:
            return None
        return Cost.of(of, self._wanted.pids, self._cpu_s, self._wanted.price_per_hour)


def machine() -> str:
    """In words: processor, cores, and what else it does."""
    return f"{processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the end"


def processor() -> str:
    lines = CPUS.read_text().splitlines() if CPUS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
