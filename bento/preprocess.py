"""A request in ids -> a question in indexes, as the model of one release reads it.

Ids the release does not know are skipped and listed; what does not fit into the
model's exclusions is kept aside, for `bento/postprocess.py` to drop from the
answer. Knows no HTTP and no Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bento.schemas import Filter, RecommendRequest
from recommender.catalogue import Catalogue
from recommender.contract import Array
from recommender.features import Request
from recommender.release import Release
from recommender.users import EMPTY, History


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a filter leaves: `exclude` as indexes, `categories` that the catalogue knows."""

    exclude: Array  # [n] int64, the request's own first, then the newest seen
    categories: tuple[str, ...] | None  # None = no filter
    ignored: tuple[str, ...]

    @property
    def impossible(self) -> bool:
        """Categories were asked for, and the catalogue knows none of them."""
        return self.categories == ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    request: Request
    selection: Selection
    overflow: Array  # [n] int64 of `selection.exclude` beyond the model's E


def select(wanted: Filter, catalogue: Catalogue) -> Selection:
    """A filter alone, as /v1/popular takes it."""
    exclude, unknown = _indexes(wanted.exclude, catalogue)
    categories = None
    if wanted.categories:
        categories = tuple(c for c in wanted.categories if catalogue.known_category(c))
        unknown += [c for c in wanted.categories if not catalogue.known_category(c)]
    return Selection(exclude=exclude, categories=categories, ignored=tuple(dict.fromkeys(unknown)))


def question(asked: RecommendRequest, release: Release, *, now: int) -> Question:
    """What `asked` asks of `release`; `now` (unix seconds) is used where it names no time."""
    catalogue, users, limits = release.catalogue, release.users, release.limits
    time = min(now if asked.context.time is None else asked.context.time, release.clock)
    row = None if asked.user_id is None else users.row(asked.user_id)
    stored = EMPTY if row is None else users.history(row)
    selection = select(asked.filter, catalogue)
    ignored = list(selection.ignored)

    history, seen = stored, stored.items[::-1]
    if asked.history is not None:
        items, unknown = _indexes(asked.history, catalogue)
        history = _untimed(items, time)
        seen = np.concatenate([items[::-1], seen])  # stored events stay seen
        ignored += unknown
    exclude = selection.exclude
    allow_seen = asked.allow_seen
    if allow_seen is None:
        allow_seen = bool(release.details.get("repurchase"))
    if not allow_seen and len(seen):
        exclude = np.concatenate([exclude, seen])
    if len(exclude) > limits.exclude:
        exclude = _distinct(exclude)

    features = None if row is None else users.features[row]
    if asked.user:
        features, unknown = _features(asked, release, features)
        ignored += unknown
    return Question(
        request=Request(
            history=history,
            request_time=time,
            user_features=features,
            exclude=exclude,
            category_mask=(
                None
                if selection.categories is None
                else catalogue.category_mask(selection.categories)
            ),
        ),
        selection=Selection(
            exclude=exclude,
            categories=selection.categories,
            ignored=tuple(dict.fromkeys(ignored)),
        ),
        overflow=exclude[limits.exclude :],
    )


def _features(
    asked: RecommendRequest, release: Release, stored: Array | None
) -> tuple[Array, list[str]]:
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
