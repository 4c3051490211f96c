"""Ranked indexes and scores -> the items of an answer, by the caller's wishes.

    ranked, best first ─> boosted ─> pinned first, then picked one by one ─> a part of it ─> items
                                      (diversity, caps per category)

Every step reads the whole ranked list and none the part that is asked for, so that the pages of
one request fit together. Knows no HTTP and no Triton.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from client.api import Item
from recommender.catalogue import Catalogue
from recommender.contract import Array

NO_ITEMS = np.zeros(0, np.int64)


class Ranked(NamedTuple):
    """Items of the catalogue, best first."""

    item: Array  # [k] int64
    score: Array  # [k] float32; nan where no model has scored the item

    def where(self, kept: Array | slice) -> Ranked:
        """By a mask, indexes or a slice."""
        return Ranked(self.item[kept], self.score[kept])


@dataclass(frozen=True, kw_only=True, eq=False)
class Wishes:
    """What moves the items of a list, in indexes and category masks."""

    diversity: float = 0.0
    max_per_category: int | None = None
    pinned: Array = field(default_factory=lambda: NO_ITEMS)  # [p] int64, distinct
    category_boosts: tuple[tuple[Array, float], ...] = ()  # mask [W], amount
    item_boosts: Mapping[int, float] = field(default_factory=dict)


AS_RANKED = Wishes()


def without(ranked: Ranked, dropped: Array) -> Ranked:
    """What may be shown where `dropped` did not fit into the request's exclusions."""
    return ranked.where(~np.isin(ranked.item, dropped)) if len(dropped) else ranked


def popular(popularity: Array, item: Array) -> Ranked:
    """Items [k] int64 with their `popularity` [N] as score."""
    return Ranked(item, popularity[item - 1])


def arranged(ranked: Ranked, wishes: Wishes, catalogue: Catalogue, stop: int) -> Ranked:
    """The first `stop` of the list that `wishes` make of the `ranked` one.

    The first `stop` are the same for any larger `stop`.
    """
    if wishes is AS_RANKED:
        return ranked.where(slice(stop))
    relevance = _relevance(ranked, wishes, catalogue)
    order = np.argsort(-relevance, kind="stable")
    ranked, relevance = ranked.where(order), relevance[order]
    pinned, at = _pinned(wishes.pinned, ranked)
    rest = np.ones(len(ranked.item), bool)
    rest[at] = False
    ranked, relevance = ranked.where(rest), relevance[rest]
    if wishes.diversity or wishes.max_per_category is not None:
        kinds = _kinds(np.concatenate([pinned.item, ranked.item]), catalogue)
        picked = _picked(relevance, kinds, wishes, stop - len(pinned.item))
        ranked = ranked.where(picked)
    both = (np.concatenate(pair) for pair in zip(pinned, ranked, strict=True))
    return Ranked(*both).where(slice(stop))


def _relevance(ranked: Ranked, wishes: Wishes, catalogue: Catalogue) -> Array:
    """[k] float: 1 for the model's best, 0 for its last, and what boosts add.

    Scores of different models and users have no common scale; this has.
    """
    score = ranked.score.astype(np.float64)
    low, high = (score[-1], score[0]) if len(score) else (0.0, 0.0)
    relevance = (score - low) / (high - low) if high > low else np.zeros(len(score))
    words = catalogue.category_words_table[ranked.item]
    for mask, by in wishes.category_boosts:
        relevance[(words & mask).any(axis=1)] += by
    for item, by in wishes.item_boosts.items():
        relevance[ranked.item == item] += by
    return relevance


def _pinned(pinned: Array, ranked: Ranked) -> tuple[Ranked, Array]:
    """With the scores of those that were ranked, and the places [<= p] of these."""
    score = np.full(len(pinned), np.nan, np.float32)
    which, at = np.nonzero(pinned[:, None] == ranked.item)
    score[which] = ranked.score[at]
    return Ranked(pinned, score), at


def _kinds(items: Array, catalogue: Catalogue) -> Array:
    """[k, c] float32, 1 where an item has a category: of those that any of `items` has."""
    words = np.ascontiguousarray(catalogue.category_words_table[items])
    bits = np.unpackbits(words.view(np.uint8), axis=1)
    kinds: Array = bits[:, bits.any(axis=0)].astype(np.float32)
    return kinds


def _picked(relevance: Array, kinds: Array, wishes: Wishes, count: int) -> Array:
    """Places in `relevance` [k], at most `count`, one by one: maximal marginal relevance
    (Carbonell & Goldstein, 1998), within the caps.

    `kinds` [p + k, c] begins with the pinned items, which stand before all others. Two items are
    as alike as the categories they share among those they have (Jaccard). Ties go by place.
    """
    pinned, diversity, most = len(kinds) - len(relevance), wishes.diversity, wishes.max_per_category
    value = (1.0 - diversity) * relevance  # -inf: taken, or one of its categories is full
    nearest = np.zeros(len(value))  # how like it is to what comes before
    if diversity:
        alike = diversity * _alike(kinds)[:, pinned:]
        nearest, alike = alike[:pinned].max(axis=0, initial=0.0), alike[pinned:]
    counts, own, picked = kinds[:pinned].sum(axis=0), kinds[pinned:], list[int]()
    while True:
        if most is not None:
            value[own[:, counts >= most].any(axis=1)] = -np.inf
        if len(picked) >= min(count, len(own)):
            break
        at = int((value - nearest).argmax())
        if value[at] == -np.inf:
            break
        picked.append(at)
        value[at] = -np.inf
        counts += own[at]
        if diversity:
            np.maximum(nearest, alike[at], out=nearest)
    return np.array(picked, np.int64)


def _alike(kinds: Array) -> Array:
    """[k, k] float32, 0 to 1: the categories that two items share, of those that they have."""
    shared, size = kinds @ kinds.T, kinds.sum(axis=1)
    alike: Array = shared / np.maximum(size[:, None] + size - shared, 1.0)
    return alike


def items(
    part: Ranked, catalogue: Catalogue, *, first: int, pinned: Array = NO_ITEMS
) -> list[Item]:
    """In ids and titles; `first` is the rank of the first one."""
    always = set(pinned.tolist())
    scores = zip(part.item.tolist(), part.score.tolist(), strict=True)
    return [
        Item(
            item_id=catalogue.item_id(index),
            score=score if score == score else None,  # nan: no model has scored it
            rank=rank,
            title=catalogue.title(index),
            categories=catalogue.categories_of(index),
            pinned=index in always,
        )
        for rank, (index, score) in enumerate(scores, start=first)
    ]
