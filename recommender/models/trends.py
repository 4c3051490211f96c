"""What is wanted now: popularity as it stood at any moment, item age, and taste by user feature.

Counted from histories; whatever happens at a moment never counts for a request of
that moment or before. What comes late in a visit says less of what everybody wants: one
who stays for hundreds of events would drown the others (docs/quality.md).
Memory: [half-lives, bins, N] float16, at most `_CELLS` of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recommender.config import SignalConfig
from recommender.contract import Array
from recommender.data.baskets import SESSION, place_in_basket
from recommender.users import Users

DAY = 86_400.0
NEVER_SEEN = 2**40  # unix seconds: an item that nobody has touched
_CELLS = 16_000_000
_LATE = 0.25  # the k-th event of a visit counts k to the power of minus this
_SMOOTH = 3.0  # events of an item by a group of users before its taste counts half


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    score: Array  # [H, bins, N] float16: log of decayed counts up to each bin's start, centred
    start: int  # unix seconds of bin 0
    step: int  # seconds per bin


def votes(users: Users) -> Array:
    """[events] float32: how much each event counts for its item; the first of a visit 1."""
    counted: Array = (1.0 + place_in_basket(users, SESSION)) ** -_LATE
    return counted.astype(np.float32)


def equal_votes(users: Users) -> Array:
    """[events] float32: every event counts 1."""
    return np.ones(len(users.items), np.float32)


def fit_trend(users: Users, items: int, config: SignalConfig, vote: Array) -> Trend:
    """Popularity at each of `trend_bins` moments, halving every half-life; the last of the H never
    halves. A request reads the last moment not after it. `vote` is [events], as of `votes`."""
    half_lives = [*config.half_life_days, np.inf]
    times, item, vote = (a[users.targets] for a in (users.times, users.items, vote))
    start, end = int(times.min()), int(times.max()) + 1
    bins = bins_of(config, items)
    step = max(1, -(-(end - start) // bins))

    # Row b holds events of bins before b; the last row (a request after all data) holds them all.
    bins = (end - start) // step + 2
    event_bin = (times - start) // step + 1
    score = np.zeros((len(half_lives), bins, items), np.float16)
    for which, half_life in enumerate(half_lives):
        age = (start + event_bin * step - times) / (half_life * DAY)
        counts = np.zeros((bins, items), np.float32)
        np.add.at(counts, (event_bin, item), vote * np.exp2(-age).astype(np.float32))
        fade = np.float32(2.0 ** (-step / (half_life * DAY)))
        for b in range(1, bins):
            counts[b] += counts[b - 1] * fade
        logs = np.log(counts + np.float32(0.5))
        score[which] = logs - logs[:, 1:].mean(axis=1, keepdims=True)
    return Trend(score=score, start=start, step=step)


def bins_of(config: SignalConfig, items: int) -> int:
    """Moments at which trends of so many items are tabulated, at most."""
    tables = len(config.half_life_days) + 1
    return max(1, min(config.trend_bins, _CELLS // (items * tables)))


def fit_popularity(users: Users, items: int, vote: Array) -> Array:
    """[N] float32: log of total counts, centred."""
    item, vote = users.items[users.targets], vote[users.targets]
    score: Array = np.log(np.bincount(item, weights=vote, minlength=items) + 0.5)
    centred: Array = (score - score[1:].mean()).astype(np.float32)
    return centred


def fit_first_seen(users: Users, items: int) -> Array:
    """[N] int64: unix seconds of each item's first event, NEVER_SEEN without one."""
    first = np.full(items, NEVER_SEEN)
    np.minimum.at(first, users.items, users.times)
    return first


def fit_affinity(users: Users, items: int, column: int, size: int) -> Array:
    """[size, N] float32: log of events seen / expected of users with that value, both plus
    `_SMOOTH`: about 0 for rare items, 0 for untouched ones and for unknown (value 0)."""
    rows = np.repeat(np.arange(len(users)), users.lengths)[users.targets]
    seen = np.zeros((size, items))
    np.add.at(seen, (users.features[rows, column], users.items[users.targets]), 1.0)
    expected = np.outer(seen.sum(axis=1), seen.sum(axis=0)) / max(1.0, seen.sum())
    affinity: Array = np.log((seen + _SMOOTH) / (expected + _SMOOTH)).astype(np.float32)
    affinity[0] = 0.0
    return affinity
