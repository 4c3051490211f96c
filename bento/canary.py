"""What a canary and the default lately did -> is the canary worse by its margins?

Both are seen over the same time: beside each request of the canary stand the few of the default
that came right after it. A server that is away for a minute is away for both, and nobody
is rolled back for it. A pure function of what happened; no clock, no server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from recommender.variants import DEFAULT, Variant

WINDOW = 1000  # requests of the canary, at least `after`
BESIDE = 10  # requests of the default kept for each of them
QUANTILE = 0.95


class Outcome(NamedTuple):
    failed: bool  # popular items, or worse
    seconds: float


class Judge:
    """Sliding windows of a canary's requests and of the default's beside them."""

    def __init__(self, canary: Variant) -> None:
        self._canary = canary
        size = max(WINDOW, canary.after)
        self._its: deque[Outcome] = deque(maxlen=size)
        self._beside: deque[list[Outcome]] = deque(maxlen=size)
        self._every = max(1, canary.after // 10)  # so that judging costs little
        self._until_next = canary.after

    def default(self, outcome: Outcome) -> None:
        """A request that the default answered."""
        if self._beside and len(self._beside[-1]) < BESIDE:
            self._beside[-1].append(outcome)

    def canary(self, outcome: Outcome) -> str | None:
        """A request that was the canary's; why it must stop, None while it need not."""
        self._its.append(outcome)
        self._beside.append([])
        self._until_next -= 1
        if self._until_next > 0:
            return None
        self._until_next = self._every
        return self._worse([one for some in self._beside for one in some])

    def _worse(self, default: list[Outcome]) -> str | None:
        margins = self._canary
        rate, its_rate = _rate(default), _rate(self._its)
        if its_rate - rate > margins.error_margin:
            return (
                f"{its_rate:.1%} of {len(self._its)} requests fell back, {rate:.1%} of "
                f"{len(default)} of the {DEFAULT}: more than {margins.error_margin:.1%} above"
            )
        if len(default) < margins.after:  # too few for a quantile
            return None
        late, its_late = _late(default), _late(self._its)
        if its_late > late * (1 + margins.latency_margin):
            return (
                f"p95 of {len(self._its)} requests is {its_late * 1000:.1f} ms, of {len(default)} "
                f"of the {DEFAULT} {late * 1000:.1f} ms: more than {margins.latency_margin:.0%} "
                "above"
            )
        return None


def _rate(outcomes: Iterable[Outcome]) -> float:
    """Of failures; 0 of none."""
    failed = [outcome.failed for outcome in outcomes]
    return sum(failed) / max(len(failed), 1)


def _late(outcomes: Iterable[Outcome]) -> float:
    return float(np.quantile([outcome.seconds for outcome in outcomes], QUANTILE))
