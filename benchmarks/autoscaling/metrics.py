"""Counters of pods -> what the autoscaler is told of them, as late as it is told.

Prometheus reads each pod's counters every `SCRAPE_S` seconds, at a moment of the pod's own;
prometheus-adapter computes a rate over `WINDOW_S` of what was read, when the autoscaler asks; of a
pod that was read once it says 0. CPU comes by metrics-server, as the use between the last two
readings, and is missing until there are two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from autoscaling.hpa import CPU, SYNC_S, Sample

from recommender.contract import Array

SCRAPE_S = 15  # as prometheus.io/scrape has it by default; metrics-server's resolution, too
WINDOW_S = 60  # of rate(...[1m]) in the adapter's rules
KEPT_S = WINDOW_S + 2 * SYNC_S

QUEUE = "triton_queue_us_per_request"
ROWS = "triton_rows_per_batch"
RATE = "triton_rows_per_second"
DUTY = "gpu_duty_cycle"  # percent, as DCGM has it

# What each pod counts: the first four are nv_inference_* summed over models.
QUEUE_S, REQUESTS, BATCHES, BUSY_S, CPU_S = COUNTERS = range(5)

Rate = Callable[[Array, float], Array]  # increase [counters, pods], seconds -> metric [pods]


def _by(numerator: int, denominator: int, factor: float) -> Rate:
    """Zero, not absent, where nothing happened."""
    return lambda grown, _: factor * grown[numerator] / np.maximum(grown[denominator], 1e-3)


RATES: Mapping[str, Rate] = {
    QUEUE: _by(QUEUE_S, REQUESTS, 1e6),
    ROWS: _by(REQUESTS, BATCHES, 1.0),
    RATE: lambda grown, seconds: grown[REQUESTS] / seconds,
    DUTY: lambda grown, seconds: 100 * grown[BUSY_S] / seconds,
}


class Counters:
    """The last `KEPT_S` seconds of every pod's counters; pods live in slots."""

    def __init__(self, slots: int, cpu_request: float, seed: int) -> None:
        self._total = np.zeros((len(COUNTERS), KEPT_S + 1, slots))
        self._phase = np.random.default_rng(seed).integers(0, SCRAPE_S, slots)
        self._up = np.full(slots, np.inf)  # when a pod's metrics port opens
        self._cpu_request = cpu_request
        self._now = 0.0

    def begin(self, slot: int, up: float) -> None:
        self._total[:, :, slot] = 0
        self._up[slot] = up

    def add(self, grown: Array) -> None:
        """[counters, seconds, slots] of the seconds that passed."""
        seconds = grown.shape[1]
        self._total[:, :-seconds] = self._total[:, seconds:]
        last = self._total[:, -seconds - 1 : -seconds]
        self._total[:, -seconds:] = last + np.cumsum(grown, axis=1)
        self._now += seconds

    def samples(self, metric: str, slots: Array) -> dict[int, Sample]:
        """By slot, of those that have it."""
        age = (self._now - self._phase[slots]) % SCRAPE_S  # of the last reading
        lived = self._now - age - self._up[slots]  # until that reading
        longest = SCRAPE_S if metric == CPU else WINDOW_S - SCRAPE_S
        steps = np.minimum(lived, longest) // SCRAPE_S  # from the first reading within the window
        known = steps >= 1 if metric == CPU else lived >= 0
        slots, age, steps = slots[known], age[known].astype(int), steps[known].astype(int)
        new, old = KEPT_S - age, KEPT_S - age - steps * SCRAPE_S
        grown = self._total[:, new, slots] - self._total[:, old, slots]
        seconds = np.maximum(steps * float(SCRAPE_S), 1.0)
        values = (
            100 * grown[CPU_S] / seconds / self._cpu_request
            if metric == CPU
            else RATES[metric](grown, seconds)
        )
        return {
            int(slot): Sample(float(value), self._now - float(a), float(SCRAPE_S))
            for slot, value, a in zip(slots, values, age, strict=True)
        }
