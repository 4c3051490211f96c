"""Signals: tables counted from histories, and how each says its word about every item.

`fit_tables` counts; `Tables` holds the result as buffers, so that a state_dict carries it,
and answers inside the graph. What is learned lies elsewhere (mixer.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import HEADS, SOURCES, SignalConfig
from recommender.contract import Array
from recommender.data.content import similar_by_content
from recommender.models.cold import place_in_matrix, place_in_table
from recommender.models.itemtoitem import (
    Block,
    Neighbours,
    fit_basket,
    fit_ease,
    fit_following,
    fit_similar,
    strongest,
    without_itself,
)
from recommender.models.rest import Rest, taken_apart
from recommender.models.scorer import row_of_each, within
from recommender.models.trends import (
    DAY,
    Trend,
    fit_affinity,
    fit_first_seen,
    fit_popularity,
    fit_trend,
    votes,
)
from recommender.users import Users

_CELLS = 1_500_000  # items x neighbours of a table: 18 MB; above, the tables are narrower
_DENSE = 6_000  # items at most whose tables have a rest: it is taken from a dense matrix


def fit_tables(
    users: Users,
    content: sp.csr_array,
    like: sp.csr_array,
    config: SignalConfig,
    *,
    session_gap: int,
    user_sizes: tuple[int, ...],
) -> dict[str, Tensor]:
    """The buffers of `Tables` for the signals in use. `content` is [N, F], unit rows; `like` is
    what untouched items take after (cold.py)."""
    items, use = content.shape[0], config.use
    config = replace(
        config, neighbours=neighbours_of(config, items), rest_rank=rest_rank_of(config, items)
    )
    vote = votes(users)
    state = {"popularity": torch.from_numpy(fit_popularity(users, items, vote))}
    for source in SOURCES:
        if not any(HEADS[head].source == source for head in use if head in HEADS):
            continue
        table, rest = _fit_source(source, users, content, like, config, session_gap)
        state[f"{source}_item"] = torch.from_numpy(_apart(table))
        state[f"{source}_weight"] = torch.from_numpy(table.weight)
        if rest is not None:
            state[f"{source}_left"] = torch.from_numpy(rest.left)
            state[f"{source}_right"] = torch.from_numpy(rest.right)
    if "trend" in use:
        state |= trend_buffers(fit_trend(users, items, config, vote))
    if "age" in use:
        state["first_seen"] = torch.from_numpy(fit_first_seen(users, items))
    if "affinity" in use:
        for column, size in enumerate(user_sizes):
            state[f"affinity_{column}"] = torch.from_numpy(fit_affinity(users, items, column, size))
    return state


def neighbours_of(config: SignalConfig, items: int) -> int:
    """Neighbours that a table keeps of each item, of so many in the catalogue."""
    return min(config.neighbours, max(50, _CELLS // items))


def rest_rank_of(config: SignalConfig, items: int) -> int:
    """That of the rest; 0 where the neighbours are all there is."""
    return config.rest_rank if items <= _DENSE + 1 else 0


def trend_buffers(trend: Trend) -> dict[str, Tensor]:
    return {
        "trend": torch.from_numpy(trend.score),
        "trend_start": torch.tensor(trend.start),
        "trend_step": torch.tensor(trend.step),
    }


def _fit_source(
    source: str, users: Users, content: sp.csr_array, like: sp.csr_array, config: SignalConfig,
    gap: int,
) -> tuple[Neighbours, Rest | None]:  # fmt: skip
    """A source's table with untouched items in their place, and its rest."""
    items, width, rank = content.shape[0], config.rest_neighbours, config.rest_rank
    if source == "repeat":
        own = np.arange(items)[:, None]
        return Neighbours(item=own, weight=(own > 0).astype(np.float32)), None
    if source == "content" and not rank:
        item, weight = similar_by_content(content, most=min(config.neighbours, items - 1))
        return Neighbours(item=item, weight=weight), None
    block = _rows_of(source, users, content, config, gap)
    if not rank:
        return place_in_table(strongest(block, items, config.neighbours), like), None
    matrix = np.concatenate([values for _, values in without_itself(block, items)])
    if source != "content":
        matrix = place_in_matrix(matrix, like)
    heard = np.bincount(users.items, minlength=items)
    return taken_apart(matrix, heard, width=width, rank=rank)


def _rows_of(
    source: str, users: Users, content: sp.csr_array, config: SignalConfig, gap: int
) -> Block:
    """What items say of items through a source, row by row."""
    items = content.shape[0]
    if source == "ease":
        return fit_ease(users, items, config, recent=False)
    if source == "ease_recent":
        return fit_ease(users, items, config, recent=True)
    if source == "basket":
        return fit_basket(users, items, config, gap)
    if source == "following":
        return fit_following(users, items, config, gap)
    if source == "similar":
        return fit_similar(users, items, config)
    return lambda rows: (content[rows] @ content.T).toarray().round(6)


def _apart(table: Neighbours) -> Array:
    """[N, M]: `table.item`, with items of their own at the places that say nothing. Nothing is
    added to them; but to add again and again to one and the same is slow."""
    items, width = table.item.shape
    apart: Array = np.where(table.weight == 0, np.arange(width) % items, table.item)
    return apart


class Reading(NamedTuple):
    """What is asked of a table: which events of a history speak, and how strongly."""

    source: str
    history_BL: Tensor
    strength_BL1: Tensor

    def newest(self, count: int) -> Reading:
        """The same of the newest `count` events."""
        return self._replace(
            history_BL=self.history_BL[:, -count:], strength_BL1=self.strength_BL1[:, -count:]
        )


class Tables(nn.Module):
    """`state` is that of `fit_tables`, or of a state_dict to be loaded."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            self.register_buffer(name, value)
        self.sources = tuple(s for s in SOURCES if f"{s}_item" in state)
        columns = sum(name.startswith("affinity_") for name in state)
        self._affinities = tuple(f"affinity_{column}" for column in range(columns))
        sizes = torch.tensor([len(state[name]) for name in self._affinities], dtype=torch.int64)
        self.register_buffer("_affinity_sizes", sizes, persistent=False)
        self._affinity_sizes: Tensor
        self.trend: Tensor
        self.trend_start: Tensor
        self.trend_step: Tensor
        self.popularity: Tensor
        self.first_seen: Tensor

    def say(self, source: str, history_BL: Tensor, strength_BL1: Tensor) -> Tensor:
        """[B, N]: what the events of the history, as strong as given, say about every item."""
        item_BLM, said_BLM = self.say_each(source, history_BL, strength_BL1)
        if (rest := self.rest(source)) is not None:
            left_NR, right_RN = rest
            heard_BR = (strength_BL1.transpose(1, 2) @ F.embedding(history_BL, left_NR))[:, 0]
            said_BN = heard_BR @ right_RN
        else:
            said_BN = torch.zeros(
                history_BL.shape[0], getattr(self, f"{source}_item").shape[0],
                device=history_BL.device, dtype=said_BLM.dtype,
            )  # fmt: skip
        return said_BN.scatter_add(1, item_BLM.flatten(1), said_BLM.flatten(1))

    def say_each(
        self, source: str, history_BL: Tensor, strength_BL1: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[B, L, M] twice: the items that each event speaks of, and what it says of them; of all
        others it says what `rest` does."""
        item_NM, weight_NM = getattr(self, f"{source}_item"), getattr(self, f"{source}_weight")
        said_BLM = F.embedding(history_BL, weight_NM) * strength_BL1
        return F.embedding(history_BL, item_NM), said_BLM

    def rest(self, source: str) -> tuple[Tensor, Tensor] | None:
        """[N, R] and [R, N]: see rest.py. None where the neighbours are all there is."""
        left_NR = getattr(self, f"{source}_left", None)
        return None if left_NR is None else (left_NR, getattr(self, f"{source}_right"))

    def trends(self, request_time_B1: Tensor) -> Tensor:
        """[B, H, N]: of each half-life."""
        halves, bins, _ = self.trend.shape
        since_B1 = request_time_B1 - self.trend_start
        bin_B1 = torch.div(since_B1, self.trend_step, rounding_mode="floor")
        first_H = torch.arange(halves, device=bin_B1.device) * bins
        return F.embedding(within(bin_B1, 0, bins - 1) + first_H, self.trend.flatten(0, 1)).float()

    def age(self, request_time_B1: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] twice: log of days since the item was first seen, about -1 to 1; 1 if not yet."""
        since_BN = (request_time_B1 - self.first_seen).to(torch.float32).clamp(0, 2**31)
        return (1.0 + since_BN / DAY).log2() / 4.0 - 1.0, (since_BN <= 0).to(torch.float32)

    def affinity(self, features_BU: Tensor) -> Tensor:
        """[B, U, N]: of each user column."""
        tables = [getattr(self, name) for name in self._affinities]
        return F.embedding(row_of_each(features_BU, self._affinity_sizes), torch.cat(tables))
