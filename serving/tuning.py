"""An objective -> calls under way and Triton's batching, instances and threads for this machine.

    the best so far   a stack of its own, running
    a challenger      the same but for one setting, a stack of its own beside it
    rounds            both, in turns, each at a rate that goes up when the objective held and down
                      when it did not, by smaller and smaller steps: where it ends is what it holds
    the next one      against whoever held more, if by more than is chance

Setting by setting, whatever differs from the best in one of them, until nothing wins any more or
the time is up; whoever is best then meets the base once more. Every figure comes from real stacks
under Poisson arrivals, through Bento. Knows how a search goes, and no process: tuning_stacks.py.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bento.settings import Settings
from client.load.arrivals import Arrivals
from client.load.objective import Objective, holds
from client.load.plan import Plan
from client.load.report import Report
from export.serving_config import ServingConfig
from recommender.errors import MachineError

STEPS = (1.25, 1.25, 1.15, 1.15, 1.1, 1.1, 1.07, 1.07)  # of a staircase, a round each
ONCE_MORE = (*STEPS, *STEPS[-1:] * 8)  # of the last duel
COUNTED = 0.5  # of its rounds, the last: their rates are averaged
WORTH = 1.1  # times the rate: less can be the luck of one run, which is a step up instead of down
FIRST = 0.5  # of what a closed loop reached: the first staircase's first step

Ask = Callable[[Plan], Awaitable[Report]]
Say = Callable[[str], None]
Values = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is tuned; the defaults are the project's."""

    triton_calls: int = Settings.triton_calls  # of Bento, under way at once
    queue_delay_us: int = ServingConfig.queue_delay_us
    instances: int = ServingConfig.instances
    intra_op_threads: int = ServingConfig.intra_op_threads
    batching: bool = ServingConfig.batching  # by Triton, of what the service joined already

    def over(self, other: Choice) -> str:
        """In words: where it differs."""
        names = [one.name for one in fields(self)]
        changed = [n for n in names if getattr(self, n) != getattr(other, n)]
        return ", ".join(f"{n} {getattr(self, n)}" for n in changed) or "nothing changed"


def space(cores: int) -> Values:
    """Values of each setting, in the order in which they are tried."""
    few = [n for n in (1, 2, 4, 8) if n <= max(cores, 2)]
    return {
        "triton_calls": (1, 2, 3, 4),
        "queue_delay_us": (0, 100, 500, 2000),
        "instances": few,
        "intra_op_threads": few,
        "batching": (True, False),
    }


@dataclass(kw_only=True)
class Staircase:
    """A rate that follows what holds: up after a run that held, down after one that did not."""

    rate: float
    rates: list[float] = field(default_factory=list)  # after each round
    held: int = 0  # rounds

    def step(self, held: bool) -> None:
        self.held += held
        by = ONCE_MORE[min(len(self.rates), len(ONCE_MORE) - 1)]
        self.rate = self.rate * by if held else self.rate / by
        self.rates.append(self.rate)

    @property
    def reached(self) -> float:
        """Geometric mean of the last rounds; 0 where no round held."""
        if not self.held:
            return 0.0
        last = self.rates[-math.ceil(COUNTED * len(self.rates)) :]
        return math.exp(statistics.fmean(map(math.log, last)))


@dataclass(frozen=True, kw_only=True)
class Duel:
    """A challenger against the best so far."""

    best: Choice
    challenger: Choice
    best_rate: float  # requests/s that held
    challenger_rate: float

    @property
    def won(self) -> bool:
        return self.challenger_rate > WORTH * self.best_rate


@dataclass(frozen=True, kw_only=True)
class TunedServing:
    base: Choice
    duels: tuple[Duel, ...]
    last: Duel | None  # whoever won against the base once more
    ended: str

    @property
    def proposed(self) -> Choice:
        """The base, unless somebody won against it twice."""
        return self.last.challenger if self.last is not None and self.last.won else self.base


Stack = Callable[[Choice], AbstractContextManager[Plan]]  # runs for the block: whom to ask, of what


@dataclass(frozen=True, kw_only=True)
class _Side:
    choice: Choice
    plan: Plan
    running: ExitStack


class Search:
    def __init__(
        self,
        start: Stack,
        ask: Ask,
        stated: Sequence[Objective],
        *,
        run_s: float,
        until: float,
        say: Say,
    ) -> None:
        """Runs of `run_s`; no duel but the last begins after `until`, of time.monotonic()."""
        self._start, self._ask, self._stated, self._say = start, ask, stated, say
        self._run_s, self._until, self._runs = run_s, until, 0

    async def run(self, base: Choice, values: Values, *, most: int) -> TunedServing:
        """`most` is what instances times threads may be. Raises what a stack or a run raises."""
        with ExitStack() as all_of_them:
            best = self._side(base, all_of_them)
            rate = await self._alone(best)
            duels, seen, ended = list[Duel](), {base}, "nothing else won"
            while challenger := next(_untried(best.choice, values, seen, most), None):
                if time.monotonic() > self._until:
                    ended = "its time was up"
                    break
                seen.add(challenger)
                other = self._side(challenger, all_of_them)
                duels.append(duel := await self._duel(best, other, rate, len(STEPS)))
                rate = (duel.challenger_rate if duel.won else duel.best_rate) or rate
                best, loser = (other, best) if duel.won else (best, other)
                loser.running.close()
            last = None
            if best.choice != base:
                other = self._side(base, all_of_them)
                last = await self._duel(other, best, rate, len(ONCE_MORE))
        return TunedServing(base=base, duels=tuple(duels), last=last, ended=ended)

    def _side(self, choice: Choice, outer: ExitStack) -> _Side:
        running = outer.enter_context(ExitStack())
        return _Side(
            choice=choice, plan=running.enter_context(self._start(choice)), running=running
        )

    async def _alone(self, side: _Side) -> float:
        """What the base holds, about: where the first duel begins."""
        closed = await self._ask(replace(side.plan, requests=None, duration_s=self._run_s))
        stairs = Staircase(rate=max(FIRST * closed.throughput, 1.0))
        for _ in STEPS:
            stairs.step(await self._held(side, stairs.rate))
        if not stairs.held:
            raise MachineError(
                f"{' and '.join(map(str, self._stated))} did not hold at {stairs.rates[-1]:,.0f} "
                "requests/s, nor above",
                remedy="State an objective that the machine can hold, or let it be quieter.",
            )
        self._say(f"as it is: {stairs.reached:,.0f} requests/s")
        return stairs.reached

    async def _duel(self, best: _Side, other: _Side, rate: float, rounds: int) -> Duel:
        """Both from the same rate on, in an order that turns round."""
        stairs = {id(side): Staircase(rate=rate) for side in (best, other)}
        for number in range(rounds):
            for side in (best, other) if number % 2 else (other, best):
                one = stairs[id(side)]
                one.step(await self._held(side, one.rate))
        found = Duel(
            best=best.choice,
            challenger=other.choice,
            best_rate=stairs[id(best)].reached,
            challenger_rate=stairs[id(other)].reached,
        )
        self._say(
            f"{other.choice.over(best.choice)}: {found.challenger_rate:,.0f} requests/s, "
            f"the best so far {found.best_rate:,.0f}" + (": better" if found.won else "")
        )
        return found

    async def _held(self, side: _Side, rate: float) -> bool:
        self._runs += 1
        pace = Arrivals(kind="poisson", rate=rate, duration_s=self._run_s)
        plan = replace(side.plan, arrivals=pace, requests=None, seed=self._runs)
        report = await self._ask(plan)
        return holds(self._stated, report)


def _untried(best: Choice, values: Values, seen: set[Choice], most: int) -> Iterator[Choice]:
    """All that differ from the best in one setting and were not tried."""
    for name, options in values.items():
        for option in options:
            changed: dict[str, Any] = {name: option}
            choice = replace(best, **changed)
            if choice not in seen and choice.instances * choice.intra_op_threads <= most:
                yield choice
