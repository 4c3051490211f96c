"""HorizontalPodAutoscaler of autoscaling/v2: metrics of pods -> the number of replicas.

The algorithm as Kubernetes documents it ("Horizontal Pod Autoscaling", algorithm details and
configurable scaling behavior), with the controller's defaults. One metric gives a wish (`wished`),
the largest wish counts, and `Autoscaler` bends it to the behavior of the manifest. Knows no
Triton, no traffic and no clock: whoever calls says what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

SYNC_S = 15  # --horizontal-pod-autoscaler-sync-period
TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
CPU_INITIALIZATION_S = 300  # --horizontal-pod-autoscaler-cpu-initialization-period
READINESS_DELAY_S = 30  # --horizontal-pod-autoscaler-initial-readiness-delay
CPU = "cpu"

Select = Literal["Max", "Min", "Disabled"]


@dataclass(frozen=True)
class Policy:
    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One direction of `behavior`."""

    window_s: int
    policies: tuple[Policy, ...]
    select: Select = "Max"
    tolerance: float = TOLERANCE


# What Kubernetes fills in where a manifest says nothing.
UP = Rules(window_s=0, policies=(Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DOWN = Rules(window_s=300, policies=(Policy("Percent", 100, 15),))


@dataclass(frozen=True)
class Target:
    """Mean over pods that a metric should have; of `cpu`, in percent of the request."""

    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Spec:
    low: int
    high: int
    targets: tuple[Target, ...]
    up: Rules = UP
    down: Rules = DOWN


@dataclass(frozen=True, kw_only=True)
class Pod:
    """As the controller sees it; pods that are being deleted are not shown to it."""

    name: int
    started: float | None  # when its containers began; None while it is Pending
    ready: bool = True
    changed: float = 0.0  # when `ready` last changed


@dataclass(frozen=True)
class Sample:
    value: float  # of cpu, in percent of the request
    at: float = math.inf
    window_s: float = 0.0


def read(manifest: Path) -> Spec:
    """The HorizontalPodAutoscaler of a YAML file."""
    spec = yaml.safe_load(manifest.read_text())["spec"]
    behavior = spec.get("behavior", {})
    return Spec(
        low=spec.get("minReplicas", 1),
        high=spec["maxReplicas"],
        targets=tuple(_target(metric) for metric in spec["metrics"]),
        up=_rules(behavior.get("scaleUp", {}), UP),
        down=_rules(behavior.get("scaleDown", {}), DOWN),
    )


def _target(metric: Mapping[str, Any]) -> Target:
    match metric:
        case {"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}:
            return Target(name, quantity(target["averageValue"]))
        case {"type": "Resource", "resource": {"name": "cpu", "target": target}}:
            return Target(CPU, float(target["averageUtilization"]))
    raise ValueError(f"the simulation knows no metric like {metric}; Pods and Resource cpu it does")


def _rules(given: Mapping[str, Any], default: Rules) -> Rules:
    policies = tuple(
        Policy(one["type"], one["value"], one["periodSeconds"]) for one in given.get("policies", ())
    )
    return Rules(
        window_s=given.get("stabilizationWindowSeconds", default.window_s),
        policies=policies or default.policies,
        select=given.get("selectPolicy", "Max"),
        tolerance=quantity(given.get("tolerance", default.tolerance)),
    )


def quantity(text: object) -> float:
    """Kubernetes' notation of numbers, as far as metrics use it: 1500m, 20k, 4."""
    said = str(text)
    factor = {"m": 1e-3, "k": 1e3, "M": 1e6}.get(said[-1])
    return float(said[:-1]) * factor if factor else float(said)


# --- one metric


def wished(
    current: int,
    target: Target,
    pods: Sequence[Pod],
    samples: Mapping[int, Sample],
    now: float,
    spec: Spec,
) -> int | None:
    """Replicas that this metric asks for; None where no pod has it, which is an error there."""
    unready, missing, seen = _sorted(target, pods, samples, now)
    if not seen:
        return None
    ratio = _ratio(seen, target)
    raised = bool(unready) and ratio > 1  # not-yet-ready pods count, as idle, only upwards
    if not raised and not missing:
        return current if _near(ratio, spec) else _ceil(ratio * len(seen))
    # More carefully: what is not known would slow the change down.
    values = list(seen)
    if missing and ratio < 1:
        values += [max(100.0, target.value) if target.metric == CPU else target.value] * missing
    elif missing and ratio > 1:
        values += [0.0] * missing
    if raised:
        values += [0.0] * unready
    anew = _ratio(values, target)
    if _near(anew, spec) or (ratio - 1) * (anew - 1) < 0:
        return current
    wish = _ceil(anew * len(values))
    turned = (anew < 1 and wish > current) or (anew > 1 and wish < current)
    return current if turned else wish


def _sorted(
    target: Target, pods: Sequence[Pod], samples: Mapping[int, Sample], now: float
) -> tuple[int, int, list[float]]:
    """How many pods are not yet ready, how many lack the metric, and what the others say."""
    unready, missing, seen = 0, 0, list[float]()
    for pod in pods:
        sample = samples.get(pod.name)
        if pod.started is None:
            unready += 1
        elif sample is None:
            missing += 1
        elif target.metric == CPU and _starting(pod, pod.started, sample, now):
            unready += 1
        else:
            seen.append(sample.value)
    return unready, missing, seen


def _starting(pod: Pod, started: float, sample: Sample, now: float) -> bool:
    """Asked of CPU alone, which a start makes look busy."""
    if now < started + CPU_INITIALIZATION_S:
        return not pod.ready or sample.at < pod.changed + sample.window_s
    return not pod.ready and pod.changed < started + READINESS_DELAY_S


def _ratio(values: Sequence[float], target: Target) -> float:
    mean = sum(values) / len(values)
    return (int(mean) if target.metric == CPU else mean) / target.value  # whole percents


def _near(ratio: float, spec: Spec) -> bool:
    return 1 - spec.down.tolerance <= ratio <= 1 + spec.up.tolerance


def _ceil(value: float) -> int:
    return math.ceil(round(value, 9))  # 3 * 1.1 is no reason for a fourth pod


# --- all metrics, and the behavior


@dataclass
class Autoscaler:
    """Remembers what `behavior` looks back on."""

    spec: Spec
    _wishes: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)  # replicas added or taken

    def step(self, now: float, current: int, wishes: Sequence[int | None]) -> int:
        """The number of replicas from `now` on; a wish is None where its metric is missing."""
        known = [wish for wish in wishes if wish is not None]
        wish = max(known, default=current)
        if len(known) < len(wishes) and wish < current:
            wish = current  # nobody knows what the missing metric would have said
        chosen = self._limited(now, current, self._stable(now, current, wish))
        if chosen != current:
            self._changes.append((now, chosen - current))
        return chosen

    def _stable(self, now: float, current: int, wish: int) -> int:
        """The least change that all wishes of the window agree on."""
        if not self._wishes:
            self._wishes.append((now, current))
        self._wishes.append((now, wish))
        longest = max(self.spec.up.window_s, self.spec.down.window_s)
        self._wishes = [(t, w) for t, w in self._wishes if t > now - longest or t == now]
        up = min([w for t, w in self._wishes if t > now - self.spec.up.window_s] + [wish])
        down = max([w for t, w in self._wishes if t > now - self.spec.down.window_s] + [wish])
        return max(min(current, down), up)

    def _limited(self, now: float, current: int, wish: int) -> int:
        spec = self.spec
        if not spec.low <= current <= spec.high:
            return min(max(current, spec.low), spec.high)
        if wish > current:
            bound = self._bound(now, current, spec.up, upwards=True)
            return min(wish, spec.high, max(current, bound))
        if wish < current:
            bound = self._bound(now, current, spec.down, upwards=False)
            return max(wish, spec.low, min(current, bound))
        return current

    def _bound(self, now: float, current: int, rules: Rules, *, upwards: bool) -> int:
        if rules.select == "Disabled":
            return current
        bounds = [self._bound_of(one, now, current, upwards) for one in rules.policies]
        return max(bounds) if upwards == (rules.select == "Max") else min(bounds)

    def _bound_of(self, policy: Policy, now: float, current: int, upwards: bool) -> int:
        changed = sum(n for t, n in self._changes if t > now - policy.period_s)
        before = current - changed
        if policy.kind == "Pods":
            return before + policy.value if upwards else before - policy.value
        share = policy.value / 100
        return (
            _ceil(before * (1 + share)) if upwards else math.floor(round(before * (1 - share), 9))
        )
