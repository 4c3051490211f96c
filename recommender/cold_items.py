"""Rank new items against each other, and what a random order of them would reach.

Elsewhere a model ranks the whole catalogue; where new items are judged (data/hidden.py), it
ranks them alone. Knows a graph and queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from recommender.contract import Array
from recommender.data.split import Query
from recommender.evaluate import CUTOFFS, Judged
from recommender.models.graph import Graph
from recommender.models.scorer import Scorer, UserInputs
from recommender.models.selection import NEVER
from recommender.runs import Run

CHANCE = "random order"  # as a model's name in a report


class _Among(nn.Module):
    """The scores of `scorer`; only what stands in `shown` [N] bool can be answered."""

    def __init__(self, scorer: Scorer, shown: Tensor) -> None:
        super().__init__()
        self.scorer = scorer
        self.register_buffer("shown", shown)
        self.shown: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        scores_BN: Tensor = self.scorer(user)
        return scores_BN.masked_fill(~self.shown, NEVER)


def among(run: Run, items: Array) -> Graph:
    """The run's graph, answering with `items` (indexes) alone."""
    shown = torch.zeros(run.blueprint.items, dtype=torch.bool)
    shown[torch.from_numpy(items)] = True
    return run.blueprint.graph(_Among(run.graph.scorer, shown))


def chance(queries: Sequence[Query], candidates: int) -> Judged:
    """What a random order of `candidates` items gives on average, exactly, metric by metric.

    None of the items may be in a query's history.
    """
    wanted = np.array([len(q.targets) for q in queries], np.float64)
    values: dict[str, Array] = {}
    coverage = {}
    for cutoff in CUTOFFS:
        k = min(cutoff, candidates)
        rank = np.arange(k)
        # P(no hit among the first r): one factor for each place, none of them left at the end.
        missed = np.clip(1 - wanted[:, None] / (candidates - rank), 0, 1).cumprod(axis=1)
        before = np.concatenate([np.ones((len(wanted), 1)), missed[:, :-1]], axis=1)
        discount = 1 / np.log2(np.arange(2, cutoff + 2))
        ideal = discount.cumsum()[np.minimum(wanted, cutoff).astype(int) - 1]
        hits = k * wanted / candidates
        values |= {
            f"hr@{cutoff}": 1 - missed[:, -1],
            f"ndcg@{cutoff}": discount[:k].sum() * wanted / candidates / ideal,
            f"recall@{cutoff}": hits / wanted,
            f"precision@{cutoff}": hits / cutoff,
            f"f1@{cutoff}": 2 * hits / (wanted + cutoff),
            f"mrr@{cutoff}": ((before - missed) / (rank + 1)).sum(axis=1),
        }
        coverage[f"coverage@{cutoff}"] = 1 - (1 - k / candidates) ** len(wanted)
    users = np.array([q.user for q in queries], np.int64)
    return Judged(values=values, coverage=coverage, users=users)
