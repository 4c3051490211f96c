"""Evaluate families under a protocol: train each on the protocol's rows by the same recipe, ask
the test queries, report with 95% intervals.

    REPORT_DIR/PROTOCOL.json             every figure
    REPORT_DIR/runs/PROTOCOL-MODEL/      every run: export, batch and serve take it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recommender.config import Config, to_json
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import Split, leave_one_out, requests, temporal
from recommender.errors import BadInput, shown
from recommender.evaluate import Judged, judge, rank
from recommender.metrics import paired_bootstrap
from recommender.models.learn import Progress, silent
from recommender.train import check_family, train

PROTOCOLS = {"leave-one-out": leave_one_out, "temporal": temporal}


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """`models[family][group][metric]` is {"mean", "half"}; `against[family]` is the paired
    bootstrap of NDCG@10, first family minus that one."""

    protocol: str
    queries: Mapping[str, int]  # group -> number of test queries
    models: Mapping[str, Mapping[str, Any]]
    against: Mapping[str, Any]
    data: str
    config: Mapping[str, Any]


def evaluate(
    dataset: Dataset,
    protocol: str,
    out: Path,
    *,
    families: Sequence[str],
    config: Config,
    resume: bool = False,
    progress: Progress = silent,
) -> Report:
    """Train and judge every family of `families`, the first being the one others are compared to.

    Runs already finished there are taken with `resume`, if data and recipe are the
    same; raises RunError otherwise.
    """
    if protocol not in PROTOCOLS:
        raise BadInput(
            f"protocol {shown(protocol)} does not exist", remedy=f"Choose {' or '.join(PROTOCOLS)}."
        )
    for family in families:
        check_family(family)
    split = PROTOCOLS[protocol](dataset.users)
    if not split.test:
        raise BadInput(
            f"the {protocol} split leaves no test query", remedy="Bring more interactions."
        )
    groups = groups_of(protocol, split)
    judged: dict[str, Judged] = {}
    for family in families:
        run = train(
            dataset,
            out / "runs" / f"{protocol}-{family}",
            users=split.train_valid,
            family=family,
            config=config,
            resume=resume,
            progress=progress,
        )
        items, _ = rank(run.graph, requests(split.test, split.train_valid), run.blueprint.limits)
        judged[family] = judge(items, split.test, len(dataset.catalogue))
    first = families[0]
    report = Report(
        protocol=protocol,
        queries={name: len(rows) for name, rows in groups.items()},
        models={
            family: {name: _figures(j, name, rows) for name, rows in groups.items()}
            for family, j in judged.items()
        },
        against={
            family: asdict(paired_bootstrap(judged[first].values["ndcg@10"], j.values["ndcg@10"]))
            for family, j in judged.items()
            if family != first
        },
        data=dataset.digest,
        config=to_json(config),
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{protocol}.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    return report


def groups_of(protocol: str, split: Split) -> dict[str, Array]:
    """Rows of the test queries: all; in the temporal protocol also warm users (with an event in
    train) and strangers (with none at all)."""
    rows = np.arange(len(split.test))
    if protocol != "temporal":
        return {"all": rows}
    warm = np.array([split.train.lengths[q.user] > 0 for q in split.test])
    stranger = np.array([len(q.history) == 0 for q in split.test])
    return {"all": rows, "warm": rows[warm], "no history": rows[stranger]}


def _figures(judged: Judged, group: str, rows: Array) -> dict[str, Any]:
    return (judged if group == "all" else judged.part(rows)).to_json()
