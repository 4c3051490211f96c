"""A question and its answer -> what is wrong with the answer, nothing for a right one.

    count, no item twice, of the catalogue of the release that the answer names, nothing excluded
    or seen, the filter kept, scores that are numbers and descend

All that may change with the release is looked up in the one that the answer names: an answer
that mixes two is found out. Knows no protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from math import isfinite
from pathlib import Path

from client.load.questions import KEPT, Question
from recommender.contract import Array
from recommender.errors import ReleaseError
from recommender.release import Release, read_index, read_release


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Expected:
    """Of the answer to one question by one release."""

    items: int  # exactly this many
    seen: frozenset[str]  # none of these ids,
    excluded: frozenset[str]  # nor these,
    allowed: frozenset[str] | None  # all of these (None: of the catalogue)
    catalogue: frozenset[str]

    def fewer(self, items: int) -> Expected:
        return replace(self, items=min(items, self.items))


class Known:
    """One release, as far as answers are judged by it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.expected = lru_cache(KEPT)(self._expected)
        self._ids = release.catalogue.item_ids
        self._shown_again = bool(release.details.get("repurchase"))

    def read(self) -> None:
        """Its files, which are read when they are needed."""
        _ = self.of_category, self.ids, self.release.users

    @cached_property
    def ids(self) -> frozenset[str]:
        return frozenset(self._ids)

    @cached_property
    def of_category(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        catalogue = self.release.catalogue
        for item_id, names in zip(self._ids, catalogue.categories, strict=True):
            for name in names:
                found.setdefault(name, set()).add(item_id)
        return {name: frozenset(ids) for name, ids in found.items()}

    def named(self, indexes: Array | Sequence[int]) -> list[str]:
        """Ids of item indexes; an empty one where the catalogue has no such index."""
        size = len(self._ids)
        return [self._ids[i - 1] if 1 <= i <= size else "" for i in indexes]

    def seen(self, user_id: str | None) -> frozenset[str]:
        users = self.release.users
        row = None if user_id is None or self._shown_again else users.row(user_id)
        return frozenset() if row is None else frozenset(self.named(users.history(row).items))

    def narrowed(self, question: Question, wanted: int, *, seen: frozenset[str]) -> Expected:
        """Where `wanted` items are asked for and `seen` ones may not come back."""
        allowed = question.only
        if question.categories:
            some = (self.of_category.get(name, frozenset()) for name in question.categories)
            allowed = frozenset().union(*some)
        if allowed is not None:
            allowed &= self.ids
        pool = self.ids if allowed is None else allowed
        return Expected(
            items=min(wanted, len(pool - seen - question.forbidden)),
            seen=seen,
            excluded=question.forbidden,
            allowed=allowed,
            catalogue=self.ids,
        )

    def _expected(self, question: Question) -> Expected:
        seen = frozenset[str]() if question.exactly else self.seen(question.user_id)
        return self.narrowed(question, question.wanted, seen=seen)


class Releases:
    """Those of a repository, read when an answer first names them."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._known: dict[int, Known | None] = {}

    def read_all(self) -> None:
        """Now rather than in the middle of a run, whose pace it would disturb."""
        for number in read_index(self._repository).releases:
            if known := self.get(number):
                known.read()

    def add(self, release: Release) -> Known:
        known = self._known[release.version] = Known(release)
        return known

    def get(self, number: int) -> Known | None:
        """None for a release that the repository does not hold."""
        if number not in self._known:
            try:
                self.add(read_release(self._repository, number, verify=False))
            except ReleaseError:
                self._known[number] = None
        return self._known[number]


def fault(ids: Sequence[str], scores: Sequence[float], expected: Expected) -> str | None:
    """What is wrong with items (best first) and their scores."""
    if len(ids) != expected.items:
        return f"{len(ids)} items instead of {expected.items}"
    found = set(ids)
    if len(found) != len(ids):
        return "an item twice"
    if not found <= expected.catalogue:
        return "an item outside the catalogue"
    if not found.isdisjoint(expected.seen):
        return "an item the user has seen"
    if not found.isdisjoint(expected.excluded):
        return "an item that was excluded"
    if expected.allowed is not None and not found <= expected.allowed:
        return "an item that the filter does not let through"
    if not isfinite(sum(scores)):
        return "a score that is no number"
    if any(a < b for a, b in pairwise(scores)):
        return "scores not in order"
    return None
