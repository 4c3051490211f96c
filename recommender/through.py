"""Evaluate what is served: a protocol's queries answered by a running server, judged by the same
code as in this process, and compared with it list by list.

    REPORT_DIR/runs/PROTOCOL-MODEL/    the run: exported, and served by whoever `ask` asks
    REPORT_DIR/PROTOCOL-through.json   every figure, and how far both ways to ask agree

Trains nothing. Knows no server: `ask` is given by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recommender import runs
from recommender.config import to_json
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import Query, Split, requests
from recommender.errors import RunError
from recommender.evaluate import Judged, drop_overflow, judge, rank
from recommender.models.learn import Progress, silent
from recommender.protocols import (
    Report,
    check_rows,
    compared,
    figures,
    groups_of,
    split_of,
    trained_on,
)
from recommender.runs import Run
from recommender.train import check_family

SHOWN = 20  # items of a list that are compared: what the metrics read
FOUR_DIGITS = 5e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """`item` [Q, K] int64 and `score` [Q, K] float32 in the order of the queries, as
    `recommender.evaluate.rank` gives them; `source` says who answered, for the report."""

    item: Array
    score: Array
    source: Mapping[str, Any]


Ask = Callable[[Run, Sequence[Query]], Answered]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far the server's answers are those of the graph in this process."""

    queries: int
    same_lists: int  # queries whose first 20 items are the same, in the same order
    largest_score_difference: float  # of items at the same rank, in those lists
    largest_figure_difference: float  # of all metrics, in all groups

    @property
    def holds(self) -> bool:
        """Every metric is equal to four digits."""
        return self.largest_figure_difference < FOUR_DIGITS


@dataclass(frozen=True, kw_only=True, eq=False)
class Through:
    """`report` holds the figures through the server; the others go by family."""

    report: Report
    source: Mapping[str, Mapping[str, Any]]
    in_process: Mapping[str, Mapping[str, Any]]  # family -> group -> metric, as in `report`
    agreement: Mapping[str, Agreement]

    def to_json(self) -> dict[str, Any]:
        """As PROTOCOL.json, and what is said of the server beside it."""
        agreement = {family: asdict(same) for family, same in self.agreement.items()}
        return {
            **self.report.to_json(),
            "source": self.source,
            "in_process": self.in_process,
            "agreement": agreement,
        }


def evaluate_through(
    dataset: Dataset,
    protocol: str,
    out: Path,
    *,
    families: Sequence[str],
    adapted: Sequence[Run] = (),
    ask: Ask,
    progress: Progress = silent,
) -> Through:
    """Judge the runs of an earlier `evaluate` into `out`, and `adapted` ones beside them, by the
    answers that `ask` brings.

    Raises RunError where a run is missing or not of this data, and what `ask` raises.
    """
    for family in families:
        check_family(family)
    split = split_of(dataset, protocol)
    groups = groups_of(protocol, split)
    for run in adapted:
        check_rows(run, dataset, split, protocol)
    found = {family: _run(dataset, protocol, out, family, split) for family in families}
    found |= {run.blueprint.family: run for run in adapted}
    judged: dict[str, Judged] = {}
    source: dict[str, Mapping[str, Any]] = {}
    in_process: dict[str, Mapping[str, Any]] = {}
    agreement: dict[str, Agreement] = {}
    for done, (family, run) in enumerate(found.items()):
        progress(f"{family}: {len(split.test):,} queries", done, len(found))
        asked, limits = requests(split.test, run.users), run.blueprint.limits
        served = ask(run, split.test)
        drop_overflow(served.item, served.score, asked, limits)
        item, score = rank(run.graph, asked, limits)
        judged[family] = judge(served.item, split.test, len(dataset.catalogue))
        here = figures(judge(item, split.test, len(dataset.catalogue)), groups)
        source[family], in_process[family] = served.source, here
        agreement[family] = _agreement(served, item, score, figures(judged[family], groups), here)
    recipe = next(iter(found.values())).blueprint.config
    report = compared(protocol, groups, judged, dataset.digest, to_json(recipe))
    through = Through(report=report, source=source, in_process=in_process, agreement=agreement)
    path = out / f"{protocol}-through.json"
    path.write_text(json.dumps(through.to_json(), indent=2) + "\n")
    return through


def _run(dataset: Dataset, protocol: str, out: Path, family: str, split: Split) -> Run:
    """The protocol's run of `family`; whatever else lies there would be judged on seen rows."""
    folder = out / "runs" / f"{protocol}-{family}"
    if not (folder / runs.FILE).is_file():
        raise RunError(
            f"{folder} holds no run to compare a server with",
            remedy=f"Run `recserve evaluate DIR --protocol {protocol} --out {out} --models "
            f"{family}` first, then export that run and serve it.",
        )
    run = runs.read(folder)
    if not trained_on(run, dataset, split.train_valid) or run.blueprint.family != family:
        raise RunError(
            f"{folder} was not trained on the {protocol} rows of this data folder",
            remedy="Name the data folder and --config of that evaluation, or another --out.",
        )
    return run


def _agreement(
    served: Answered, item: Array, score: Array, there: Mapping[str, Any], here: Mapping[str, Any]
) -> Agreement:
    same = (served.item[:, :SHOWN] == item[:, :SHOWN]).all(axis=1)
    shown = item[same, :SHOWN] > 0
    apart = np.abs(served.score[same, :SHOWN][shown] - score[same, :SHOWN][shown])
    return Agreement(
        queries=len(item),
        same_lists=int(same.sum()),
        largest_score_difference=float(apart.max(initial=0.0)),
        largest_figure_difference=max(
            abs(metric["mean"] - here[group][name]["mean"])
            for group, metrics in there.items()
            for name, metric in metrics.items()
        ),
    )
