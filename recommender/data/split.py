"""Hold out what a model must predict: leave-one-out and temporal, as in docs/quality.md.

A split knows histories only. Training sees `Users`; each `Query` is a question with
its answer: what was known at the request, and the items that came after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recommender.contract import Array
from recommender.errors import DataError
from recommender.features import Request
from recommender.users import EMPTY, History, Users


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    user: int  # row of Users
    history: History  # what is known at the request
    request_time: int
    targets: Array  # [n] int64, distinct items, not in the history unless `repurchase`
    repurchase: bool = False  # what is in the history may be recommended again


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Choose on `valid` with models fitted on `train`; report `test` with models refitted on
    `train_valid`."""

    train: Users
    valid: tuple[Query, ...]
    train_valid: Users
    test: tuple[Query, ...]


def leave_one_out(users: Users, *, repurchase: bool = False) -> Split:
    """Per user, by time then row order: the last event to ask for is test, the one before it
    validation. What follows a held-out event is left out with it.

    Users without two of them stay in training whole. The request comes at the time of the
    history's last event: the target's own time would give it away.
    """
    test = _last_asked(users, repurchase)
    valid = _last_asked(_heads(users, np.where(test < 0, users.lengths, test)), repurchase)
    asked = (test >= 0) & (valid >= 0)
    if not asked.any():
        raise DataError(
            "leave-one-out needs users with three events or more to ask for, and there is none",
            remedy="Bring longer histories, or use --protocol temporal.",
        )
    train = _heads(users, np.where(asked, valid, users.lengths))
    train_valid = _heads(users, np.where(asked, test, users.lengths))
    return Split(
        train=train,
        valid=_next_item(users, train, repurchase),
        train_valid=train_valid,
        test=_next_item(users, train_valid, repurchase),
    )


def newest(
    users: Users, most: int, seed: int, *, repurchase: bool = False
) -> tuple[Users, tuple[Query, ...]]:
    """Hold out the newest events of users to learn to mix by, each one asked for in its turn.

    A fifth of a user's events, at least one of two and at most `most`; an eighth of all events at
    most, of users drawn by `seed`. Gives what is left, and the queries.
    """
    eighth = max(1, len(users.items) // 8)
    most = min(most, eighth)
    held_out = np.where(users.lengths >= 2, np.clip(users.lengths // 5, 1, most), 0)
    held_out[_last_asked(users, repurchase) < users.lengths - held_out] = 0
    order = np.random.default_rng(seed).permutation(len(users))
    within = np.cumsum(held_out[order]) <= eighth
    held_out[order[~within]] = 0
    rest = _heads(users, users.lengths - held_out)
    return rest, _next_items(users, rest, repurchase)


def strangers(users: Users, known: Users, most: int) -> tuple[Query, ...]:
    """Users whose `known` history lacks later events, at most `most`, asked as if they had none:
    their features are known, and what they came to want is the answer. Asked after all that is
    known, since where there are no cuts in time one moment is as good as another."""
    found = _window(users, known, int(known.times.max(initial=0)) + 1)
    taken = np.linspace(0, len(found) - 1, min(most, len(found))).astype(int)
    return tuple(replace(found[place], history=EMPTY) for place in taken)


def cuts(
    users: Users, count: int, *, repurchase: bool = False
) -> list[tuple[Users, tuple[Query, ...]]]:
    """What was known at `count` moments of the later half, and what everybody who was active in
    the next tenth of the rows wanted from then on. None where timestamps are all the same."""
    times, found = np.sort(users.times), []
    for share in np.linspace(0.5, 0.9, count):
        moment = int(times[int(len(times) * share)])
        ends = int(len(times) * (share + 0.1))
        end = int(times[ends]) if ends < len(times) else int(times[-1]) + 1
        if times[0] < moment < end:
            known = before(users, moment)
            found.append((known, _window(before(users, end), known, moment, repurchase)))
    return found


def temporal(users: Users, *, repurchase: bool = False) -> Split:
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
        valid=_window(before(users, t_test), train, t_valid, repurchase),
        train_valid=train_valid,
        test=_window(users, train_valid, t_test, repurchase),
    )


def before(users: Users, time: int) -> Users:
    """Only the events before `time`; users stay, with empty histories if need be."""
    earlier = np.concatenate([[0], np.cumsum(users.times < time)])
    return _heads(users, np.diff(earlier[users.offsets]))


def _to_ask(users: Users, repurchase: bool) -> Array:
    """[events] bool: a target, not the user's first event, and an item new to the user unless
    `repurchase`."""
    user = np.repeat(np.arange(len(users)), users.lengths)
    asked = users.targets & (np.arange(len(user)) > users.offsets[user])
    if not repurchase:
        pair = user * (users.items.max(initial=0) + 1) + users.items
        new = np.zeros(len(user), bool)
        new[np.unique(pair, return_index=True)[1]] = True
        asked &= new
    return asked


def _last_asked(users: Users, repurchase: bool) -> Array:
    """[users] int64: the place in each history of its last event to ask for, -1 without one."""
    rows = np.flatnonzero(_to_ask(users, repurchase))
    user = np.searchsorted(users.offsets, rows, side="right") - 1
    last = np.full(len(users), -1)
    last[user] = rows - users.offsets[user]  # rows ascend: the last one stays
    return last


def _next_item(users: Users, known: Users, repurchase: bool) -> tuple[Query, ...]:
    """A query for each user whose `known` history lacks later events: the very next one."""
    queries = _next_items(users, known, repurchase)
    return tuple(q for q in queries if len(q.history) == known.lengths[q.user])


def _next_items(users: Users, known: Users, repurchase: bool) -> tuple[Query, ...]:
    """A query for each event that `known` lacks, asked when all before it are history."""
    queries, asked = [], _to_ask(users, repurchase)
    for row in np.flatnonzero(users.lengths > known.lengths):
        whole, first = users.history(row), int(users.offsets[row])
        later = range(int(known.lengths[row]), len(whole))
        for position in (p for p in later if asked[first + p]):
            history = whole[:position]
            queries.append(
                Query(
                    user=int(row),
                    history=history,
                    request_time=int(history.times[-1]),
                    targets=whole.items[position : position + 1],
                    repurchase=repurchase,
                )
            )
    return tuple(queries)


def _window(users: Users, known: Users, time: int, repurchase: bool = False) -> tuple[Query, ...]:
    """A query at `time` for each user with events after it, of items that are new unless
    `repurchase`."""
    queries, wanted = [], users.targets
    for row in np.flatnonzero(users.lengths > known.lengths):
        history = known.history(row)
        future = slice(int(users.offsets[row]) + len(history), int(users.offsets[row + 1]))
        targets = np.unique(users.items[future][wanted[future]])
        if not repurchase:
            targets = np.setdiff1d(targets, history.items)
        if len(targets):
            queries.append(
                Query(
                    user=int(row),
                    history=history,
                    request_time=time,
                    targets=targets,
                    repurchase=repurchase,
                )
            )
    return tuple(queries)


def _heads(users: Users, lengths: Array) -> Users:
    """The first `lengths[u]` events of each user (histories are in order of time)."""
    position = np.arange(len(users.items)) - np.repeat(users.offsets[:-1], users.lengths)
    return users.kept(position < np.repeat(lengths, users.lengths))


def requests(queries: Sequence[Query], users: Users) -> list[Request]:
    """What a server would be asked: the known history, none of which may come back but where
    repurchase is allowed."""
    return [
        Request(
            history=query.history,
            request_time=query.request_time,
            user_features=users.features[query.user],
            # newest first: what exceeds E is the oldest
            exclude=EMPTY.items if query.repurchase else query.history.items[::-1],
        )
        for query in queries
    ]
