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


def newest(users: Users, most: int, seed: int) -> tuple[Users, tuple[Query, ...]]:
    """Hold out the newest events of users to learn to mix by, each one asked for in its turn.

    A fifth of a user's events, at least one of two and at most `most`; an eighth of all events at
    most, of users drawn by `seed`. Gives what is left, and the queries.
    """
    held_out = np.where(users.lengths >= 2, np.clip(users.lengths // 5, 1, most), 0)
    order = np.random.default_rng(seed).permutation(len(users))
    within = np.cumsum(held_out[order]) <= max(1, len(users.items) // 8)
    held_out[order[~within]] = 0
    rest = _heads(users, users.lengths - held_out)
    return rest, _next_items(users, rest)


def cuts(users: Users, count: int) -> list[tuple[Users, tuple[Query, ...]]]:
    """What was known at `count` moments of the later half, and what everybody who was active in
    the next tenth of the rows wanted from then on. None where timestamps are all the same."""
    times, found = np.sort(users.times), []
    for share in np.linspace(0.5, 0.9, count):
        moment = int(times[int(len(times) * share)])
        ends = int(len(times) * (share + 0.1))
        end = int(times[ends]) if ends < len(times) else int(times[-1]) + 1
        if times[0] < moment < end:
            known = before(users, moment)
            found.append((known, _window(before(users, end), known, moment)))
    return found


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
    return tuple(q for q in _next_items(users, known) if len(q.history) == known.lengths[q.user])


def _next_items(users: Users, known: Users) -> tuple[Query, ...]:
    """A query for each event that `known` lacks, asked when all before it are history."""
    queries, wanted = [], users.targets
    for row in np.flatnonzero(users.lengths > known.lengths):
        whole, first = users.history(row), int(users.offsets[row])
        for position in range(max(1, int(known.lengths[row])), len(whole)):
            history, target = whole[:position], whole.items[position : position + 1]
            if wanted[first + position] and not np.isin(target, history.items).any():
                time = int(history.times[-1])
                queries.append(
                    Query(user=int(row), history=history, request_time=time, targets=target)
                )
    return tuple(queries)


def _window(users: Users, known: Users, time: int) -> tuple[Query, ...]:
    """A query at `time` for each user with new items after it."""
    queries, wanted = [], users.targets
    for row in np.flatnonzero(users.lengths > known.lengths):
        history = known.history(row)
        future = slice(int(users.offsets[row]) + len(history), int(users.offsets[row + 1]))
        targets = np.setdiff1d(users.items[future][wanted[future]], history.items)
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
        negative=None if users.negative is None else users.negative[keep],
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
