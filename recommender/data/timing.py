"""What timestamps are worth: real moments, an order only, or nothing.

Many data sets carry made-up timestamps: all the same, the number of the row, a counter
per user. Recency, trends and sessions computed from those would be noise, so they are
told apart here by rules that can be explained in a line. Knows no files.
"""

from __future__ import annotations

import numpy as np

from recommender.contract import Array

REAL, ORDER, NONE = "real", "order", "none"

EARLY = 1e8  # March 1973: what lies before is rather a counter or a date such as 20240131
ENOUGH = 20  # values or gaps before a regularity is taken for made up
STEADY = 0.95  # share of equal gaps: a few rows may be missing from a counter
HOUR, DAY = 3_600, 86_400


def honest(users: Array, times: Array, kind: str) -> Array:
    """[events] float: `times` where they are REAL; else only what they are worth, a second apart.

    Of ORDER that is the number of the moment among all moments, of NONE the event's place in
    its user's history. Recency, gaps and trends then find no more than an order. Sorted as for
    `kind_of_time`.
    """
    if kind == REAL or not len(times):
        return times
    if kind == ORDER:
        place = np.unique(times, return_inverse=True)[1]
    else:
        begins = np.flatnonzero(np.diff(users, prepend=-1))
        place = np.arange(len(users)) - np.repeat(begins, np.diff(begins, append=len(users)))
    found: Array = np.floor(times.min()) + place
    return found


def kind_of_time(users: Array, times: Array) -> tuple[str, str]:
    """REAL, ORDER or NONE, and why.

    `users` [events] int, `times` [events] float seconds, sorted by user, then time; of all events
    that a file has, since a choice among them leaves gaps.
    """
    distinct = np.unique(times)
    if len(distinct) == 1:
        return NONE, f"all timestamps are {int(distinct[0])}"
    if np.median(times) < EARLY:
        return ORDER, (
            f"timestamps lie around {int(np.median(times))}, in the years 1970 to 1973: "
            "counters, or dates such as 20240131"
        )
    step, share = _usual(np.diff(distinct))
    if len(times) == len(distinct) >= ENOUGH and share >= STEADY:
        return ORDER, f"timestamps count the rows: every {step:g} s stands one event"
    gaps = np.diff(times)[users[1:] == users[:-1]]
    if len(gaps) and not gaps.any() and len(users) >= ENOUGH * len(np.unique(users)):
        each = len(users) / len(np.unique(users))
        return NONE, f"the events of a user, {each:,.0f} in the mean, all have one timestamp"
    gaps = gaps[gaps > 0]
    step, share = _usual(gaps)
    # Who comes every day leaves dates a day apart.
    counted = share == 1 or (share >= STEADY and step % DAY)
    if len(gaps) >= ENOUGH and len(distinct) >= 5 and counted:
        return ORDER, f"every user's events stand {step:g} s apart: counters"
    if len(times) >= 1_000 and distinct[-1] - distinct[0] < HOUR:
        return ORDER, f"all {len(times):,} events lie within one hour"
    return REAL, "nothing looks made up"


def _usual(gaps: Array) -> tuple[float, float]:
    """The most frequent of `gaps` [n], and its share of them; (0, 0) of none."""
    if not len(gaps):
        return 0.0, 0.0
    values, counts = np.unique(gaps, return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / len(gaps))
