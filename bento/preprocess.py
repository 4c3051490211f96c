"""A request in ids -> a question in indexes, as the models of one release read it.

Ids the release does not know are skipped and listed; what does not fit into the
model's exclusions is kept aside, for `bento/postprocess.py` to drop from the
answer. Knows no HTTP and no Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bento.people import Known, until
from bento.postprocess import AS_RANKED, Wishes
from bento.schemas import Asking, Filter, RankRequest, RecommendRequest, Rules
from recommender.catalogue import Catalogue
from recommender.contract import Array, Limits
from recommender.features import Request
from recommender.release import Release
from recommender.users import EMPTY, History


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a filter leaves, in indexes and categories that the catalogue knows."""

    exclude: Array  # [n] int64, the request's own first, then blocked items, then the newest seen
    categories: tuple[str, ...] | None  # None = no filter
    only: Array | None  # [m] int64, distinct, all that may be returned; None = no allow-list
    ignored: tuple[str, ...]

    @property
    def impossible(self) -> bool:
        """Nothing of the catalogue can be the answer."""
        return self.categories == () or (self.only is not None and not len(self.only))

    def without(self, seen: Array) -> Selection:
        """Leaves out `seen` as well."""
        only = self.only
        return replace(
            self,
            exclude=np.concatenate([self.exclude, seen]) if len(self.exclude) else seen,
            only=None if only is None else only[~np.isin(only, seen)],
        )

    def among(self, items: Array) -> Selection:
        """Nothing but `items` [n], distinct."""
        only = items if self.only is None else self.only[np.isin(self.only, items)]
        return replace(self, only=only)

    def allows(self, items: Array, catalogue: Catalogue) -> Array:
        """[n] bool of `items` [n]."""
        allowed = ~np.isin(items, self.exclude)
        if self.only is not None:
            allowed &= np.isin(items, self.only)
        if self.categories is not None:
            wanted = catalogue.category_mask(self.categories)
            allowed &= (catalogue.category_words_table[items] & wanted).any(axis=1)
        return allowed


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    request: Request
    selection: Selection
    overflow: Array  # [n] int64 of `selection.exclude` beyond the model's E
    wishes: Wishes = AS_RANKED


def select(wanted: Filter, catalogue: Catalogue, blocked: Array) -> Selection:
    """A filter alone, as /v1/popular and /v1/similar take it; `blocked` [n] is never shown."""
    exclude, unknown = _indexes(wanted.exclude, catalogue)
    if len(blocked):
        exclude = np.concatenate([exclude, blocked])
    categories = None
    if wanted.categories:
        categories = tuple(c for c in wanted.categories if catalogue.known_category(c))
        unknown += [c for c in wanted.categories if not catalogue.known_category(c)]
    only = None
    if wanted.only is not None:
        only, strange = _indexes(wanted.only, catalogue)
        unknown += strange
    selection = Selection(
        exclude=exclude, categories=categories, only=None, ignored=tuple(dict.fromkeys(unknown))
    )
    if only is None:
        return selection
    only = _distinct(only)
    return replace(selection, only=only[selection.allows(only, catalogue)])


def question(
    asked: RecommendRequest, release: Release, known: Known, blocked: Array, *, now: int
) -> Question:
    """What `asked` asks of `release`, of a user of whom so much is `known`; `now` (unix seconds) is
    used where it names no time."""
    selection = select(asked.filter, release.catalogue, blocked)
    person = _person(asked, release, known, now)
    wishes, unknown = _wishes(asked, selection, release.catalogue)
    allow_seen = asked.allow_seen
    if allow_seen is None:
        allow_seen = bool(release.details.get("repurchase"))
    if not allow_seen and len(person.seen):
        selection = selection.without(person.seen)
    if person.ignored or unknown:
        ignored = (*selection.ignored, *person.ignored, *unknown)
        selection = replace(selection, ignored=tuple(dict.fromkeys(ignored)))
    return narrowed(selection, person.request, release, wishes)


def narrowed(
    selection: Selection, request: Request, release: Release, wishes: Wishes = AS_RANKED
) -> Question:
    """`request` with what `selection` leaves."""
    exclude, limits = selection.exclude, release.limits
    if len(exclude) > limits.exclude:
        exclude = _distinct(exclude)
        selection = replace(selection, exclude=exclude)
    mask = None
    if selection.categories is not None:
        mask = release.catalogue.category_mask(selection.categories)
    return Question(
        request=replace(request, exclude=exclude, category_mask=mask),
        selection=selection,
        overflow=exclude[limits.exclude :],
        wishes=wishes,
    )


def nothing_but(only: Array, request: Request, limits: Limits, items: int) -> Request | None:
    """`request` with all of the catalogue's `items` excluded but `only`, None where they do not
    fit into the model's exclusions."""
    if items - len(only) > limits.exclude:
        return None
    others = np.setdiff1d(np.arange(1, items + 1), only, assume_unique=True)
    return replace(request, exclude=others, category_mask=None)


def candidates(
    asked: RankRequest, release: Release, known: Known, blocked: Array, *, now: int
) -> tuple[Request, Array, tuple[str, ...]]:
    """Who asks, the candidates [n] int64, distinct and not blocked, and what is left out."""
    person = _person(asked, release, known, now)
    items, unknown = _indexes(asked.candidates, release.catalogue)
    allowed = ~np.isin(items, blocked)
    unknown += [release.catalogue.item_id(index) for index in items[~allowed].tolist()]
    ignored = tuple(dict.fromkeys((*unknown, *person.ignored)))
    return person.request, _distinct(items[allowed]), ignored


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """Who asks: `request` without any selection, the items seen, the newest first, and what the
    release does not know."""

    request: Request
    seen: Array  # [n] int64
    ignored: list[str]


def _person(asked: Asking, release: Release, known: Known, now: int) -> Person:
    catalogue = release.catalogue
    time = min(now if asked.context.time is None else asked.context.time, release.clock)
    ignored: list[str] = []

    history = known.history
    if asked.context.time is not None:  # asked as of then: nobody knew what came later
        history = until(history, asked.context.time)
    seen = history.items[::-1]
    if asked.history is not None:
        items, unknown = _indexes(asked.history, catalogue)
        history = _untimed(items, time)
        seen = np.concatenate([items[::-1], seen])  # stored events stay seen
        ignored += unknown
    features = known.features
    if asked.user:
        features, unknown = _features(asked, release, features)
        ignored += unknown
    return Person(
        request=Request(history=history, request_time=time, user_features=features),
        seen=seen,
        ignored=ignored,
    )


def _wishes(
    asked: RecommendRequest, selection: Selection, catalogue: Catalogue
) -> tuple[Wishes, list[str]]:
    """In indexes and category masks, and the ids and categories that are unknown.

    Pinned is what the filter allows; `selection` does not know of seen items yet.
    """
    rules = asked.rules
    if not asked.diversity and rules == Rules():
        return AS_RANKED, []
    pinned, unknown = _indexes(rules.pin, catalogue)
    pinned = _distinct(pinned)
    by_category, by_item = rules.boost.categories, rules.boost.items
    unknown += [name for name in by_category if not catalogue.known_category(name)]
    unknown += [item_id for item_id in by_item if not catalogue.index(item_id)]
    wishes = Wishes(
        diversity=asked.diversity,
        max_per_category=rules.max_per_category,
        pinned=pinned[selection.allows(pinned, catalogue)],
        category_boosts=tuple(
            (catalogue.category_mask([name]), by)
            for name, by in by_category.items()
            if catalogue.known_category(name)
        ),
        item_boosts={
            index: by for item_id, by in by_item.items() if (index := catalogue.index(item_id))
        },
    )
    return wishes, unknown


def _features(asked: Asking, release: Release, stored: Array | None) -> tuple[Array, list[str]]:
    """[U] int64: the request's columns, the stored ones where it names none; unknown columns."""
    known = {c.name for c in release.user_features.columns}
    features = release.user_features.indexes(asked.user)
    if stored is not None:
        kept = [i for i, c in enumerate(release.user_features.columns) if c.name not in asked.user]
        features[kept] = stored[kept]
    return features, [name for name in asked.user if name not in known]


def _untimed(items: Array, time: int) -> History:
    """A history that came without times and weights: all of it just now, all of it plain."""
    return History(
        items=items,
        times=np.full(len(items), time, np.int64),
        weights=np.ones(len(items), np.float32),
    )


def _indexes(item_ids: Sequence[str], catalogue: Catalogue) -> tuple[Array, list[str]]:
    """[n] int64 of the known ids, and the unknown ids."""
    if not item_ids:
        return EMPTY.items, []
    indexes = catalogue.indexes(item_ids)
    if indexes.all():
        return indexes, []
    unknown = [item_id for item_id, index in zip(item_ids, indexes, strict=True) if not index]
    return indexes[indexes > 0], unknown


def _distinct(indexes: Array) -> Array:
    """Without repetitions, in the order of first appearance: E places are all there are."""
    _, first = np.unique(indexes, return_index=True)
    return indexes[np.sort(first)]
