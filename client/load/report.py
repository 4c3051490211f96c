"""What was recorded -> throughput, percentiles, faults: the figures of one load test.

Latency counts from the instant that was scheduled. In percentiles is every answer, right or
wrong; questions without one, refusals and fallbacks are counted apart, the latter two with a
latency of their own. A run that its own generator could not keep up with is no measurement, and
says so. Knows no target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.load.plan import Plan
from client.load.recording import Fate, Rows
from recommender.contract import Array
from recommender.release import read_index

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
ANSWERED = (Fate.RIGHT, Fate.WRONG)

# When a generator is too slow for its figures to be the server's. What its own lateness adds to a
# percentile is known, since latency from the actual sending is: below ADDS_MS it does not matter,
JUDGED = ("p50", "p95", "p99")
ADDS_MS = 1.0
ADDS_SHARE = 0.02  # nor below this share of the percentile.
# Requests that leave late leave in bunches: a load that was not planned, whatever it adds.
LATE_MS = 2.0  # p99 of how late it sent: below this it does not matter,
LATE_SHARE = 0.2  # nor below this share of the latency's p99
BUSY_SHARE = 0.95  # of the time it ran, or waited for a core, in a run that lasted
LASTED_S = 1.0
IDLE_SHARE = 0.5  # below it a generator that was late had time enough itself


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of all questions, those of one kind."""

    requests: int
    right: int
    latency_ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Second:
    """One second of the run: what was due in it, and what became of it."""

    second: int
    sent: int
    right: int
    refused: int
    errors: int  # no answer, a wrong one, or a fallback
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    target: str
    release: int  # that serves, as the repository says
    releases: Mapping[int, int]  # answers by the release they name
    concurrency: int | None  # callers of a closed loop
    offered_rate: float | None  # requests a second of an open loop
    processes: int
    requests: int  # asked after the warm-up
    right: int  # answered, and the answer passed every check
    elapsed_s: float  # from the start to the last answer
    throughput: float  # right answers per second
    latency_ms: Mapping[str, float]  # mean, percentiles, max; empty without an answer
    errors: Mapping[str, int]  # kind -> questions without an answer of a model
    wrong: Mapping[str, int]  # kind -> answers that failed a check
    fallbacks: int  # of the errors: popular items instead of a model's
    refused: Mapping[str, int]  # kind -> refusals: 429, 503, a full queue
    refused_ms: Mapping[str, float]  # their own latency
    fallback_ms: Mapping[str, float]  # that of fallbacks
    by: Mapping[str, Share]  # by endpoint
    lengths: Mapping[int, Share]  # by length bucket of the history, where one is read
    seconds: tuple[Second, ...]
    lag_ms: Mapping[str, float]  # p50, p99, max: how late the generator itself sent
    adds_ms: Mapping[str, float]  # to p50, p95, p99: what they are longer than from the sending
    unsent: int  # due, but the generator gave up: never sent, or their answers not waited for
    cpu_s: float  # of the generator
    busy: float  # share of the time that the busiest generator ran, or waited for a core
    behind: bool  # it could not keep up: this is no measurement
    why_behind: str = ""

    @property
    def failed(self) -> int:
        """Without an answer, or with a wrong one; refusals and fallbacks are counted apart."""
        return self.requests - self.right - self.fallbacks - sum(self.refused.values())

    @property
    def answered_by(self) -> str:
        """The releases that answers name; nothing where none does."""
        return ", ".join(map(str, self.releases))

    @property
    def remedy(self) -> str:
        """What to do where the generator could not keep up."""
        if not self.unsent and self.busy < IDLE_SHARE:  # less work would not help it
            return (
                "Something else had its core for moments: measure on a quieter machine, or give "
                "the generator cores of its own."
            )
        return "Ask for less, or give it more --processes or a machine of its own."

    @property
    def passed(self) -> bool:
        """Whoever asked got a right answer, or was refused in words; and it was measured."""
        answered = self.right + sum(self.refused.values())
        return not self.behind and self.right > 0 and answered == self.requests


def report(plan: Plan, rows: Rows) -> Report:
    right = rows.fate(Fate.RIGHT)
    latency = 1000 * (rows.done - rows.due)
    lag = 1000 * (rows.sent - rows.due)
    answered, refused = rows.fate(*ANSWERED), rows.fate(Fate.REFUSED)
    fallback = rows.fate(Fate.FALLBACK)
    took, adds = summary(latency[answered]), _adds(latency[answered], lag[answered])
    elapsed = float(rows.done.max(initial=0.0))
    errors = _kinds(rows, Fate.FAILED, Fate.FALLBACK)
    serving = read_index(plan.repository).serving
    assert serving is not None  # it was read before
    why = _why_behind(plan, rows, took, lag, adds, elapsed)
    return Report(
        target=plan.target,
        release=serving,
        releases=_releases(rows),
        concurrency=None if plan.arrivals else plan.concurrency,
        offered_rate=_offered(plan, rows),
        processes=plan.processes,
        requests=len(rows) + len(rows.unsent),
        right=int(right.sum()),
        elapsed_s=elapsed,
        throughput=float(right.sum()) / elapsed if elapsed else 0.0,
        latency_ms=took,
        errors=errors,
        wrong=_kinds(rows, Fate.WRONG),
        fallbacks=int(fallback.sum()),
        refused=_kinds(rows, Fate.REFUSED),
        refused_ms=summary(latency[refused]),
        fallback_ms=summary(latency[fallback]),
        by=_shares(rows, [part.endpoint for part in rows.parts], latency),
        lengths=_shares(rows, [part.length for part in rows.parts], latency),
        seconds=_seconds(rows, latency),
        lag_ms=_lag(lag),
        adds_ms=adds,
        unsent=len(rows.unsent),
        cpu_s=rows.cpu_s,
        busy=rows.busy,
        behind=bool(why),
        why_behind=why,
    )


def summary(ms: Array) -> dict[str, float]:
    """Mean, percentiles and maximum of `ms` [n]; nothing of nothing."""
    if not len(ms):
        return {}
    at = np.percentile(ms, [*PERCENTILES.values()])
    named = {name: float(value) for name, value in zip(PERCENTILES, at, strict=True)}
    return {"mean": float(ms.mean()), **named, "max": float(ms.max())}


def _releases(rows: Rows) -> dict[int, int]:
    numbers, counts = np.unique(rows.release[rows.release > 0], return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def _kinds(rows: Rows, *fates: Fate) -> dict[str, int]:
    """The most frequent first."""
    counts = np.bincount(rows.outcome, minlength=len(rows.outcomes)).tolist()
    found = Counter[str]()
    for outcome, count in zip(rows.outcomes, counts, strict=True):
        if outcome.fate in fates and count:
            found[outcome.kind] += count
    return dict(found.most_common())


def _shares(rows: Rows, names: list[Any], latency: Array) -> dict[Any, Share]:
    """By the names of parts; those of an empty name, or 0, are left out."""
    right, answered = rows.fate(Fate.RIGHT), rows.fate(*ANSWERED)
    found = {}
    for name in sorted(set(filter(None, names))):
        of_name = np.array([other == name for other in names], bool)[rows.part]
        if of_name.any():
            found[name] = Share(
                requests=int(of_name.sum()),
                right=int((of_name & right).sum()),
                latency_ms=summary(latency[of_name & answered]),
            )
    return found


def _seconds(rows: Rows, latency: Array) -> tuple[Second, ...]:
    if not len(rows):
        return ()
    second = rows.due.astype(np.int64)
    order = np.argsort(second, kind="stable")
    edges = np.searchsorted(second[order], np.arange(second.max() + 2))
    right, answered = rows.fate(Fate.RIGHT), rows.fate(*ANSWERED)
    refused = rows.fate(Fate.REFUSED)

    def one(number: int) -> Second:
        at = order[edges[number] : edges[number + 1]]
        took = latency[at][answered[at]]
        p50, p99 = np.percentile(took, (50, 99)).tolist() if len(took) else (None, None)
        good, busy = int(right[at].sum()), int(refused[at].sum())
        return Second(
            second=number,
            sent=len(at),
            right=good,
            refused=busy,
            errors=len(at) - good - busy,
            p50_ms=p50,
            p99_ms=p99,
        )

    return tuple(map(one, range(len(edges) - 1)))


def _lag(lag: Array) -> dict[str, float]:
    if not len(lag):
        return {}
    p50, p99 = np.percentile(lag, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(lag.max())}


def _offered(plan: Plan, rows: Rows) -> float | None:
    if plan.arrivals is None:
        return None
    duration = plan.arrivals.duration_s or float(rows.due.max(initial=0.0))
    return (len(rows) + len(rows.unsent)) / duration if duration else 0.0


def _adds(latency: Array, lag: Array) -> dict[str, float]:
    """By how much lateness `lag` [n] lengthens the percentiles of `latency` [n]; nothing of
    nothing."""
    if not len(latency):
        return {}
    at = [PERCENTILES[name] for name in JUDGED]
    added = np.percentile(latency, at) - np.percentile(latency - lag, at)
    return dict(zip(JUDGED, added.tolist(), strict=True))


def _why_behind(
    plan: Plan,
    rows: Rows,
    took: Mapping[str, float],
    lag: Array,
    adds: Mapping[str, float],
    elapsed: float,
) -> str:
    if len(rows.unsent):
        return f"it gave up on {len(rows.unsent):,} requests that it could not send in time"
    if rows.busy > BUSY_SHARE and elapsed > LASTED_S:
        return f"it was busy itself for {min(rows.busy, 1):.0%} of the time"
    if plan.arrivals is None:
        return ""
    late = float(np.percentile(lag, 99)) if len(lag) else 0.0
    if late > max(LATE_MS, LATE_SHARE * took.get("p99", 0.0)):
        return f"it sent 1% of the requests {late:.1f} ms late, or later"
    for name, added in adds.items():
        if added > max(ADDS_MS, ADDS_SHARE * took[name]):
            return f"its own lateness made the {name} {added:.1f} ms longer"
    return ""
