"""Answers of every family to the same queries -> the figures of a report.

    items [Q, K] of each family, queries, training rows -> Figures

Every figure is a mean over queries with half its 95% interval, or a paired bootstrap.
Knows no model and no page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recommender.catalogue import Catalogue
from recommender.contract import Array
from recommender.data.split import Query
from recommender.metrics import Estimate, estimate, per_query, resampled
from recommender.report.leaks import Finding
from recommender.users import Users

CUTOFFS = (1, 5, 10, 20, 50, 100)
BY_CUTOFF = ("ndcg", "hr", "recall", "mrr")
COMPARED = ("ndcg@10", "hr@10")
AT = 10  # the cut-off of everything that is not shown by cut-off
THIRDS = ("head", "middle", "tail")

Parts = Mapping[str, Array]  # name of a part of the test queries -> their rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """NDCG@10 of every family on a part of the test queries, or of their targets."""

    name: str
    queries: int
    models: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired bootstrap over queries: `first` minus `other`."""

    first: str
    other: str
    metric: str
    difference: float
    low: float  # of the 95% interval
    high: float
    above: float  # share of resamples in which `first` is ahead

    @property
    def significant(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class MostShown:
    item_id: str
    title: str | None
    share: float  # of the queries that have it among their first 10
    events: int  # in training


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    cutoffs: Mapping[str, Mapping[str, Mapping[int, Estimate]]]  # family -> metric -> k
    slices: Mapping[str, tuple[Slice, ...]]  # "history length", "target popularity", "group"
    comparisons: tuple[Comparison, ...]  # the first family minus every other, for COMPARED
    lead: Comparison | None  # the best family minus the runner-up, by NDCG@10
    most_shown: Mapping[str, tuple[MostShown, ...]]  # by family, the ten most recommended


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All that the page is drawn from, and what the JSON beside it holds."""

    protocol: str
    queries: Mapping[str, int]  # group -> number of test queries
    targets: int  # of all test queries together
    items: int  # of the catalogue
    models: Mapping[str, Mapping[str, Any]]  # family -> group -> metric -> {"mean", "half"}
    figures: Figures
    training: Mapping[str, Mapping[str, Any]]  # family -> details of its run: seconds, curve, ...
    runs: Mapping[str, str]  # family -> folder of its run; a deep model's parts have none
    leaks: tuple[Finding, ...]
    data: str  # digest
    config: Mapping[str, Any]
    command: str  # makes all of it again
    ablation: str  # the command that measures what each signal pays


def measure(
    answers: Mapping[str, Array],
    queries: Sequence[Query],
    *,
    train: Users,
    catalogue: Catalogue,
    groups: Parts,
) -> Figures:
    """`answers[family]` is [Q, K] int64, best first, in the order of `queries`; `train` the rows
    the families were trained on."""
    targets = [query.targets for query in queries]
    k_most = min(items.shape[1] for items in answers.values())
    values = {
        family: {k: per_query(items, targets, k) for k in CUTOFFS if k <= k_most}
        for family, items in answers.items()
    }
    ndcg = {family: by_k[AT]["ndcg"] for family, by_k in values.items()}
    compared = {
        family: {f"{name}@{AT}": by_k[AT][name] for name in ("ndcg", "hr")}
        for family, by_k in values.items()
    }
    return Figures(
        cutoffs={
            family: {
                name: {k: estimate(by_metric[name]) for k, by_metric in by_k.items()}
                for name in BY_CUTOFF
            }
            for family, by_k in values.items()
        },
        slices={
            "history length": _sliced(ndcg, by_history(queries)),
            "target popularity": _by_popularity(answers, targets, train, len(catalogue)),
            "group": _sliced(ndcg, groups),
        },
        comparisons=tuple(
            compare(next(iter(answers)), other, metric, compared)
            for metric in COMPARED
            for other in list(answers)[1:]
        ),
        lead=_lead(ndcg, compared),
        most_shown={
            family: _most_shown(items, train, catalogue) for family, items in answers.items()
        },
    )


def compare(
    first: str, other: str, metric: str, values: Mapping[str, Mapping[str, Array]]
) -> Comparison:
    """`values[family][metric]`: one value a query, [Q]."""
    a, b = values[first][metric], values[other][metric]
    means = resampled(a, b)
    low, high = np.quantile(means, [0.025, 0.975])
    return Comparison(
        first=first,
        other=other,
        metric=metric,
        difference=float((a - b).mean()),
        low=float(low),
        high=float(high),
        above=float((means > 0).mean()),
    )


def _lead(
    ndcg: Mapping[str, Array], compared: Mapping[str, Mapping[str, Array]]
) -> Comparison | None:
    best = sorted(ndcg, key=lambda family: -float(ndcg[family].mean()))
    return compare(best[0], best[1], "ndcg@10", compared) if len(best) > 1 else None


def by_history(queries: Sequence[Query]) -> dict[str, Array]:
    """Quarters of the queries by the length of the known history; those without one apart."""
    lengths = np.array([len(query.history) for query in queries])
    parts = {"no history": np.flatnonzero(lengths == 0)}
    known = lengths[lengths > 0]
    if len(known):
        low = int(known.min())
        for high in np.unique(np.quantile(known, [0.25, 0.5, 0.75, 1], method="inverted_cdf")):
            name = f"{low:,}" if low == high else f"{low:,} to {int(high):,}"
            parts[f"{name} events"] = np.flatnonzero((lengths >= low) & (lengths <= high))
            low = int(high) + 1
    return {name: rows for name, rows in parts.items() if len(rows)}


def popularity_thirds(train: Users, items: int) -> Array:
    """[items + 1] int64 position in THIRDS: the most popular items that share a third of all
    training events are head, the next third middle; 3 for an item without any event."""
    counts = np.bincount(train.items, minlength=items + 1)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    third = np.empty(items + 1, np.int64)
    third[order] = np.minimum(before * 3 // max(1, int(counts.sum())), 2)
    third[counts == 0] = 3
    return third


def _by_popularity(
    answers: Mapping[str, Array], targets: Sequence[Array], train: Users, items: int
) -> tuple[Slice, ...]:
    """A query counts in each third that holds a target of it, by those targets alone."""
    third = popularity_thirds(train, items)
    slices = []
    for part, name in enumerate((*THIRDS, "no event in training")):
        wanted = [t[third[t] == part] for t in targets]
        rows = np.array([row for row, t in enumerate(wanted) if len(t)], np.int64)
        if not len(rows):
            continue
        asked = [wanted[row] for row in rows]
        slices.append(
            Slice(
                name=f"{name}: {int((third[1:] == part).sum()):,} items",
                queries=len(rows),
                models={
                    family: estimate(per_query(given[rows], asked, AT)["ndcg"])
                    for family, given in answers.items()
                },
            )
        )
    return tuple(slices)


def _sliced(values: Mapping[str, Array], parts: Parts) -> tuple[Slice, ...]:
    return tuple(
        Slice(
            name=name,
            queries=len(rows),
            models={family: estimate(v[rows]) for family, v in values.items()},
        )
        for name, rows in parts.items()
        if len(rows)
    )


def _most_shown(items: Array, train: Users, catalogue: Catalogue) -> tuple[MostShown, ...]:
    shown = np.bincount(items[:, :AT].ravel(), minlength=len(catalogue) + 1)
    shown[0] = 0  # padding
    events = np.bincount(train.items, minlength=len(catalogue) + 1)
    order = np.argsort(-shown, kind="stable")[:10]
    return tuple(
        MostShown(
            item_id=catalogue.item_ids[item - 1],
            title=catalogue.titles[item - 1],
            share=float(shown[item] / len(items)),
            events=int(events[item]),
        )
        for item in order
        if shown[item]
    )
