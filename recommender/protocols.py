"""Evaluate families under a protocol: train each on the protocol's rows by the same recipe, ask
the test queries, report with 95% intervals.

    REPORT_DIR/PROTOCOL.json             every figure
    REPORT_DIR/PROTOCOL.html             the same as a page, with plots
    REPORT_DIR/runs/PROTOCOL-MODEL/      every run: export, batch and serve take it
                                         (PROTOCOL-DRAW-MODEL of a --draw: other rows)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from recommender.cold_items import CHANCE, among, chance
from recommender.config import Config, to_json
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.hidden import cold_items, hidden_items
from recommender.data.split import Split, leave_one_out, requests, temporal
from recommender.data.timing import NONE
from recommender.errors import BadInput, DataError, RunError, shown
from recommender.evaluate import Judged, judge, rank
from recommender.metrics import paired_bootstrap
from recommender.models.learn import Progress, silent
from recommender.models.parts import parts
from recommender.report import leaks
from recommender.report.command import REPORTS, Source, again
from recommender.report.measure import Study, measure
from recommender.report.page import page
from recommender.runs import Run
from recommender.train import check_family, train
from recommender.users import Users

PROTOCOLS = {"leave-one-out": leave_one_out, "temporal": temporal}  # of the whole catalogue
COLD_ITEMS = "cold-items"  # of hidden items alone: only in this process
SPLITS = (*PROTOCOLS, COLD_ITEMS)
# What the paired bootstrap compares.
METRIC = {"leave-one-out": "ndcg@10", "temporal": "ndcg@10", COLD_ITEMS: "recall@10"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """`models[family][group][metric]` is {"mean", "half"}; `against[family]` is the paired
    bootstrap of the protocol's METRIC, first family minus that one."""

    protocol: str
    queries: Mapping[str, int]  # group -> number of test queries
    models: Mapping[str, Mapping[str, Any]]
    against: Mapping[str, Any]
    data: str
    config: Mapping[str, Any]
    judged: Mapping[str, Judged]  # what the figures are of
    groups: Mapping[str, Array]  # rows of the queries
    command: str | None = None  # that makes it again; None of what a server answered

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        kept = values.keys() - {"judged", "groups"}
        return {name: v for name, v in values.items() if name in kept and v is not None}


def evaluate(
    dataset: Dataset,
    protocol: str,
    out: Path,
    *,
    families: Sequence[str],
    runs: Sequence[Run] = (),
    config: Config,
    source: Source | None = None,
    draw: int = 0,
    resume: bool = False,
    progress: Progress = silent,
) -> Report:
    """Train and judge every family of `families`, the first being the one others are compared to,
    and judge `runs` beside them: those of adapted models. A deep model's parts are judged too.

    `source` is for the command that the report shows. `draw` says which items cold-items hides.
    Runs already finished there are taken with `resume`, if data and recipe are the same; raises
    RunError otherwise. Raises DataError where the split lets the future in.
    """
    for family in families:
        check_family(family)
    split = split_of(dataset, protocol, draw)
    for run in runs:
        check_rows(run, dataset, split, protocol)
    names = [*families, *(run.blueprint.family for run in runs)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadInput(f"{twice.pop()} is named more than once", remedy="Name each model once.")
    findings = leaks.check(dataset, split, protocol)
    leaks.refuse(findings)
    groups = groups_of(protocol, split)
    new = hidden_items(dataset.users, split) if protocol == COLD_ITEMS else None
    candidates = len(dataset.catalogue if new is None else new)
    source = source or Source(runs=("RUN",) * len(runs))
    rows = f"{protocol}-{draw}" if draw else protocol  # trained on: another draw, other runs
    folders = {family: f"{REPORTS}/runs/{rows}-{family}" for family in families}
    folders |= dict(zip(names[len(families) :], source.runs, strict=True))
    judged: dict[str, Judged] = {}
    answers: dict[str, Array] = {}
    training: dict[str, Mapping[str, Any]] = {}
    trained = (
        train(
            dataset,
            out / "runs" / f"{rows}-{family}",
            users=split.train_valid,
            family=family,
            config=config,
            resume=resume,
            progress=progress,
        )
        for family in families
    )
    for run in chain(trained, runs):
        graphs = {run.blueprint.family: run.graph if new is None else among(run, new)}
        if new is None:
            graphs |= parts(
                run.blueprint, split.train_valid, run.graph, trends=protocol == "temporal"
            )
        for name, graph in graphs.items():
            items, _ = rank(graph, requests(split.test, split.train_valid), run.blueprint.limits)
            judged[name] = judge(items, split.test, candidates)
            answers[name], training[name] = items, {}
        training[run.blueprint.family] = run.details
    if new is not None:
        judged[CHANCE] = chance(split.test, candidates)
    report = replace(
        compared(protocol, groups, judged, dataset.digest, to_json(config)),
        command=again(protocol, families, config, source, draw=draw),
    )
    study = Study(
        protocol=protocol,
        queries=report.queries,
        targets=sum(len(query.targets) for query in split.test),
        items=candidates,
        models={family: report.models[family] for family in answers},
        figures=measure(
            answers, split.test, train=split.train_valid, catalogue=dataset.catalogue, groups=groups
        ),
        training=training,
        runs=folders,
        leaks=findings,
        data=report.data,
        config=report.config,
        command=report.command or "",
        ablation=_ablation(protocol, config, source, draw),
    )
    out.mkdir(parents=True, exist_ok=True)
    content = {**asdict(study), **report.to_json(), "draw": draw}
    (out / f"{protocol}.json").write_text(json.dumps(content, indent=2) + "\n")
    (out / f"{protocol}.html").write_text(page(study))
    return report


def _ablation(protocol: str, config: Config, source: Source, draw: int) -> str:
    """The command that measures what each signal of the same deep model pays."""
    measured = replace(config, mixer=replace(config.mixer, ablate=1))
    return again(protocol, ["deep"], measured, replace(source, runs=()), draw=draw)


def trained_on(run: Run, dataset: Dataset, users: Users) -> bool:
    """The run's rows are `users` of `dataset`, no fewer and no more."""
    return run.digest == dataset.digest and all(
        np.array_equal(getattr(run.users, name), getattr(users, name))
        for name in ("offsets", "items", "times")
    )


def check_rows(run: Run, dataset: Dataset, split: Split, protocol: str) -> None:
    if not trained_on(run, dataset, split.train_valid):
        raise RunError(
            f"the run of {run.blueprint.family} is not of the {protocol} rows of this data folder",
            remedy=f"Make it by `recserve adapt DIR --protocol {protocol}`, same --config.",
        )


def compared(
    protocol: str,
    groups: Mapping[str, Array],
    judged: Mapping[str, Judged],
    data: str,
    config: Mapping[str, Any],
) -> Report:
    """Figures of every family of `judged`, and the first against each other one."""
    first, metric = next(iter(judged)), METRIC[protocol]
    return Report(
        protocol=protocol,
        queries={name: len(rows) for name, rows in groups.items()},
        models={family: figures(j, groups) for family, j in judged.items()},
        against={
            family: asdict(paired_bootstrap(judged[first].values[metric], j.values[metric]))
            for family, j in judged.items()
            if family != first
        },
        data=data,
        config=config,
        judged=judged,
        groups=groups,
    )


def split_of(dataset: Dataset, protocol: str, draw: int = 0) -> Split:
    """`divide`; raises BadInput where no test query is left, too."""
    split = divide(dataset, protocol, draw)
    if not split.test:
        raise BadInput(
            f"the {protocol} split leaves no test query", remedy="Bring more interactions."
        )
    return split


def divide(dataset: Dataset, protocol: str, draw: int = 0) -> Split:
    """Raises BadInput for an unknown protocol, or a `draw` where nothing is drawn; DataError where
    the data cannot be split so."""
    if protocol not in SPLITS:
        raise BadInput(
            f"protocol {shown(protocol)} does not exist", remedy=f"Choose {', '.join(SPLITS)}."
        )
    if protocol == "temporal" and dataset.time_kind == NONE:
        raise DataError(
            "the timestamps are worth nothing: there is no moment to cut at",
            remedy="Use --protocol leave-one-out, or bring real timestamps.",
        )
    if protocol == COLD_ITEMS:
        return cold_items(dataset.users, repurchase=dataset.repurchase, seed=draw)
    if draw:
        raise BadInput(
            f"draw is {draw}, and {protocol} draws nothing",
            remedy=f"Leave it out, or use --protocol {COLD_ITEMS}.",
            field="draw",
            value=draw,
        )
    return PROTOCOLS[protocol](dataset.users, repurchase=dataset.repurchase)


def groups_of(protocol: str, split: Split) -> dict[str, Array]:
    """Rows of the test queries: all; in the temporal protocol also warm users (with an event in
    train) and strangers (with none at all)."""
    rows = np.arange(len(split.test))
    if protocol != "temporal":
        return {"all": rows}
    warm = np.array([split.train.lengths[q.user] > 0 for q in split.test])
    stranger = np.array([len(q.history) == 0 for q in split.test])
    return {"all": rows, "warm": rows[warm], "no history": rows[stranger]}


def figures(judged: Judged, groups: Mapping[str, Array]) -> dict[str, Any]:
    """`Judged.to_json` of each group of `groups_of`."""
    return {
        name: (judged if name == "all" else judged.part(rows)).to_json()
        for name, rows in groups.items()
    }
