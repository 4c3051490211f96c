"""What is asked and what is shown, seen from afar: does the traffic still look like the training?

    recserve_asked_users_total{known}      ids the release knows, and those it does not
    recserve_asked_items_total{known}      of histories, exclusions, candidates
    recserve_shown_items / recserve_catalogue_items   coverage, of the last WINDOW_S to twice that
    recserve_shown_popularity              where shown items stand in the order of popularity, 0 to 1

Numbers alone, no ids. Costs a few microseconds a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Summary

from recommender.contract import Array
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
        self._popularity = Summary(
            "recserve_shown_popularity",
            "Of each shown item, the part of the catalogue that is less popular.",
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
        self._place: Array = np.zeros(1)
        self._seen, self._before, self._since = _none(0), _none(0), monotonic()

    def follow(self, release: Release) -> None:
        if release is self._release:
            return
        count = len(release.catalogue)
        place = np.zeros(count + 1)
        place[release.catalogue.by_popularity] = np.linspace(1, 0, count) if count > 1 else 1.0
        self._release, self._place = release, place
        self._seen, self._before, self._since = _none(count), _none(count), monotonic()
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
        if release is not self._release:
            return
        self._turn()
        for index in indexes:
            self._seen[index] = 1
            self._popularity.observe(self._place[index])

    def _turn(self) -> None:
        if monotonic() - self._since > WINDOW_S:
            self._before, self._seen = self._seen, _none(len(self._place) - 1)
            self._since = monotonic()

    def _covered(self) -> float:
        self._turn()
        return float(_either(self._seen, self._before))


def _none(count: int) -> bytearray:
    return bytearray(count + 1)


def _either(one: Iterable[int], other: Iterable[int]) -> int:
    return sum(1 for a, b in zip(one, other, strict=True) if a or b)
