"""Hold out what a model must predict: leave-one-out and temporal, as in docs/quality.md.

A split knows histories only. Training sees `Users`; each `Query` is a question with
its answer: what was known at the request, and the items that came after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recommender.contract import Array
from recommender.errors import DataError
from recommender.features import Request
from recommender.users import History, Users


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    user: int  # row of Users
    history: History  # what is known at the request; none of it is recommended again
    request_time: int
    targets: Array  # [n] int64, distinct items not in the history


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Choose on `valid` with models fitted on `train`; report `test` with models refitted on
    `train_valid`."""

    train: Users
    valid: tuple[Query, ...]
    train_valid: Users
    test: tuple[Query, ...]


def leave_one_out(users: Users) -> Split:
    """Per user, by time then row order: the last event is test, the one before validation.

    Users with fewer than three events stay in training whole. The request comes at the
    time of the history's last event: the target's own time would give it away.
    """
    kept = np.where(users.lengths >= 3, users.lengths, users.lengths + 2)
    if not (users.lengths >= 3).any():
        raise DataError(
            "leave-one-out needs users with three events or more, and there is none",
            remedy="Bring longer histories, or use --protocol temporal.",
        )
    train, train_valid = _heads(users, kept - 2), _heads(users, np.minimum(kept - 1, users.lengths))
    return Split(
        train=train,
        valid=_next_item(users, train),
        train_valid=train_valid,
        test=_next_item(users, train_valid),
    )


def last_event(users: Users, most: int, seed: int) -> tuple[Users, tuple[Query, ...]]:
    """Hold out the last event of (at most `most`, drawn by `seed`) users with two or more."""
    rows = np.flatnonzero(users.lengths >= 2)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    kept = users.lengths.copy()
    kept[rows] -= 1
    rest = _heads(users, kept)
    return rest, _next_item(users, rest)


def temporal(users: Users) -> Split:
    """All rows by time: the last tenth is test, the tenth before validation, whole instants.

    Every user active in a window is asked once, at its first moment.
    """
    times = np.sort(users.times)
    t_valid, t_test = (int(times[len(times) * part // 10]) for part in (8, 9))
    if not times[0] < t_valid < t_test:
        raise DataError(
            f"timestamps cannot be cut in time: 80% of rows lie before {t_valid}, 90% before "
            f"{t_test}, the first at {times[0]}",
            remedy="Use --protocol leave-one-out, or bring real timestamps.",
        )
    train, train_valid = before(users, t_valid), before(users, t_test)
    return Split(
        train=train,
        valid=_window(before(users, t_test), train, t_valid),
        train_valid=train_valid,
        test=_window(users, train_valid, t_test),
    )


def before(users: Users, time: int) -> Users:
    """Only the events before `time`; users stay, with empty histories if need be."""
    earlier = np.concatenate([[0], np.cumsum(users.times < time)])
    return _heads(users, np.diff(earlier[users.offsets]))


def _next_item(users: Users, known: Users) -> tuple[Query, ...]:
    """A query for each user whose `known` history lacks later events: the very next one."""
    queries = []
    for row in np.flatnonzero(users.lengths > known.lengths):
        history, future = known.history(row), users.history(row)[len(known.history(row)) :]
        target = future.items[:1]
        if len(history) and not np.isin(target, history.items).any():
            time = int(history.times[-1])
            queries.append(Query(user=int(row), history=history, request_time=time, targets=target))
    return tuple(queries)


def _window(users: Users, known: Users, time: int) -> tuple[Query, ...]:
    """A query at `time` for each user with new items after it."""
    queries = []
    for row in np.flatnonzero(users.lengths > known.lengths):
        history, future = known.history(row), users.history(row)[len(known.history(row)) :]
        targets = np.setdiff1d(future.items, history.items)
        if len(targets):
            queries.append(
                Query(user=int(row), history=history, request_time=time, targets=targets)
            )
    return tuple(queries)


def _heads(users: Users, lengths: Array) -> Users:
    """The first `lengths[u]` events of each user (histories are in order of time)."""
    position = np.arange(len(users.items)) - np.repeat(users.offsets[:-1], users.lengths)
    keep = position < np.repeat(lengths, users.lengths)
    return Users(
        user_ids=users.user_ids,
        features=users.features,
        offsets=np.concatenate([[0], np.cumsum(np.minimum(lengths, users.lengths))]),
        items=users.items[keep],
        times=users.times[keep],
        weights=users.weights[keep],
    )


def requests(queries: Sequence[Query], users: Users) -> list[Request]:
    """What a server would be asked: the known history, none of which may come back."""
    return [
        Request(
            history=query.history,
            request_time=query.request_time,
            user_features=users.features[query.user],
            exclude=query.history.items[::-1],  # newest first: what exceeds E is the oldest
        )
        for query in queries
    ]
