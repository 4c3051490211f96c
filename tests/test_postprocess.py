"""Diversity, caps, pins and boosts against a plain reading of their rules, on random lists."""

from __future__ import annotations

import numpy as np
import pytest

from bento.postprocess import AS_RANKED, Ranked, Wishes, arranged, without
from recommender.catalogue import Catalogue
from recommender.contract import Array

NAMES = [f"c{i}" for i in range(150)]  # three words of bits
RANDOM = np.random.default_rng(5)


def catalogue(items: int = 400, most: int = 4) -> Catalogue:
    """Items of none to `most` categories."""
    categories = [
        tuple(sorted(RANDOM.choice(NAMES[:: RANDOM.integers(1, 30)], RANDOM.integers(0, most + 1))))
        for _ in range(items)
    ]
    return Catalogue(
        item_ids=tuple(map(str, range(1, items + 1))),
        titles=(None,) * items,
        categories=tuple(tuple(dict.fromkeys(c)) for c in categories),
        popularity=np.ones(items, np.float32),
    )


ITEMS = catalogue()


def ranked(k: int = 100) -> Ranked:
    score = -np.sort(-RANDOM.normal(size=k)).astype(np.float32)
    return Ranked(RANDOM.choice(len(ITEMS), k, replace=False) + 1, score)


def wishes(**more: object) -> Wishes:
    """All of them at once, but for what `more` says."""
    every = {
        "diversity": 0.4,
        "max_per_category": 6,
        "pinned": np.array([7, 300, 12]),
        "category_boosts": ((ITEMS.category_mask(NAMES[:3]), 0.3),),
        "item_boosts": {5: 0.5, 9: -0.4},
    }
    return Wishes(**{**every, **more})


def plain(answer: Ranked, asked: Wishes) -> list[int]:
    """The rules as they are written down, item by item."""
    score = dict(zip(answer.item.tolist(), answer.score.astype(float).tolist(), strict=True))
    low, high = min(score.values()), max(score.values())
    names = {item: set(ITEMS.categories_of(item)) for item in range(1, len(ITEMS) + 1)}
    worth = {item: (s - low) / (high - low) for item, s in score.items()}
    for mask, by in asked.category_boosts:
        for item in worth:
            worth[item] += by if (ITEMS.category_words_table[item] & mask).any() else 0
    for item, by in asked.item_boosts.items():
        if item in worth:
            worth[item] += by
    shown: list[int] = asked.pinned.tolist()
    left = sorted((i for i in worth if i not in shown), key=lambda i: -worth[i])

    def alike(a: int, b: int) -> float:
        return len(names[a] & names[b]) / len(names[a] | names[b] or {0})

    def fits(item: int) -> bool:
        most = asked.max_per_category
        return most is None or all(
            sum(name in names[other] for other in shown) < most for name in names[item]
        )

    def gain(item: int) -> float:
        nearest = max((alike(item, other) for other in shown), default=0.0)
        return (1 - asked.diversity) * worth[item] - asked.diversity * nearest

    while open_ := [item for item in left if fits(item)]:
        best = max(open_, key=gain)  # of equals, the first: the better one
        shown.append(best)
        left.remove(best)
    return shown


def order(answer: Ranked, asked: Wishes, stop: int = 200) -> list[int]:
    return arranged(answer, asked, ITEMS, stop).item.tolist()


@pytest.mark.parametrize(
    "asked",
    [
        wishes(),
        wishes(diversity=0.0),
        wishes(diversity=1.0, max_per_category=None),
        wishes(max_per_category=1),
        wishes(pinned=np.zeros(0, np.int64)),
        Wishes(diversity=0.2),
        Wishes(item_boosts={3: 1.0}),
    ],
)
def test_a_list_is_arranged_as_the_rules_say(asked: Wishes) -> None:
    for _ in range(3):
        answer = ranked()
        assert order(answer, asked) == plain(answer, asked)


def test_pages_of_one_list_never_overlap_or_skip() -> None:
    answer, asked = ranked(), wishes()
    whole = order(answer, asked)
    assert len(whole) == len(set(whole)) > 50
    for stop in range(len(whole)):
        assert order(answer, asked, stop) == whole[:stop]


def test_what_nobody_wishes_changes_nothing() -> None:
    answer = ranked()
    assert arranged(answer, AS_RANKED, ITEMS, 100).item.tolist() == answer.item.tolist()
    assert order(answer, Wishes(diversity=0.0)) == answer.item.tolist()


def test_scores_stay_the_models_and_a_pinned_item_that_it_did_not_score_has_none() -> None:
    answer = ranked()
    given = dict(zip(answer.item.tolist(), answer.score.tolist(), strict=True))
    pin = next(item for item in range(1, len(ITEMS)) if item not in given)
    first = int(answer.item[40])
    shown = arranged(answer, wishes(pinned=np.array([pin, first])), ITEMS, 30)
    assert shown.item[:2].tolist() == [pin, first]
    assert np.isnan(shown.score[0]) and shown.score[1] == given[first]
    assert all(given[i] == s for i, s in list(zip(*map(Array.tolist, shown), strict=True))[1:])


def test_lists_that_are_empty_equal_or_single_are_no_special_case() -> None:
    none = Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert order(none, wishes()) == [7, 300, 12]
    assert order(none, wishes(pinned=np.zeros(0, np.int64))) == []
    one = Ranked(np.array([7]), np.array([0.5], np.float32))
    assert order(one, wishes()) == [7, 300, 12]
    equal = Ranked(np.arange(1, 41), np.ones(40, np.float32))
    assert order(equal, Wishes(item_boosts={9: 0.1}))[:3] == [9, 1, 2]


def test_what_did_not_fit_into_the_exclusions_is_dropped_afterwards() -> None:
    answer = ranked()
    left = without(answer, answer.item[[0, 5]])
    assert left.item.tolist() == np.delete(answer.item, [0, 5]).tolist()
    assert without(answer, np.zeros(0, np.int64)) is answer
