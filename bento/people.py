"""What a release knows of a user, and what the store has heard since -> one history.

    users.parquet of the release ┐
                                 ├─> oldest first, no act twice, nothing from before an erasure
    events of the store ─────────┘

Live events follow the rules of the training data (`recommender/acts.py`). Acts that were
collected, trained on and are still in the store stand in both, and count once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import ReferenceType, ref

import numpy as np

from bento.store import Past, Person
from bento.store.kept import Kept
from bento.store.recent import MOST_EVENTS
from recommender.contract import Array
from recommender.release import Release
from recommender.users import EMPTY, History


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """One user, as a release reads it."""

    history: History = EMPTY
    features: Array | None = None  # [U] int64; None = all unknown


NOBODY = Known()


def known(release: Release, user_id: str | None, person: Person | None) -> Known:
    """`person` is what the store knows, None where there is no store. Where it is away nobody is
    known: an erased user's past in the release must not come back."""
    if user_id is None:
        return NOBODY
    row = release.users.row(user_id)
    trained = (
        NOBODY
        if row is None
        else Known(history=release.users.history(row), features=release.users.features[row])
    )
    if person is None:
        return trained
    if person.forgotten is not None:
        # Attributes bear no date: what was erased is not asked whether it is old.
        later = trained.history.times > person.forgotten
        trained = Known(history=_part(trained.history, later))
    return replace(trained, history=_joined(trained.history, live(person.past, release)))


class People:
    """`known` of one release, put together once for as long as the store hands out the same
    `Person`, as it does while nobody writes of the user (`bento/store/recent.py`). Keeps no
    `Person` alive: Redis, which hands out a new one each time, would fill this with them."""

    def __init__(self, release: Release, most_events: int = MOST_EVENTS) -> None:
        self._release = release
        self._kept: Kept[tuple[ReferenceType[Person], Known]] = Kept(most_events)

    def known(self, user_id: str | None, person: Person | None) -> Known:
        if user_id is None or person is None:
            return known(self._release, user_id, person)
        if (kept := self._kept.find(user_id)) is not None and kept[0]() is person:
            return kept[1]
        found = known(self._release, user_id, person)
        # In events; one who has none takes room, too.
        self._kept.keep(user_id, (ref(person), found), 8 + len(found.history))
        return found


def until(history: History, time: int) -> History:
    """What had happened by `time`."""
    return _part(history, history.times <= time)


def live(past: Past, release: Release) -> History:
    """`past` as the release reads it: items it knows, weights of its data. Without what weighs
    nothing, and of an act repeated at once only the last."""
    acts, kinds = release.acts, {name: number for number, name in enumerate(set(past.events))}
    if not kinds:
        return EMPTY
    kind = np.fromiter(map(kinds.__getitem__, past.events), np.int64, len(past.events))
    weights = np.array([acts.weight(name) for name in kinds], np.float32)[kind]
    times = np.array(past.times, np.int64)
    items = release.catalogue.indexes(past.items)
    if not weights.all():
        some = weights != 0
        items, times, weights, kind = items[some], times[some], weights[some], kind[some]
    there = items > 0
    again = items[1:] == items[:-1]
    if acts.burst_seconds and again.any():
        again &= kind[1:] == kind[:-1]
        again &= times[1:] - times[:-1] <= acts.burst_seconds
        there[:-1] &= ~again
    heard = History(items=items, times=times, weights=weights)
    return heard if there.all() else _part(heard, there)


def _part(history: History, chosen: Array) -> History:
    return History(
        items=history.items[chosen], times=history.times[chosen], weights=history.weights[chosen]
    )


def _joined(trained: History, heard: History) -> History:
    if not len(heard):
        return trained
    if not len(trained):
        return heard
    new = ~np.isin(_keys(heard), _keys(trained))
    parts = [(trained.items, heard.items[new]), (trained.times, heard.times[new]),
             (trained.weights, heard.weights[new])]  # fmt: skip
    items, times, weights = (np.concatenate(part) for part in parts)
    order = np.argsort(times, kind="stable")
    return History(items=items[order], times=times[order], weights=weights[order])


def _keys(history: History) -> Array:
    """[n] int64: an item at a second."""
    return (history.items << 36) | history.times
