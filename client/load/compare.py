"""Two targets, asked in turns -> ratios of throughput and latency, with intervals.

    round 1   A B
    round 2   B A      the order turns round, so that what drifts meets both alike
    ...

Each round gives one ratio of each figure; said is their median with the exact interval that order
statistics give: no assumption of how they are spread. Knows no protocol.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from client.load.plan import Plan
from client.load.report import Report

FIGURES = ("throughput", "p50", "p95", "p99")
CONFIDENCE = 0.95
FEWEST = 6  # rounds: with fewer, not even the whole span of the ratios is a 95% interval

Ask = Callable[[Plan], Awaitable[Report]]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """B's figure by A's; an even one is 1."""

    median: float
    low: float
    high: float
    confidence: float  # of the interval: at least what was wanted, where rounds are enough
    rounds: tuple[float, ...]

    @property
    def clear(self) -> bool:
        """Is one of them ahead, whatever chance did?"""
        return self.confidence >= CONFIDENCE and not self.low <= 1 <= self.high


@dataclass(frozen=True, kw_only=True)
class Comparison:
    a: str
    b: str
    rounds: tuple[tuple[Report, Report], ...]  # A's and B's
    ratios: dict[str, Ratio]  # of FIGURES; one is left out where a round has no answer

    @property
    def passed(self) -> bool:
        return all(one.passed for pair in self.rounds for one in pair)


async def compare(a: Plan, b: Plan, ask: Ask, *, rounds: int, say: Say) -> Comparison:
    """Raises what `ask` raises."""
    found: list[tuple[Report, Report]] = []
    for number in range(rounds):
        sides = (a, b) if number % 2 == 0 else (b, a)
        pair = {id(plan): await ask(plan) for plan in sides}
        found.append((pair[id(a)], pair[id(b)]))
        say(f"round {number + 1} of {rounds}: " + ", ".join(
            f"{name} {one.throughput:,.0f}/s p99 {one.latency_ms.get('p99', math.nan):.1f} ms"
            for name, one in zip("AB", found[-1], strict=True)
        ))  # fmt: skip
    ratios = {
        figure: ratio([value(other, figure) / value(one, figure) for one, other in found])
        for figure in FIGURES
        if all(value(side, figure) > 0 for pair in found for side in pair)
    }
    return Comparison(a=a.target, b=b.target, rounds=tuple(found), ratios=ratios)


def value(report: Report, figure: str) -> float:
    """0 where the report has no such figure."""
    return report.throughput if figure == "throughput" else report.latency_ms.get(figure, 0.0)


def ratio(rounds: Sequence[float]) -> Ratio:
    low, high, confidence = interval_of_median(rounds)
    return Ratio(
        median=statistics.median(rounds),
        low=low,
        high=high,
        confidence=confidence,
        rounds=tuple(rounds),
    )


def interval_of_median(values: Sequence[float]) -> tuple[float, float, float]:
    """The narrowest pair of order statistics, as far from one end as from the other, that holds
    the median with CONFIDENCE; all of them where there are too few. And its confidence."""
    ranked, n = sorted(values), len(values)
    below = [math.comb(n, k) / 2**n for k in range(n + 1)]  # of the values, k below the median
    cut = 0
    while cut + 1 < n / 2 and 1 - 2 * sum(below[: cut + 2]) >= CONFIDENCE:
        cut += 1
    return ranked[cut], ranked[n - 1 - cut], 1 - 2 * sum(below[: cut + 1])
