"""Exponential decay as one number an item: forward decay, kept as a logarithm.

    log2 of  sum over votes of  vote * 2 ** (its time / half-life)

A vote never changes after it was added, at whatever moment it arrives; the common factor
2 ** (-now / half-life) is applied on reading (Cormode, Shkapenyuk, Srivastava, Xu: Forward
Decay, ICDE 2009). The logarithm is what keeps the sum finite for all years to come.
"""

from __future__ import annotations

import math

from bento.store.base import DAY

LEAST = 1e-6  # votes; what has decayed below says nothing any more
NOTHING = 1e-9  # share of a sum that rounding leaves when all its votes are taken back


def exponent(time: int, half_life_days: float) -> float:
    return time / (half_life_days * DAY)


def plus(kept: float | None, vote: float, power: float) -> float:
    """The sum with one more vote, whose time is 2 ** `power`."""
    new = math.log2(vote) + power
    if kept is None:
        return new
    high, low = max(kept, new), min(kept, new)
    return high + math.log2(1.0 + 2.0 ** (low - high))


def minus(kept: float, vote: float, power: float) -> float | None:
    """The sum without a vote that is in it; None where nothing is left."""
    share = 2.0 ** (math.log2(vote) + power - kept)
    return None if share >= 1.0 - NOTHING else kept + math.log2(1.0 - share)


def votes(kept: float, now: float) -> float:
    """What is left of a sum when the exponent of the present is `now`."""
    return float(2.0 ** min(kept - now, 1000.0))


def least(now: float) -> float:
    """Sums below say nothing any more."""
    return now + math.log2(LEAST)
