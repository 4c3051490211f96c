"""A release -> questions to ask of a server, and the check of every answer.

Users, histories and limits are the release's own, so a question costs the server
what a real one costs. Knows no server and no clock but the one it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from recommender.features import Request
from recommender.release import Release

MOST_USERS = 2000  # questions kept ready; their tensors are built once


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One user's question; `forbidden` holds the item indexes no answer may contain."""

    user_id: str
    request: Request
    forbidden: frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Item indexes and scores, best first, without padding.

    Index 0 is an item that the catalogue does not know.
    """

    items: Sequence[int]
    scores: Sequence[float]


def questions(release: Release, *, excludes: int, now: int, seed: int) -> list[Question]:
    """One question for each of up to 2,000 users of `release`, drawn by `seed`.

    Of the items a user has seen, the newest `excludes` are the request's
    exclusions; `now` is the request time in unix seconds.
    """
    users = release.users
    rows = np.random.default_rng(seed).permutation(len(users))[:MOST_USERS]
    return [_question(release, int(row), excludes, now) for row in rows] or [
        Question(user_id="nobody", request=Request(request_time=now), forbidden=frozenset())
    ]


def _question(release: Release, row: int, excludes: int, now: int) -> Question:
    users = release.users
    history = users.history(row)
    seen = list(dict.fromkeys(history.items[::-1].tolist()))[:excludes]  # newest first, once each
    return Question(
        user_id=users.user_ids[row],
        request=Request(
            history=history,
            request_time=now,
            user_features=users.features[row],
            exclude=np.asarray(seen, np.int64),
        ),
        forbidden=frozenset(seen),
    )


def shuffled(asked: Sequence[Question], seed: int) -> Iterator[Question]:
    """`asked` for ever, in a new order each round."""
    random = np.random.default_rng(seed)
    while True:
        yield from (asked[i] for i in random.permutation(len(asked)))


def fault(answer: Answer, question: Question, *, wanted: int, items: int) -> str | None:
    """What is wrong with `answer`, None for a right one.

    `wanted` is how many items were asked for, `items` how many the catalogue holds.
    """
    expected = min(wanted, items - len(question.forbidden))
    found = set(answer.items)
    if len(answer.items) != expected:
        return f"{len(answer.items)} items instead of {expected}"
    if len(found) != len(answer.items):
        return "an item twice"
    if not all(1 <= item <= items for item in found):
        return "an item outside the catalogue"
    if found & question.forbidden:
        return "an item the user has seen"
    if any(a < b for a, b in zip(answer.scores, answer.scores[1:], strict=False)):
        return "scores not in order"
    if not all(np.isfinite(answer.scores)):
        return "a score that is no number"
    return None
