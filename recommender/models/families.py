"""Model families by name: fit their tables, build their graph, load it again from a state.

    deep         encoder + signals (deep.py)
    item-knn     neighbours of the history (baselines.py)
    popularity   total counts (baselines.py)

Every family becomes a `Graph`, so evaluation, export and serving know one thing only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recommender.catalogue import Catalogue
from recommender.config import Config
from recommender.contract import Limits
from recommender.errors import RunError, shown
from recommender.models.baselines import ItemKNN, Popularity
from recommender.models.deep import Deep
from recommender.models.encoder import Encoder
from recommender.models.graph import Graph
from recommender.models.signals import (
    ItemToItem,
    Neighbours,
    Trend,
    TrendTable,
    fit_neighbours,
    fit_popularity,
    fit_trend,
)
from recommender.users import Users

FAMILIES = ("deep", "item-knn", "popularity")


@dataclass(frozen=True, kw_only=True, eq=False)
class Blueprint:
    """All that a model's shape depends on."""

    family: str
    config: Config
    catalogue: Catalogue
    user_sizes: tuple[int, ...]  # indexes per user column, 0 (unknown) included
    limits: Limits
    clock: int  # unix seconds, see graph.py

    @property
    def items(self) -> int:
        """N: items and padding."""
        return len(self.catalogue) + 1

    def graph(self, scorer: nn.Module) -> Graph:
        graph = Graph(scorer, catalogue=self.catalogue, limits=self.limits, clock=self.clock)
        return graph.eval().requires_grad_(False)

    def encoder(self) -> Encoder:
        return Encoder(
            self.config.encoder,
            item_categories=_category_shares(self.catalogue),
            user_sizes=self.user_sizes,
            max_length=self.limits.history,
        )


def fit_scorer(blueprint: Blueprint, users: Users, encoder: Encoder | None = None) -> nn.Module:
    """The family's scorer, its tables counted from `users`; deep brings its trained `encoder`."""
    family, signals = blueprint.family, blueprint.config.signals
    popularity = torch.from_numpy(fit_popularity(users, blueprint.items))
    if family == "popularity":
        return Popularity(popularity)
    similar = ItemToItem(fit_neighbours(users, blueprint.items, signals), signals.decay)
    if family == "item-knn":
        return ItemKNN(similar, popularity)
    assert encoder is not None
    trend = TrendTable(fit_trend(users, blueprint.items, signals))
    return Deep(encoder, similar, trend, popularity)


def load_graph(blueprint: Blueprint, state: Mapping[str, Tensor]) -> Graph:
    """The graph that `state` (a state_dict) was saved from.

    Raises RunError where the state does not fit the blueprint.
    """
    try:
        graph = blueprint.graph(_empty_scorer(blueprint, state))
        graph.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RunError(
            f"weights do not fit a {blueprint.family} model of {len(blueprint.catalogue)} items: "
            f"{shown(reason, 160)}",
            remedy="Train the run again.",
        ) from error
    return graph


def _empty_scorer(blueprint: Blueprint, state: Mapping[str, Tensor]) -> nn.Module:
    """The scorer in the shapes of `state`; load_state_dict fills in the values."""
    popularity = torch.zeros(blueprint.items)
    if blueprint.family == "popularity":
        return Popularity(popularity)
    similar = ItemToItem(
        Neighbours(
            item=np.zeros(state["scorer.similar.item"].shape, np.int64),
            similarity=np.zeros(state["scorer.similar.similarity"].shape, np.float32),
        ),
        blueprint.config.signals.decay,
    )
    if blueprint.family == "item-knn":
        return ItemKNN(similar, popularity)
    bins = np.zeros(state["scorer.trend.score"].shape, np.float32)
    trend = TrendTable(Trend(score=bins, start=0, step=1))
    return Deep(blueprint.encoder(), similar, trend, popularity)


def _category_shares(catalogue: Catalogue) -> Tensor:
    """[N, C]: each item's categories, equal shares of 1; row 0 (padding) is zero."""
    column = {name: i for i, name in enumerate(catalogue.category_names)}
    shares = torch.zeros(len(catalogue) + 1, len(column))
    for row, names in enumerate(catalogue.categories, start=1):
        for name in names:
            shares[row, column[name]] = 1.0 / len(names)
    return shares
