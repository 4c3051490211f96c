"""Ask a graph a protocol's queries and judge its answers, by the same code for every family.

`rank` answers through a graph in this process; anything else that answers queries
(a live server) can be judged by `judge` just as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from recommender.contract import Array, Limits
from recommender.data.split import Query
from recommender.features import Request, tensors
from recommender.metrics import coverage, estimate, per_query
from recommender.models.graph import answer

CUTOFFS = (10, 20)


def rank(graph: nn.Module, asked: Sequence[Request], limits: Limits) -> tuple[Array, Array]:
    """`item` [Q, K] int64 and `score` [Q, K] float32, in the order of `asked`.

    Excluded items beyond the release's E are dropped, as the service does.
    """
    item = np.zeros((len(asked), limits.answers), np.int64)
    score = np.full((len(asked), limits.answers), -np.inf, np.float32)
    order = np.argsort([len(r.history) for r in asked], kind="stable")  # one bucket a batch
    for at in range(0, len(order), limits.max_batch_size):
        rows = order[at : at + limits.max_batch_size]
        answered = answer(graph, tensors([asked[r] for r in rows], limits), limits)
        item[rows], score[rows] = answered["item"], answered["score"]
    drop_overflow(item, score, asked, limits)
    return item, score


def drop_overflow(item: Array, score: Array, asked: Sequence[Request], limits: Limits) -> None:
    """What a request excludes beyond the release's E is the caller's to drop: in place."""
    for row, request in enumerate(asked):
        if len(request.exclude) > limits.exclude:
            drop_excluded(item[row], score[row], request.exclude)


def drop_excluded(item_K: Array, score_K: Array, exclude: Array) -> None:
    """Move the rest up, in place; freed places become index 0 with score -inf."""
    keep = ~np.isin(item_K, exclude)
    kept = int(keep.sum())
    item_K[:kept], score_K[:kept] = item_K[keep], score_K[keep]
    item_K[kept:], score_K[kept:] = 0, -np.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Per-query values by metric name ("ndcg@10"), and coverage by cut-off."""

    values: Mapping[str, Array]
    coverage: Mapping[str, float]
    users: Array  # [Q] int64, rows of those who asked

    def part(self, rows: Array) -> Judged:
        """The same for some of the queries (coverage left out: it belongs to the whole)."""
        return Judged(
            values={k: v[rows] for k, v in self.values.items()}, coverage={}, users=self.users[rows]
        )

    def by_user(self, user_ids: Sequence[str]) -> dict[str, float]:
        """NDCG@10 by id; `user_ids` are those of all rows, each of which asked once at most."""
        ids = [user_ids[row] for row in self.users]
        return dict(zip(ids, self.values["ndcg@10"].tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """{"ndcg@10": {"mean": ..., "half": ...}, ..., "coverage@10": {"mean": ...}}"""
        means = {name: asdict(estimate(v)) for name, v in self.values.items() if len(v)}
        return {**means, **{name: {"mean": share} for name, share in self.coverage.items()}}


def judge(items: Array, queries: Sequence[Query], catalogue_size: int) -> Judged:
    """`items` is [Q, K]: the answers to `queries`, in their order."""
    targets = [q.targets for q in queries]
    values: dict[str, Array] = {}
    for k in CUTOFFS:
        values |= {f"{name}@{k}": v for name, v in per_query(items, targets, k).items()}
    return Judged(
        values=values,
        coverage={f"coverage@{k}": coverage(items, k, catalogue_size) for k in CUTOFFS},
        users=np.array([q.user for q in queries], np.int64),
    )
