"""What is asked and what is shown, seen from afar: does the traffic still look like the training?

    recserve_asked_users_total{known}      ids the release knows, and those it does not
    recserve_asked_items_total{known}      of histories, exclusions, allow-lists
    recserve_shown_items / recserve_catalogue_items   coverage, of the last WINDOW_S to twice that
    recserve_shown_popularity_total / recserve_shown_total   where shown items stand, on average,
                                           in the order of popularity, 0 to 1 (the most popular)

Of /v1/recommend alone. Numbers, no ids. Costs a few microseconds a request.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from time import monotonic

import numpy as np

from bento.prometheus import CollectorRegistry, Counter, Gauge
from recommender.release import Release

WINDOW_S = 3600.0


class Drift:
    """Of one worker and the release that serves it; `follow` names another."""

    def __init__(self, registry: CollectorRegistry) -> None:
        users = Counter(
            "recserve_asked_users", "User ids of requests, by whether the release knows them.",
            ["known"], registry=registry,
        )  # fmt: skip
        items = Counter(
            "recserve_asked_items", "Item ids of requests, by whether the release knows them.",
            ["known"], registry=registry,
        )  # fmt: skip
        self._users = {known: users.labels(str(known).lower()) for known in (True, False)}
        self._items = {known: items.labels(str(known).lower()) for known in (True, False)}
        self._shown = Counter("recserve_shown", "Items shown.", registry=registry)
        self._popularity = Counter(
            "recserve_shown_popularity",
            "Of each item shown, the part of the catalogue that is less popular, summed up.",
            registry=registry,
        )
        self._catalogue = Gauge(
            "recserve_catalogue_items", "Items of the release that serves.", registry=registry
        )
        Gauge(
            "recserve_shown_items", "Different items shown lately (one to two hours).",
            registry=registry,
        ).set_function(self._covered)  # fmt: skip
        self._release: Release | None = None
        self._start(array("d", [0.0]))

    def follow(self, release: Release) -> None:
        if release is self._release:
            return
        count = len(release.catalogue)
        place = np.zeros(count + 1)
        place[release.catalogue.by_popularity] = np.linspace(1, 0, count) if count > 1 else 1.0
        self._release = release
        self._start(array("d", place.tobytes()))
        self._catalogue.set(count)

    def asked(self, *, user: bool | None, items: int, unknown: int) -> None:
        """One request: is its user known (None: it named none), how many ids it held."""
        if user is not None:
            self._users[user].inc()
        if items > unknown:
            self._items[True].inc(items - unknown)
        if unknown:
            self._items[False].inc(unknown)

    def shown(self, release: Release, indexes: Sequence[int]) -> None:
        """An answer; those of variants of another catalogue are not counted."""
        if release is not self._release or not indexes:
            return
        self._turn()
        place, seen = self._place, self._seen
        for index in indexes:
            seen[index] = 1
        self._shown.inc(len(indexes))
        self._popularity.inc(sum([place[index] for index in indexes]))

    def _start(self, place: array[float]) -> None:
        self._place = place  # [N + 1], of each index
        self._seen, self._before = bytearray(len(place)), bytearray(len(place))
        self._since = monotonic()

    def _turn(self) -> None:
        if (passed := monotonic() - self._since) > WINDOW_S:
            fresh = bytearray(len(self._place))
            # What was seen before a long silence is of no window any more.
            self._before = self._seen if passed <= 2 * WINDOW_S else fresh
            self._seen, self._since = bytearray(len(self._place)), monotonic()

    def _covered(self) -> float:
        self._turn()
        either = np.frombuffer(self._seen, np.uint8) | np.frombuffer(self._before, np.uint8)
        return float(np.count_nonzero(either))
