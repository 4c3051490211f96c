"""A day of traffic over pods that an autoscaler starts and stops -> replicas and latencies.

In steps of the autoscaler's period, second by second within one and all pods at once. A pod below
its capacity behaves as `queueing.Table` says of its load; above it, what it cannot do piles up, and
whoever would wait beyond the caller's deadline leaves (Bento answers it with popular items, and it
counts as late). Pods get equal shares; a new one's grows while callers learn of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from autoscaling import hpa
from autoscaling.hpa import SYNC_S, Autoscaler, Spec
from autoscaling.metrics import BATCHES, BUSY_S, COUNTERS, CPU_S, QUEUE_S, REQUESTS, Counters
from autoscaling.queueing import EDGES, Table
from autoscaling.service import Service

from recommender.contract import Array

SPREAD = np.linspace(1, 2, 5)  # batches that a request of a full queue still waits and runs for


@dataclass(frozen=True, kw_only=True)
class StartUp:
    """Of a pod, in seconds."""

    pending_s: float  # until its containers begin: the node, the image, the release's copy
    load_s: float  # then until the model is loaded and warm, and the metrics port opens
    probe_s: float = 5.0  # the readiness probe's period: up to so much more
    spread_s: float = 25.0  # callers learn of it as their connections end, and DNS forgets


@dataclass(frozen=True, kw_only=True)
class Setting:
    table: Table
    service: Service
    start_up: StartUp
    deadline_s: float
    cpu_request: float
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """I intervals of `SYNC_S` seconds."""

    replicas: Array  # [I] wanted, from creation to deletion: what is paid for
    ready: Array  # [I] at its end
    requests: Array  # [I]
    wait_s: Array  # [I] mean queue time
    latency: Array  # [I, B] requests by EDGES; who left is there at the deadline
    left: Array  # [I] requests that nobody answered in time


@dataclass
class _Pods:
    """In slots, freed at once when a pod goes."""

    created: Array  # inf: no pod here
    started: Array
    ready: Array
    backlog: Array  # requests that wait beyond what a steady load has waiting

    @classmethod
    def none(cls, slots: int) -> _Pods:
        never = np.full(slots, np.inf)
        return cls(never.copy(), never.copy(), never.copy(), np.zeros(slots))

    @property
    def here(self) -> Array:
        return np.flatnonzero(np.isfinite(self.created))


def simulate(rates: Array, setting: Setting, spec: Spec) -> Outcome:
    """What the autoscaler `spec` makes of requests/s `rates`, second by second."""
    scaler = Autoscaler(spec)
    first = int(np.ceil(rates[:SYNC_S].mean() / setting.table.capacity / 0.7))
    return _day(rates, setting, spec.high, min(max(first, spec.low), spec.high), scaler)


def planned(rates: Array, setting: Setting, replicas: Array) -> Outcome:
    """The same pods in given numbers [I], there the moment they are wanted."""
    at_once = replace(setting, start_up=StartUp(pending_s=0, load_s=0, probe_s=0, spread_s=0))
    return _day(rates, at_once, int(replicas.max()), int(replicas[0]), replicas)


def _day(
    rates: Array, setting: Setting, most: int, first: int, source: Autoscaler | Array
) -> Outcome:
    intervals = len(rates) // SYNC_S
    random = np.random.default_rng(setting.seed)
    pods = _Pods.none(most)
    counters = Counters(most, setting.cpu_request, setting.seed)
    for slot in range(first):
        _start(pods, counters, slot, -1e6, setting, random)
    replicas, ready = np.zeros(intervals), np.zeros(intervals)
    steps = list[_Step]()
    for i in range(intervals):
        now = float(i * SYNC_S)
        wanted = (
            int(source[i])
            if isinstance(source, np.ndarray)
            else _asked(source, now, pods, counters)
        )
        _resize(pods, counters, wanted, now, setting, random)
        step = _step(rates[i * SYNC_S : (i + 1) * SYNC_S], now, pods, setting)
        counters.add(step.grown)
        steps.append(step)
        replicas[i] = wanted
        ready[i] = (pods.ready <= now + SYNC_S).sum()
    return _outcome(replicas, ready, steps, setting.table)


def _start(
    pods: _Pods, counters: Counters, slot: int, now: float, setting: Setting,
    random: np.random.Generator,
) -> None:  # fmt: skip
    took = setting.start_up
    pods.created[slot] = now
    pods.started[slot] = now + took.pending_s * random.uniform(0.8, 1.2)
    up = pods.started[slot] + took.load_s * random.uniform(0.8, 1.2)
    pods.ready[slot] = up + random.uniform(0, took.probe_s)
    pods.backlog[slot] = 0.0
    counters.begin(slot, up)


def _resize(
    pods: _Pods, counters: Counters, wanted: int, now: float, setting: Setting,
    random: np.random.Generator,
) -> None:  # fmt: skip
    here = pods.here
    for slot in here[np.argsort(pods.created[here], kind="stable")][wanted:]:  # the newest go
        pods.created[slot] = pods.ready[slot] = pods.started[slot] = np.inf
    for slot in np.flatnonzero(np.isinf(pods.created))[: max(0, wanted - len(here))]:
        _start(pods, counters, int(slot), now, setting, random)


def _asked(scaler: Autoscaler, now: float, pods: _Pods, counters: Counters) -> int:
    here = pods.here
    seen = [_seen(int(slot), pods, now) for slot in here]
    wishes = [
        hpa.wished(len(here), target, seen, counters.samples(target.metric, here), now, scaler.spec)
        for target in scaler.spec.targets
    ]
    return scaler.step(now, len(here), wishes)


def _seen(slot: int, pods: _Pods, now: float) -> hpa.Pod:
    started, ready = float(pods.started[slot]), float(pods.ready[slot])
    is_ready = ready <= now
    return hpa.Pod(
        name=slot,
        started=started if started <= now else None,
        ready=is_ready,
        changed=ready if is_ready else started,
    )


# --- the queues, for one period


@dataclass(frozen=True, kw_only=True, eq=False)
class _Step:
    grown: Array  # [counters, seconds, slots]
    loads: Array  # [R] requests answered at each load of the table
    late: Array | None  # [B] requests answered out of a pile, by EDGES
    left: float


def _step(rates: Array, now: float, pods: _Pods, setting: Setting) -> _Step:
    table, service, here = setting.table, setting.service, pods.here
    seconds = now + np.arange(1, len(rates) + 1)[:, None]
    weights = np.clip((seconds - pods.ready[here]) / (setting.start_up.spread_s + 1e-9), 0, 1)
    came = rates[:, None] * weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    piled, left = _piles(came, pods.backlog[here], setting)
    over = piled > 0
    answered = came - np.diff(np.vstack([pods.backlog[here], piled]), axis=0) - left
    pods.backlog[here] = piled[-1]
    steady = np.minimum(came, table.rates[-1])
    at = np.clip(np.searchsorted(table.rates, steady) - 1, 0, len(table.rates) - 2)
    share = np.clip((steady - table.rates[at]) / (table.rates[at + 1] - table.rates[at]), 0, 1)

    def of(values: Array) -> Array:
        between: Array = values[at] * (1 - share) + values[at + 1] * share
        return between

    full = float(service.times[-1])
    wait = np.where(over, piled / table.capacity + full / 2, of(table.wait_s))
    idle = steady < table.rates[0]
    thin = np.where(idle, steady / table.rates[0], 1.0)  # below the table: fewer, alone
    batches = np.where(over, answered / service.max_batch, of(table.batches) * thin)
    grown = np.zeros((len(COUNTERS), len(rates), len(pods.created)))
    grown[QUEUE_S][:, here] = wait * answered
    grown[REQUESTS][:, here] = answered
    grown[BATCHES][:, here] = batches
    grown[BUSY_S][:, here] = np.where(over, 1.0, of(table.busy) * thin)
    grown[CPU_S][:, here] = service.cpu_batch_s * batches + service.cpu_row_s * answered
    calm = np.where(over, 0.0, answered)
    loads = np.bincount(at.ravel(), (calm * (1 - share)).ravel(), len(table.rates))
    loads += np.bincount(at.ravel() + 1, (calm * share).ravel(), len(table.rates))
    late = _late(piled, answered, over, setting) if over.any() else None
    return _Step(grown=grown, loads=loads, late=late, left=float(left.sum()))


def _piles(came: Array, pile: Array, setting: Setting) -> tuple[Array, Array]:
    """[seconds, slots] what waits at each second's end, and who left in it."""
    capacity = setting.table.capacity
    full = float(setting.service.times[-1])
    most = capacity * max(0.0, setting.deadline_s - SPREAD[-1] * full)
    piled, left = np.zeros_like(came), np.zeros_like(came)
    if not pile.any() and (came <= capacity).all():
        return piled, left
    for i, arrived in enumerate(came):
        pile = np.maximum(0.0, pile + arrived - capacity)
        left[i] = np.maximum(0.0, pile - most)
        pile = pile - left[i]
        piled[i] = pile
    return piled, left


def _late(piled: Array, answered: Array, over: Array, setting: Setting) -> Array:
    full = float(setting.service.times[-1])
    waited = piled[over][:, None] / setting.table.capacity
    took = waited + SPREAD * full + setting.service.beside_s
    weight = np.repeat(answered[over] / len(SPREAD), len(SPREAD))
    return np.histogram(took.ravel(), EDGES, weights=weight)[0]


def _outcome(replicas: Array, ready: Array, steps: Sequence[_Step], table: Table) -> Outcome:
    latency = np.stack([one.loads for one in steps]) @ table.latency
    for i, one in enumerate(steps):
        if one.late is not None:
            latency[i] += one.late
    left = np.array([one.left for one in steps])
    answered = np.array([one.grown[REQUESTS].sum() for one in steps])
    waited = np.array([one.grown[QUEUE_S].sum() for one in steps])
    return Outcome(
        replicas=replicas,
        ready=ready,
        requests=answered + left,
        wait_s=waited / np.maximum(answered, 1e-9),
        latency=latency,
        left=left,
    )
