"""A day of requests, or a trace of one -> requests/s, second by second.

The day: a daily wave, noise that lasts minutes, and a flash crowd on top of it. Seeded. Loads are
in requests/s; how much a pod can do is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recommender.contract import Array

DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Day:
    """Loads as shares of `peak`, the daily wave's highest."""

    peak: float  # requests/s
    trough: float = 0.3  # at four at night
    noise: float = 0.05  # standard deviation of the logarithm, of minutes
    noise_s: float = 120.0  # how long a swing of it lasts
    crowd: float = 5.0  # the flash crowd's load, by the load before it; 1: none
    crowd_at_s: float = 11 * 3600.0
    crowd_rise_s: float = 90.0
    crowd_stays_s: float = 900.0
    crowd_fades_s: float = 900.0  # to 1/e of what it brought


def rates(day: Day, seed: int) -> Array:
    """[86400] requests that come in each second, Poisson around the day's course."""
    random = np.random.default_rng(seed)
    second = np.arange(DAY_S, dtype=np.float64)
    wave = (1 - np.cos((second - 4 * 3600) / DAY_S * 2 * np.pi)) / 2
    level = day.peak * (day.trough + (1 - day.trough) * wave)
    came: Array = random.poisson(level * _noise(day, random) * crowd(day, second))
    return came.astype(np.float64)


def crowd(day: Day, second: Array) -> Array:
    """Factor on the load: straight up, a plateau, then fading."""
    since = second - day.crowd_at_s
    rise = np.clip(since / day.crowd_rise_s, 0, 1)
    fade = np.exp(-np.maximum(0, since - day.crowd_rise_s - day.crowd_stays_s) / day.crowd_fades_s)
    factor: Array = 1 + (day.crowd - 1) * rise * fade
    return factor


def _noise(day: Day, random: np.random.Generator) -> Array:
    """A log-normal factor of mean 1, a random walk pulled back within `noise_s`."""
    step = 15
    kept = np.exp(-step / day.noise_s)
    pushes = random.normal(0, day.noise * np.sqrt(1 - kept**2), DAY_S // step + 1)
    walk = np.empty_like(pushes)
    state = random.normal(0, day.noise)
    for i, push in enumerate(pushes):
        state = kept * state + push
        walk[i] = state
    smooth = np.interp(np.arange(DAY_S), np.arange(len(walk)) * step, walk)
    factor: Array = np.exp(smooth - day.noise**2 / 2)
    return factor


def read(path: Path) -> Array:
    """A trace: requests of each second, one number a line."""
    found = np.loadtxt(path, ndmin=1, dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"{path} is no trace: write one number a line, the requests of a second")
    return found
