"""How much an act counts in the item-to-item tables: held against dense numpy, and in a shop whose
purchases say more than its views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import events, write
from histories import users

from recommender import config
from recommender.config import SignalConfig
from recommender.contract import Array
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.split import requests
from recommender.evaluate import judge, rank
from recommender.metrics import paired_bootstrap
from recommender.models.families import fit_scorer
from recommender.models.itemtoitem import (
    Block,
    Neighbours,
    fit_basket,
    fit_ease,
    fit_following,
    fit_similar,
    strengths,
    strongest,
)
from recommender.protocols import split_of
from recommender.train import blueprint_of
from recommender.users import Users

ITEMS, GAP = 9, 100
SIGNALS = SignalConfig(shrink=2.0, ridge=0.5)
ROWS: dict[str, Callable[[Users], Block]] = {
    "similar": lambda who: fit_similar(who, ITEMS, SIGNALS),
    "basket": lambda who: fit_basket(who, ITEMS, SIGNALS, GAP),
    "following": lambda who: fit_following(who, ITEMS, SIGNALS, GAP),
    "ease": lambda who: fit_ease(who, ITEMS, SIGNALS, recent=False),
    "ease_recent": lambda who: fit_ease(who, ITEMS, SIGNALS, recent=True),
}


def table(name: str, who: Users) -> Neighbours:
    return strongest(ROWS[name](who), ITEMS, ITEMS)


def acts(*weights: float) -> Users:
    """Forty random histories, three in ten of whose acts are repeats; weights drawn of these."""
    rng = np.random.RandomState(4)
    found = users(
        *(
            [(int(item), int(time)) for item, time in zip(
                rng.randint(1, ITEMS, size), np.cumsum(rng.randint(0, 150, size)), strict=True)]
            for size in rng.randint(1, 12, 40)
        )
    )  # fmt: skip
    return replace(found, weights=rng.choice(weights, len(found.items)).astype(np.float32))


def dense(who_says: Neighbours) -> Array:
    found: Array = who_says.sparse().toarray()
    return found


@pytest.mark.parametrize("name", ROWS)
def test_acts_that_are_all_alike_give_the_tables_of_plain_acts(name: str) -> None:
    plain, bought = (table(name, acts(weight)) for weight in (1.0, 4.0))
    np.testing.assert_array_equal(plain.item, bought.item)
    np.testing.assert_array_equal(plain.weight, bought.weight)


@pytest.mark.parametrize("name", ROWS)
def test_ratings_count_as_plain_acts_however_low(name: str) -> None:
    plain, rated = table(name, acts(1.0)), table(name, acts(-1.5, 0.5, 1.5))
    np.testing.assert_array_equal(plain.weight, rated.weight)


def by_hand(who: Users, name: str) -> Array:
    """[ITEMS, ITEMS] of the definition, one event after the other."""
    strength = np.sqrt(who.weights / who.weights.mean())
    user = np.repeat(np.arange(len(who)), who.lengths)
    new = (np.diff(who.times, prepend=0) > GAP) | (np.diff(user, prepend=-1) != 0)
    basket, both = np.cumsum(new), np.zeros((ITEMS, ITEMS))
    if name == "following":
        for i in range(len(user)):
            for j in range(i + 1, min(i + 11, len(user))):
                if user[i] == user[j] and basket[i] != basket[j]:
                    both[who.items[i], who.items[j]] += strength[i] * strength[j] / (j - i)
        return without_diagonal(both / (np.sqrt(np.outer(both.sum(1), both.sum(0))) + 2.0))
    seen = np.zeros((len(user) + 1, ITEMS))
    for group, item, value in zip(basket if name == "basket" else user, who.items, strength,
                                  strict=True):  # fmt: skip
        seen[group, item] = max(seen[group, item], value)  # as the strongest of its acts
    both = seen.T @ seen
    if name == "ease":
        both += np.eye(ITEMS) * 0.5 * len(user) / (ITEMS - 1)
        inverse = np.linalg.inv(both[1:, 1:])
        found = np.zeros((ITEMS, ITEMS))
        found[1:, 1:] = -inverse / np.diag(inverse)
        return without_diagonal(found)
    norm = np.sqrt(np.outer(np.diag(both), np.diag(both))) + 2.0
    return without_diagonal(both / norm)


def without_diagonal(found: Array) -> Array:
    cleared: Array = np.where(np.eye(ITEMS, dtype=bool), 0.0, found)
    return cleared


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0, 4.0)], ids=str)
@pytest.mark.parametrize("name", ["similar", "basket", "following", "ease"])
def test_tables_are_those_of_the_definition(name: str, weights: tuple[float, ...]) -> None:
    who = acts(*weights)
    np.testing.assert_allclose(dense(table(name, who)), by_hand(who, name), atol=2e-5)


def test_an_act_of_weight_four_counts_as_four_in_sum_as_many_as_there_are() -> None:
    say = strengths(np.array([1.0, 1.0, 4.0], np.float32))
    np.testing.assert_allclose(say**2, [0.5, 0.5, 2.0], rtol=1e-6)


def test_what_is_returned_says_nothing_and_what_else_is_bought_counts_as_before() -> None:
    who = acts(1.0, 4.0)
    last = who.offsets[1:] - 1
    given_back = np.zeros(len(who.items), bool)
    given_back[last[::3]] = True
    weights = np.where(given_back, -2.0, who.weights).astype(np.float32)
    returned = replace(who, weights=weights, negative=given_back)
    kept = returned.kept(returned.targets)
    for name in ("similar", "ease"):
        found, wanted = table(name, returned), table(name, replace(kept, negative=None))
        np.testing.assert_array_equal(found.weight, wanted.weight)
        assert len(np.unique(kept.weights)) == 2


def test_without_shrinkage_an_item_that_nobody_touched_is_no_division_by_zero() -> None:
    who = acts(1.0, 4.0)
    items = ITEMS + 3
    found = strongest(fit_similar(who, items, replace(SIGNALS, shrink=0.0)), items, ITEMS)
    assert np.isfinite(found.weight).all() and not found.weight[ITEMS:].any()


# --- a shop of random views, whose purchases stay in a cluster


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Visits of two views of anything and a purchase from the user's own twelfth of the items; the
    last event of everybody, which leave-one-out asks for, is a purchase."""
    rng, rows, items, clusters = np.random.RandomState(0), [], 120, 12
    for user in range(1000):
        own = rng.permutation(np.arange(rng.randint(clusters), items, clusters))
        time = 1_735_689_600 + int(rng.randint(0, 60 * 86_400))
        for bought in own[:4]:
            for viewed in rng.randint(0, items, 2):
                rows.append((f"u{user}", f"i{viewed}", time, "view"))
                time += 60
            rows.append((f"u{user}", f"i{bought}", time, "purchase"))
            time += 3 * 86_400
    return write(
        tmp_path_factory.mktemp("shop"),
        interactions=events(*rows, columns="user_id item_id timestamp event"),
        items=pl.DataFrame({"item_id": [f"i{item}" for item in range(items)]}),
    )


def ndcg(dataset: Dataset, family: str) -> Array:
    split = split_of(dataset, "leave-one-out")
    blueprint = blueprint_of(family, split.train_valid, dataset, config.read())
    graph = blueprint.graph(fit_scorer(blueprint, split.train_valid))
    items, _ = rank(graph, requests(split.test, split.train_valid), blueprint.limits)
    found: Array = judge(items, split.test, len(dataset.catalogue)).values["ndcg@10"]
    return found


@pytest.mark.parametrize(("family", "gain"), [("item-knn", 1.05), ("ease", 1.3)])
def test_where_views_are_idle_purchases_are_found_by_purchases(
    shop: Path, family: str, gain: float
) -> None:
    """Neither family reads the weights of a history: what differs is what the table counted."""
    alike = load(shop, DataConfig(event_weights={"view": 1.0, "purchase": 1.0}))[0]
    weighted = load(shop)[0]
    assert sorted(set(weighted.users.weights.tolist())) == [1.0, 4.0]
    with_weights, without = ndcg(weighted, family), ndcg(alike, family)
    difference = paired_bootstrap(with_weights, without)
    assert difference.mean > difference.half
    assert with_weights.mean() > gain * without.mean()
