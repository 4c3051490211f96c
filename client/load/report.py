"""A recording -> throughput and percentiles -> a table, or JSON. Knows no target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from client.load.generator import Recording

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, kw_only=True)
class Report:
    target: str
    release: int
    concurrency: int
    requests: int  # asked after the warm-up
    right: int  # answered, and the answer passed every check
    elapsed_s: float
    throughput: float  # right answers per second
    latency_ms: Mapping[str, float]  # mean, p50, p95, p99, max over all answers; empty without one
    errors: Mapping[str, int]  # kind -> questions without an answer
    wrong: Mapping[str, int]  # kind -> answers that failed a check

    @property
    def passed(self) -> bool:
        return self.right == self.requests > 0


def report(recording: Recording, *, target: str, release: int, concurrency: int) -> Report:
    return Report(
        target=target,
        release=release,
        concurrency=concurrency,
        requests=len(recording.latencies) + recording.errors.total(),
        right=recording.right,
        elapsed_s=recording.elapsed_s,
        throughput=recording.right / recording.elapsed_s if recording.elapsed_s else 0.0,
        latency_ms=_latency_ms(recording.latencies),
        errors=dict(recording.errors.most_common()),
        wrong=dict(recording.wrong.most_common()),
    )


def _latency_ms(latencies: list[float]) -> dict[str, float]:
    if not latencies:
        return {}
    ms = np.asarray(latencies) * 1000
    at = np.percentile(ms, PERCENTILES)
    return {
        "mean": float(ms.mean()),
        **{f"p{p}": float(value) for p, value in zip(PERCENTILES, at, strict=True)},
        "max": float(ms.max()),
    }


def table(found: Report) -> Group:
    """For a terminal: the figures, then one line for each kind of error and wrong answer."""
    figures = Table("requests", "workers", "seconds", "right/s", box=None, pad_edge=False)
    row = [
        f"{found.requests:,}",
        str(found.concurrency),
        f"{found.elapsed_s:.1f}",
        f"{found.throughput:,.0f}",
    ]
    for name, value in found.latency_ms.items():
        figures.add_column(f"{name} ms", justify="right")
        row.append(f"{value:.2f}")
    figures.add_row(*row)
    faults = [f"{count:,} without an answer: {kind}" for kind, count in found.errors.items()]
    faults += [f"{count:,} answered wrongly: {kind}" for kind, count in found.wrong.items()]
    title = Text(f"{found.target}, release {found.release}")
    return Group(title, figures, *(Text(fault, "red") for fault in faults))
