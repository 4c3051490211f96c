"""One pod's queue: requests in time -> what each waits; and the same as a table by load.

One queue and one instance. When the instance is free it takes all that wait, at most a full
batch; an idle one waits `delay_s` for neighbours of the first, as Triton's dynamic batcher does.
`run` is that event by event, `Table` what it says of steady loads, for a whole day's simulation.
Knows no pods and no autoscaler.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from autoscaling.service import Service

from recommender.contract import Array

# Shares of capacity that the table has, close together where the queue grows fast.
LOADS = np.concatenate([np.linspace(0.0025, 0.1, 14), np.linspace(0.125, 0.9, 32),
                        np.linspace(0.91, 0.98, 8)])  # fmt: skip
EDGES = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 400)])  # of latency, seconds
REQUESTS = 40_000  # of each load


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    waits: Array  # [requests] seconds until its batch began
    latencies: Array  # [requests] seconds until its answer
    batches: Array  # [batches] rows
    busy_s: float  # the instance worked


def run(arrivals: Array, service: Service) -> Run:
    """Every request of ascending `arrivals` is answered, in order."""
    times, most = service.times.tolist(), service.max_batch
    came = arrivals.tolist()
    starts, sizes = list[float](), list[int]()
    free, i = 0.0, 0
    while i < len(came):
        begin = came[i] + service.delay_s
        if i + most <= len(came):
            begin = min(begin, came[i + most - 1])  # a full batch waits for nobody
        begin = max(begin, free)
        j = bisect_right(came, begin, i, min(i + most, len(came)))
        starts.append(begin)
        sizes.append(j - i)
        free = begin + times[j - i]
        i = j
    batches = np.array(sizes)
    waits = np.repeat(starts, batches) - arrivals
    took = service.times[batches]
    return Run(
        waits=waits,
        latencies=waits + np.repeat(took, batches) + service.beside_s,
        batches=batches,
        busy_s=float(took.sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Steady loads of one pod, Poisson arrivals. R rates, B latency bins."""

    rates: Array  # [R] requests/s
    wait_s: Array  # [R] mean
    busy: Array  # [R] share of the time
    batches: Array  # [R] batches/s
    latency: Array  # [R, B] shares of requests by EDGES
    p99_s: Array  # [R]
    capacity: float  # requests/s

    def rate_for(self, objective_s: float) -> float:
        """The highest load at which p99 keeps the objective."""
        good = np.flatnonzero(self.p99_s <= objective_s)
        if not len(good):
            raise ValueError(
                f"not even an idle pod answers within {objective_s * 1e3:g} ms (p99 "
                f"{self.p99_s[0] * 1e3:.1f} ms): choose a longer --objective-ms"
            )
        return float(self.rates[good[-1]])


def table(service: Service, seed: int = 0, requests: int = REQUESTS) -> Table:
    rates = LOADS * service.capacity
    runs = [run(poisson(rate, seed, requests), service) for rate in rates]
    spans = requests / rates
    return Table(
        rates=rates,
        wait_s=np.array([one.waits.mean() for one in runs]),
        busy=np.array([one.busy_s for one in runs]) / spans,
        batches=np.array([len(one.batches) for one in runs]) / spans,
        latency=np.array([np.histogram(one.latencies, EDGES)[0] for one in runs]) / requests,
        p99_s=np.array([np.percentile(one.latencies, 99) for one in runs]),
        capacity=service.capacity,
    )


def poisson(rate: float, seed: int, requests: int = REQUESTS) -> Array:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, requests))


def percentile(shares: Array, of: float) -> float:
    """From counts by EDGES (never empty): seconds, within the width of a bin."""
    total = np.cumsum(shares)
    return float(np.interp(of / 100 * total[-1], np.concatenate([[0.0], total]), EDGES))
