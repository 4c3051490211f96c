"""Events -> baskets: what one user did at one go, by equal timestamps or by a session gap.

A basket says what goes together, not in which order: within a session (gap > 0) the
order still counts, among equal timestamps it means nothing. Knows no torch.
"""

from __future__ import annotations

import numpy as np

from recommender.contract import Array
from recommender.data.timing import REAL
from recommender.users import Users

SESSION = 1_800  # seconds: the customary end of a visit to a web site
MANY_TIES = 0.3  # share of events that share their moment: then moments are the baskets
MANY_CLOSE = 0.2  # share of gaps within SESSION: then there are visits


def basket_of(users: Users, gap: int) -> Array:
    """[events] int64: the number of each event's basket within its user, from 0.

    A user's events at most `gap` seconds after the one before share its basket; with
    gap 0 those of equal timestamps.
    """
    first, begins = _begins(users, gap)
    number = np.cumsum(begins)
    within: Array = number - np.repeat(number[first], users.lengths[users.lengths > 0])
    return within


def place_in_basket(users: Users, gap: int) -> Array:
    """[events] int64: how many events of its basket come before each."""
    begins = _begins(users, gap)[1]
    place: Array = np.arange(len(begins)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    return place


def count_baskets(users: Users, gap: int) -> int:
    return int(_begins(users, gap)[1].sum())


def guess_gap(users: Users, kind: str) -> tuple[int, str]:
    """The session gap in seconds that fits the data, and why; `kind` is the time's."""
    if kind != REAL:
        return 0, "timestamps are no real moments: equal ones are one basket"
    first, _ = _begins(users, 0)
    within = np.ones(len(users.times), bool)
    within[first] = False
    gaps = np.diff(users.times, prepend=0)[within]
    if not len(gaps):
        return 0, "nobody has two events"
    ties = float((gaps == 0).mean())
    if ties >= MANY_TIES:
        return 0, f"{ties:.0%} of events come at the moment of the one before: moments are baskets"
    close = float((gaps <= SESSION).mean())
    if close >= MANY_CLOSE:
        return SESSION, f"{close:.0%} of events follow the one before within half an hour: visits"
    return 0, f"only {close:.0%} of events follow the one before within half an hour"


def _begins(users: Users, gap: int) -> tuple[Array, Array]:
    """Row of each non-empty history's first event, and [events] bool: a basket begins here."""
    first = users.offsets[:-1][users.lengths > 0]
    begins = np.diff(users.times, prepend=users.times[:1]) > gap
    begins[first] = True
    return first, begins
