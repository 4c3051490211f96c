"""Settings of the autoscaler over one day, side by side: ours, others, and the oracle.

Others run with the minimum and maximum of ours. Scaling on CPU has its own manifest's behavior,
and once more, like scaling on the GPU's duty cycle, ours and the target that suits this day best:
the cheapest that holds 99.5%, or else the one that is in time most often. Knows no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaling import judge, metrics
from autoscaling.cluster import Outcome, Setting, planned, simulate
from autoscaling.hpa import CPU, SYNC_S, Spec, Target
from autoscaling.judge import Verdict

from recommender.contract import Array

TARGETS = {CPU: (20, 25, 30, 35, 40, 45, 50, 60), metrics.DUTY: (50, 60, 70, 80, 85, 90, 95)}
USUAL_DUTY = 85  # of NVIDIA's charts for Google's marketplace
OURS, ORACLE = "ours", "oracle"

Others = Mapping[str, Verdict]  # ours elsewhere


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One setting's day."""

    name: str
    spec: Spec | None  # None: the oracle
    outcome: Outcome
    verdict: Verdict


def contest(
    rates: Array, setting: Setting, ours: Spec, cpu: Spec, objective_s: float
) -> tuple[Entry, ...]:
    plan = judge.oracle(rates, setting, objective_s, ours.low)
    hours = float(plan.sum() * SYNC_S / 3600)

    def entry(name: str, spec: Spec | None, outcome: Outcome) -> Entry:
        found = judge.verdict(outcome, setting, objective_s, hours)
        return Entry(name=name, spec=spec, outcome=outcome, verdict=found)

    def run(name: str, spec: Spec) -> Entry:
        return entry(name, spec, simulate(rates, setting, spec))

    def on(metric: str, value: float) -> Spec:
        return replace(ours, targets=(Target(metric, value),))

    def best(metric: str, name: str) -> Entry:
        return _best(
            [run(f"{name} {value}%, best", on(metric, value)) for value in TARGETS[metric]]
        )

    shares = {target.metric: target.value for target in ours.targets}
    found = [run(OURS, ours)]
    if len(shares) > 1:
        found += [run(f"{metric} alone", on(metric, value)) for metric, value in shares.items()]
    found += [
        run(f"CPU {cpu.targets[0].value:g}%, k8s/", replace(cpu, low=ours.low, high=ours.high)),
        best(CPU, "CPU"),
        run(f"GPU duty cycle {USUAL_DUTY}%", on(metrics.DUTY, USUAL_DUTY)),
        best(metrics.DUTY, "GPU duty cycle"),
        entry(ORACLE, None, planned(rates, setting, plan)),
    ]
    return tuple(found)


def alone(rates: Array, setting: Setting, ours: Spec, objective_s: float) -> Verdict:
    """Ours on another day or another start-up."""
    plan = judge.oracle(rates, setting, objective_s, ours.low)
    outcome = simulate(rates, setting, ours)
    return judge.verdict(outcome, setting, objective_s, float(plan.sum() * SYNC_S / 3600))


def _best(found: Sequence[Entry]) -> Entry:
    good = [one for one in found if one.verdict.in_time >= judge.IN_TIME]
    if good:
        return min(good, key=lambda one: one.verdict.replica_hours)
    return max(found, key=lambda one: one.verdict.in_time)


def early_hours(rates: Array, setting: Setting, ours: Spec, objective_s: float) -> float:
    """Replica hours of an oracle that also pays for the starts."""
    plan = judge.oracle(rates, setting, objective_s, ours.low)
    return float(judge.early(plan, setting).sum() * SYNC_S / 3600)
