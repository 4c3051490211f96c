"""An outcome -> the figures it is judged by; and the oracle it is judged against.

The oracle knows the future and pays for nothing but what it needs: in each interval the fewest
pods, there the moment they are needed and gone the moment they are not, at which p99 keeps the
objective, and never fewer than the manifest's minimum, which is there for a pod's failure and not
for load. `early` has it start each pod early enough and pay for that as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from autoscaling.cluster import Outcome, Setting, planned
from autoscaling.hpa import SYNC_S
from autoscaling.queueing import EDGES, percentile

from recommender.contract import Array

WINDOW_S = 600  # of the direction changes
IN_TIME, COST, CHANGES = 0.995, 1.3, 2  # what ours must hold


@dataclass(frozen=True, kw_only=True)
class Verdict:
    replica_hours: float
    cost: float  # replica hours by the oracle's
    in_time: float  # share of requests answered within the objective
    in_good_time: float  # share of requests of intervals whose p99 kept it
    left: float  # share of requests that got popular items at the deadline
    queue_ms: float  # mean
    p99_ms: float  # of the day
    worst_p99_ms: float  # of an interval
    most: int  # replicas
    changes: int  # of direction, the most within ten minutes

    @property
    def holds(self) -> bool:
        return (
            min(self.in_time, self.in_good_time) >= IN_TIME
            and self.cost <= COST
            and self.changes <= CHANGES
        )


def verdict(outcome: Outcome, setting: Setting, objective_s: float, oracle_hours: float) -> Verdict:
    total = outcome.requests.sum()
    hours = float(outcome.replicas.sum() * SYNC_S / 3600)
    day = outcome.latency.sum(axis=0)
    p99 = p99s(outcome, setting)
    in_time = np.interp(objective_s, EDGES, np.concatenate([[0.0], np.cumsum(day)])) / total
    answered = np.maximum(outcome.requests - outcome.left, 0)
    return Verdict(
        replica_hours=hours,
        cost=hours / oracle_hours,
        in_time=min(1.0, float(in_time)),
        in_good_time=min(1.0, float(outcome.requests[p99 <= objective_s].sum() / total)),
        left=float(outcome.left.sum() / total),
        queue_ms=float((outcome.wait_s * answered).sum() / answered.sum() * 1e3),
        p99_ms=_p99(day, outcome.left.sum(), setting.deadline_s) * 1e3,
        worst_p99_ms=float(p99.max() * 1e3),
        most=int(outcome.replicas.max()),
        changes=direction_changes(outcome.replicas),
    )


def p99s(outcome: Outcome, setting: Setting) -> Array:
    """[I] of each interval, seconds; who left took the deadline."""
    return np.array([
        _p99(row, left, setting.deadline_s)
        for row, left in zip(outcome.latency, outcome.left, strict=True)
    ])  # fmt: skip


def _p99(latency: Array, left: float, deadline_s: float) -> float:
    total = latency.sum() + left
    if total <= 0:
        return 0.0
    if left > 0.01 * total:
        return deadline_s
    return min(deadline_s, percentile(latency, 99 * total / latency.sum() if left else 99))


def direction_changes(replicas: Array) -> int:
    """The most within `WINDOW_S`: up after down, or down after up."""
    moves = np.diff(replicas)
    at = np.flatnonzero(moves)
    turns = at[1:][np.sign(moves[at[1:]]) != np.sign(moves[at[:-1]])] * SYNC_S
    return max((int(((turns >= t) & (turns < t + WINDOW_S)).sum()) for t in turns), default=0)


def oracle(rates: Array, setting: Setting, objective_s: float, low: int) -> Array:
    """[I] the fewest pods."""
    per_interval = rates[: len(rates) // SYNC_S * SYNC_S].reshape(-1, SYNC_S).mean(axis=1)
    needed = np.ceil(per_interval / setting.table.rate_for(objective_s))
    fewest: Array = np.maximum(needed, low)
    return fewest


def early(plan: Array, setting: Setting) -> Array:
    """The same pods, each started as long before as it takes to start."""
    took = setting.start_up
    ahead = int(np.ceil((took.pending_s + took.load_s + took.probe_s + took.spread_s) / SYNC_S))
    padded = np.concatenate([plan, np.repeat(plan[-1], ahead)])
    views = np.lib.stride_tricks.sliding_window_view(padded, ahead + 1)
    most: Array = views.max(axis=1)
    return most


def of_plan(
    rates: Array, setting: Setting, plan: Array, objective_s: float, hours: float
) -> Verdict:
    return verdict(planned(rates, setting, plan), setting, objective_s, hours)
