"""`p99=25ms` -> an objective; a report -> what it reached; the highest rate that holds them all.

    a closed loop   what the target can do at most: where to begin
    bracket         up or down by halves, until a rate holds and a higher one does not
    bisection       until the two are within the resolution
    at last         a longer run of the rate that holds, one step lower where that does not

Every rate is asked for twice; where the two do not agree a third run decides. Nothing that is
unstated is allowed: without `errors=`, no error. Knows no protocol: `Ask` runs what is asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from client.load.arrivals import Arrivals
from client.load.plan import Plan
from client.load.report import BUSY_SHARE, Report
from recommender.errors import BadInput, MachineError, Unavailable

Name = Literal["p50", "p95", "p99", "errors", "refused"]
NAMES: tuple[Name, ...] = get_args(Name)
SHARES: tuple[Name, ...] = ("errors", "refused")
_TEXT = re.compile(r"(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*(us|ms|s|%|)")
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

FIRST = 0.7  # of what a closed loop reached: where the search begins
FACTOR = 1.5  # from one rate to the next, until one holds and one does not
LOWEST = 1.0  # requests a second
TELLING = 300  # requests: a p99 of fewer says little


@dataclass(frozen=True)
class Objective:
    """A latency in ms that is not exceeded, or a share of all requests."""

    name: Name
    limit: float

    @classmethod
    def of(cls, text: str) -> Objective:
        """From `p99=25ms`, `errors=0.1%`. Raises BadInput."""
        match = _TEXT.fullmatch(text.strip())
        name, number, unit = match.groups() if match else ("", "", "")
        for known in NAMES:
            if name == known and known in SHARES and unit == "%":
                return cls(known, float(number) / 100)
            if name == known and known not in SHARES and unit in _MS and float(number) > 0:
                return cls(known, float(number) * _MS[unit])
        raise BadInput(
            f"objective {text!r} is none",
            remedy="Write p50, p95 or p99 with a time (p99=25ms), or errors or refused with a "
            "share (errors=0.1%).",
            field="--slo",
            value=text,
        )

    def seen(self, report: Report) -> float:
        """The same figure of a report; infinite where it has no answer, and a latency also where
        the generator gave requests up: those that were due last, and are in no percentile."""
        if self.name not in SHARES:
            return math.inf if report.unsent else report.latency_ms.get(self.name, math.inf)
        kinds = [report.refused] if self.name == "refused" else [report.errors, report.wrong]
        count = sum(sum(kind.values()) for kind in kinds)
        count += 0 if self.name == "refused" else report.unsent
        return count / report.requests if report.requests else math.inf

    def shown(self, value: float) -> str:
        if not math.isfinite(value):
            return "not known"
        return f"{value:.3%}" if self.name in SHARES else f"{value:.2f} ms"

    def __str__(self) -> str:
        of = f"{self.limit:.4%}" if self.name in SHARES else f"{self.limit:g}ms"
        return f"{self.name}={re.sub(r'0+%$', '%', of).replace('.%', '%')}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    objective: str
    seen: float  # ms, or a share
    shown: str
    held: bool


def objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Those that are stated, and no error and no refusal where nothing is said of them.

    Raises BadInput.
    """
    stated = [Objective.of(text) for text in texts]
    names = [one.name for one in stated]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(
                f"{name} is stated twice", remedy="State it once.", field="--slo", value=name
            )
    return (*stated, *(Objective(name, 0.0) for name in SHARES if name not in names))


def verdicts(stated: Sequence[Objective], report: Report) -> list[Verdict]:
    return [
        Verdict(
            objective=str(one),
            seen=one.seen(report),
            shown=one.shown(one.seen(report)),
            held=one.seen(report) <= one.limit,
        )
        for one in stated
    ]


def holds(stated: Sequence[Objective], report: Report) -> bool:
    """None of a run whose generator gave requests up: what they would have met is not known."""
    return not report.unsent and all(verdict.held for verdict in verdicts(stated, report))


def starved(stated: Sequence[Objective], report: Report) -> bool:
    """Did it miss for want of a generator: one that gave requests up, never rested, or was so late
    that it would have held without? (Lateness only adds: what holds in spite of it, holds.)"""
    if not report.behind or holds(stated, report):
        return False
    prompt = {name: ms - report.adds_ms.get(name, 0.0) for name, ms in report.latency_ms.items()}
    too_much = bool(report.unsent) or report.busy > BUSY_SHARE
    return too_much or holds(stated, replace(report, latency_ms=prompt))


# --- the search

Ask = Callable[[Plan], Awaitable[Report]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Trial:
    rate: float
    duration_s: float
    seed: int  # of its schedule and its questions
    report: Report
    held: bool
    starved: bool  # it missed for want of a generator
    last: bool = False  # the longer run at the end


@dataclass(frozen=True, kw_only=True)
class Found:
    """`rate` held everything in the long run at the end; `missed` is the lowest seen not to."""

    objectives: tuple[str, ...]
    rate: float | None  # None: not even the lowest rate held
    missed: float | None  # None: the generator could not offer more
    resolution: float  # of the rate, as a share
    trials: tuple[Trial, ...]

    @property
    def aims(self) -> str:
        """In words; that nothing fails goes without saying."""
        aims = [one for one in self.objectives if not one.endswith("=0%")]
        return " and ".join(aims or self.objectives)

    def said(self) -> str:
        if self.rate is None:
            return f"Not even {self.missed:,.1f} requests/s held {self.aims}."
        least = f"{self.rate:,.1f} requests/s held {self.aims}"
        if self.missed is None:
            return f"{least}; the generator could not offer more."
        return (
            f"{least} in the long run at the end; {self.missed:,.1f} did not. A rate up to "
            f"{self.missed / self.rate - 1:.1%} higher was not told apart from it."
        )

    @property
    def report(self) -> Report | None:
        """Of the long run."""
        return next((t.report for t in reversed(self.trials) if t.last and t.held), None)


class Search:
    def __init__(
        self,
        plan: Plan,
        stated: Sequence[Objective],
        ask: Ask,
        *,
        trial_s: float,
        last_s: float,
        resolution: float,
        say: Say,
    ) -> None:
        """`plan` says everything but pace and length of the runs."""
        self._plan, self._stated, self._ask, self._say = plan, stated, ask, say
        self._trial_s, self._last_s, self._resolution = trial_s, last_s, resolution
        self._trials: list[Trial] = []

    async def run(self) -> Found:
        """Raises Unavailable where nobody answers."""
        low, high = await self._bracket(await self._first())
        while low and high / low > 1 + self._resolution:
            middle = math.sqrt(low * high)
            low, high = (middle, high) if await self._confirmed(middle) else (low, middle)
        while low and not (await self._once(low, self._last_s, last=True)).held:
            low, high = low / (1 + self._resolution), low
            low = low if low >= LOWEST else 0.0
        above = [t.rate for t in self._trials if t.rate > low and not (t.held or t.starved)]
        return Found(
            objectives=tuple(map(str, self._stated)),
            rate=low or None,
            missed=min(above, default=None) if low else high,
            resolution=self._resolution,
            trials=tuple(self._trials),
        )

    async def _first(self) -> float:
        closed = replace(self._plan, arrivals=None, requests=None, duration_s=self._trial_s)
        report = await self._ask(closed)
        self._say(f"{closed.concurrency} callers: {report.throughput:,.0f} right answers/s")
        if not report.right:
            raise Unavailable(
                "no request of a closed loop was answered rightly",
                remedy="See the server's log, and the faults of a run without --slo.",
            )
        return max(FIRST * report.throughput, LOWEST)

    async def _bracket(self, rate: float) -> tuple[float, float]:
        """A rate that holds (0: none) and a higher one that does not."""
        if await self._confirmed(rate):
            while await self._confirmed(rate * FACTOR):
                rate *= FACTOR
            return rate, rate * FACTOR
        while rate > LOWEST:
            if self._behind(rate):
                late = self._trials[-1].report
                raise MachineError(
                    f"the load generator could not keep up with {rate:,.0f} requests/s: "
                    f"{late.why_behind}",
                    remedy=late.remedy,
                )
            above, rate = rate, max(rate / FACTOR, LOWEST)
            if await self._confirmed(rate):
                return rate, above
        return 0.0, rate

    def _behind(self, rate: float) -> bool:
        """Did it miss for want of a generator, whenever this rate was asked for?"""
        return all(t.starved for t in self._trials if t.rate == rate)

    async def _confirmed(self, rate: float) -> bool:
        seconds = min(max(self._trial_s, TELLING / rate), self._last_s)
        held = [(await self._once(rate, seconds)).held for _ in range(2)]
        if held[0] != held[1]:
            held.append((await self._once(rate, seconds)).held)
        return sum(held) > len(held) / 2

    async def _once(self, rate: float, seconds: float, *, last: bool = False) -> Trial:
        """Another schedule each time, or a run would only repeat the one before it."""
        seed = self._plan.seed + len(self._trials)
        pace = Arrivals(kind="poisson", rate=rate, duration_s=seconds)
        plan = replace(
            self._plan,
            arrivals=pace,
            requests=None,
            duration_s=None,
            warm_up_s=min(self._plan.warm_up_s, seconds / 10),
            seed=seed,
        )
        report = await self._ask(plan)
        held = holds(self._stated, report)
        trial = Trial(
            rate=rate,
            duration_s=seconds,
            seed=seed,
            report=report,
            held=held,
            starved=starved(self._stated, report),
            last=last,
        )
        self._trials.append(trial)
        seen = ", ".join(
            f"{one.name} {one.shown(one.seen(report))}" for one in self._stated if one.limit
        )
        verdict = "holds" if held else report.why_behind if trial.starved else "missed"
        self._say(f"{rate:,.1f}/s for {seconds:.0f} s: {seen}: {verdict}")
        return trial
