"""How requests arrive in an open loop -> the instants at which each is due.

    constant   evenly spaced
    poisson    independent of each other: exponential gaps
    ramp       from nothing to `rate`, linearly
    flash      `rate`, and `peak` times as much in the middle fifth: a flash crowd
    trace      as in a file: seconds or unix timestamps, one a line; `rate` speeds it up or down

Pure: the same arrivals and seed give the same instants. Knows no clock and no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from recommender.contract import Array
from recommender.errors import BadInput, shown

Kind = Literal["constant", "poisson", "ramp", "flash", "trace"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CROWD = (0.4, 0.6)  # of the duration: the flash crowd
MOST = 50_000_000  # requests of a run: their instants alone are 400 MB


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    kind: Kind = "poisson"
    rate: float | None = None  # requests a second; None only for a trace: as it was recorded
    duration_s: float | None = None  # None only for a trace: all of it
    peak: float = 10.0  # flash: times the rate
    trace: Path | None = None

    def __post_init__(self) -> None:
        if (self.kind == "trace") != (self.trace is not None):
            raise BadInput(
                f"arrivals are {self.kind!r} and the trace is {self.trace}",
                remedy="Give a trace file with --arrivals trace, and with no other.",
                field="trace",
            )
        if self.kind != "trace" and (self.rate is None or self.duration_s is None):
            raise BadInput(
                f"arrivals of kind {self.kind!r} without a rate or a duration",
                remedy="Say how many requests a second, and for how many seconds.",
                field="rate",
            )
        if (self.rate or 0) * (self.duration_s or 0) * max(1.0, self.peak) > MOST:
            raise BadInput(
                f"{self.rate:g}/s for {self.duration_s:g} s is too many requests for one run",
                remedy=f"Stay below {MOST:,}.",
                field="rate",
                value=self.rate,
            )


def instants(arrivals: Arrivals, seed: int) -> Array:
    """[n] float64 seconds from the start, ascending. Raises BadInput for an unreadable trace."""
    if arrivals.kind == "trace":
        return _traced(arrivals)
    rate, duration = arrivals.rate, arrivals.duration_s
    assert rate is not None and duration is not None
    # Arrivals of rate 1, bent by the integral of the rate: exact for straight pieces of it, and
    # fine enough for the ramp.
    at = np.linspace(0, duration, 10_001)
    expected = _expected(arrivals, at / duration) * rate * duration
    total = expected[-1]
    if arrivals.kind == "constant":
        unit = np.arange(int(total + 1e-9), dtype=np.float64)
    else:
        random = np.random.default_rng([seed, 1])
        unit = np.cumsum(random.exponential(size=int(total + 10 * np.sqrt(total) + 20)))
        unit = unit[unit < total]
    times: Array = np.interp(unit, expected, at)
    return times


def length_s(arrivals: Arrivals) -> float:
    """Seconds; of a trace without a duration, until its last request. Raises BadInput."""
    if arrivals.duration_s is not None:
        return arrivals.duration_s
    return float(instants(arrivals, seed=0)[-1])


def offered_rate(times: Array) -> float:
    """Requests a second that instants stand for."""
    return len(times) / float(times[-1]) if len(times) > 1 and times[-1] > 0 else 0.0


def at_first(arrivals: Arrivals, seconds: float, seed: int) -> Array:
    """[n] float64, ascending from -`seconds` to 0: a warm-up at the rate of the beginning (of a
    ramp: a tenth of its end; of a trace: its mean)."""
    rate = arrivals.rate or offered_rate(instants(arrivals, seed))
    rate *= 0.1 if arrivals.kind == "ramp" else 1.0
    if not rate or not seconds:
        return np.zeros(0)
    kind: Kind = "constant" if arrivals.kind == "constant" else "poisson"
    before = Arrivals(kind=kind, rate=rate, duration_s=seconds)
    return instants(before, seed + 1) - seconds


def _expected(arrivals: Arrivals, at: Array) -> Array:
    """[n] share of rate * duration that is due until `at` [n], from 0 to 1 of the duration."""
    expected = at
    if arrivals.kind == "ramp":
        expected = at**2 / 2
    if arrivals.kind == "flash":
        begin, end = CROWD
        expected = at + (arrivals.peak - 1) * np.clip(at - begin, 0, end - begin)
    return expected


def _traced(arrivals: Arrivals) -> Array:
    path = arrivals.trace
    assert path is not None
    try:
        lines = path.read_text().split()
        times: Array = np.sort(np.array(lines, np.float64))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is no trace: {error}",
            remedy="Write the seconds at which requests came, one a line.",
            field="trace",
            value=shown(str(path)),
        ) from error
    if not len(times) or not np.isfinite(times).all():
        raise BadInput(
            f"{path} holds no instants, or some that are no numbers",
            remedy="Write the seconds at which requests came, one a line.",
            field="trace",
            value=shown(str(path)),
        )
    times = times - times[0]
    if arrivals.rate is not None and times[-1] > 0:
        times *= offered_rate(times) / arrivals.rate
    return times if arrivals.duration_s is None else times[times < arrivals.duration_s]
