"""Means over seeds -> one HTML page of tables: what a model gets on average, seed by seed, and how
far chance in training moves it. Each seed's own page, with its plots, lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recommender.metrics import with_half
from recommender.report.markup import Node, Row, details, e, html, table
from recommender.report.sections import command, data_digest, named, signed

Models = Mapping[str, Mapping[str, Any]]  # family -> group -> metric -> {"mean", "half"}

_TOLD = (
    "Mean: of all seeds, ± half a 95% interval over queries, as in the report of one seed: what "
    "other users would make of it. Spread: the standard deviation over seeds, what chance in "
    "training makes of it; a model that draws nothing has none. Where items are hidden, each seed "
    "hides others: then chance in which they are is part of the spread, and a user counts by the "
    "mean of what they were asked."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedsStudy:
    protocol: str
    metric: str  # what the paired bootstrap compares
    queries: Mapping[str, int]  # group -> number of test queries
    mean: Models
    each: Mapping[int, Models]  # by seed
    against: Mapping[str, Mapping[str, float]]  # family -> Estimate of the first minus it
    data: str  # digest
    command: str  # makes all of it again


def page(study: SeedsStudy) -> str:
    groups = [group for group, count in study.queries.items() if count]
    return html(
        f"{study.protocol}: mean of {len(study.each)} seeds",
        _headline(study),
        *(_group(study, group) for group in groups),
        _against(study),
        e(
            "section",
            e("h2", "How to do it again"),
            data_digest(study.data),
            command(study.command),
        ),
    )


def _headline(study: SeedsStudy) -> Node:
    first, metric = next(iter(study.mean)), named(study.metric)
    seeds = ", ".join(map(str, study.each))
    values = [models[first]["all"][study.metric]["mean"] for models in study.each.values()]
    reached = with_half(study.mean[first]["all"][study.metric])
    return e(
        "header",
        e("p", f"recserve evaluate · {study.protocol} · {len(study.each)} seeds", class_="kicker"),
        e("h1", f"{first} reaches {metric} {reached} in the mean of seeds {seeds}"),
        e("p", f"From seed to seed {min(values):.4f} to {max(values):.4f}.", class_="lede"),
        e("p", _TOLD),
        e("p", "The page of each seed, with its plots and every figure: ",
          e("code", f"seed-{next(iter(study.each))}/{study.protocol}.html"), " and so on."),
    )  # fmt: skip


def _group(study: SeedsStudy, group: str) -> Node:
    shown = dict.fromkeys([study.metric, "ndcg@10", "hr@10"])
    further = [metric for metric in next(iter(study.mean.values()))[group] if metric not in shown]
    return e(
        "section",
        e("h2", f"{group}: {study.queries[group]:,} queries"),
        *(_seed_by_seed(study, group, metric) for metric in shown),
        details("Further metrics", *(_seed_by_seed(study, group, metric) for metric in further)),
    )


def _seed_by_seed(study: SeedsStudy, group: str, metric: str) -> Node:
    rows: list[Row] = []
    for family, of in study.mean.items():
        values = [models[family][group][metric]["mean"] for models in study.each.values()]
        seeds = [f"{value:.4f}" for value in values]
        rows.append([family, with_half(of[group][metric]), *seeds, f"{np.std(values, ddof=1):.4f}"])
    return table([named(metric), "mean", *(f"seed {seed}" for seed in study.each), "spread"], rows)


def _against(study: SeedsStudy) -> Node | None:
    if not study.against:
        return None
    first = next(iter(study.mean))
    rows: list[Row] = [
        [f"minus {family}", f"{signed(found['mean'])} ± {found['half']:.4f}"]
        for family, found in study.against.items()
    ]
    return e(
        "section",
        e("h2", f"{first} against every other"),
        e("p", "Paired bootstrap of each user's mean over seeds, ± half a 95% interval."),
        table([f"{first}'s {named(study.metric)}", "difference"], rows),
    )
