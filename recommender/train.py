"""Train a family: choose on a part held out here, then refit on every row given.

    users ─┬─ last event of each ───────> queries ─> epochs, combiner's weights, metrics
           └─ the rest ─> encoder, signals ──┘
    all rows ─> encoder (that many epochs), signals, with those weights ─> graph

`fit` works on histories and is what evaluation uses too; `train` reads a data set
and writes a run folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import Config
from recommender.contract import Limits, exclude_size
from recommender.data.dataset import Dataset
from recommender.data.split import Query, last_event, requests
from recommender.errors import BadInput, DataError, shown
from recommender.evaluate import Judged, judge, rank
from recommender.models.combine import fit_weights
from recommender.models.deep import SIGNALS, Deep
from recommender.models.encoder import Encoder
from recommender.models.families import FAMILIES, Blueprint, fit_scorer
from recommender.models.graph import Graph
from recommender.models.learn import Progress, silent, train_encoder
from recommender.models.scorer import UserInputs
from recommender.runs import Run, begin, write
from recommender.users import Users

_HELD_OUT = 5000  # users whose last event is held out, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    graph: Graph
    metrics: Mapping[str, Any]  # of the held-out part
    details: Mapping[str, Any]


def blueprint_of(family: str, users: Users, dataset: Dataset, config: Config) -> Blueprint:
    """Limits and clock come from `users`, the rows that are trained on."""
    check_family(family)
    if not len(users.items):
        raise DataError("there is no event to train on", remedy="Bring interactions.")
    length = config.training.length
    row = np.repeat(np.arange(len(users)), users.lengths)
    gaps = np.diff(users.times)[row[1:] == row[:-1]]
    return Blueprint(
        family=family,
        config=config,
        catalogue=dataset.catalogue,
        user_sizes=dataset.user_features.sizes,
        limits=Limits(
            user_features=dataset.user_features.width,
            category_words=dataset.catalogue.category_words,
            exclude=exclude_size(int(users.lengths.max())),
            length_buckets=(*(b for b in Limits.length_buckets if b < length), length),
        ),
        clock=int(users.times.max()) + int(gaps.max(initial=0)),
    )


def fit(
    blueprint: Blueprint,
    users: Users,
    *,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Choose on held-out last events of `users`, then refit on all of `users`.

    `checkpoints` is a folder to go on from after an interruption.
    """
    rest, queries = last_event(users, _HELD_OUT, blueprint.config.training.seed)
    if not queries:
        raise DataError(
            "no user has two different items or more: nothing can be held out to choose by",
            remedy="Bring longer histories.",
        )
    if blueprint.family == "deep":
        return _fit_deep(blueprint, users, rest, queries, checkpoints, progress)
    held_out = _judged(blueprint, fit_scorer(blueprint, rest), queries, rest)
    scorer = fit_scorer(blueprint, users)
    return Fitted(graph=blueprint.graph(scorer), metrics=held_out.to_json(), details={})


def _fit_deep(
    blueprint: Blueprint,
    users: Users,
    rest: Users,
    queries: Sequence[Query],
    checkpoints: Path | None,
    progress: Progress,
) -> Fitted:
    def phase(
        name: str, users: Users, epochs: int, score: Callable[[Encoder], float] | None
    ) -> tuple[Deep, list[float]]:
        torch.manual_seed(blueprint.config.training.seed)
        encoder = blueprint.encoder()
        scores = train_encoder(
            encoder,
            users,
            blueprint.config.training,
            epochs=epochs,
            score=score,
            checkpoint=checkpoints / f"checkpoint-{name}.pt" if checkpoints else None,
            progress=lambda what, done, total: progress(f"{name}, {what}", done, total),
        )
        scorer = fit_scorer(blueprint, users, encoder)
        assert isinstance(scorer, Deep)
        return scorer, scores

    def score(encoder: Encoder) -> float:
        judged = _judged(blueprint, _EncoderAlone(encoder), queries, rest)
        return float(judged.values["ndcg@10"].mean())

    scorer, scores = phase("search", rest, blueprint.config.training.epochs, score)
    held_out = _cross_judged(blueprint, scorer, queries, rest)
    weights = fit_weights(scorer, blueprint, queries, rest)
    epochs = int(np.argmax(scores)) + 1
    refitted, _ = phase("refit", users, epochs, None)
    refitted.weights = nn.Parameter(weights)
    return Fitted(
        graph=blueprint.graph(refitted),
        metrics=held_out.to_json(),
        details={
            "epochs": epochs,
            "curve": [round(s, 5) for s in scores],
            "combiner": [dict(zip(SIGNALS, row, strict=True)) for row in weights.tolist()],
        },
    )


class _EncoderAlone(nn.Module):
    """The encoder as a scorer, for early stopping."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = [encoder]  # in a list: not to be frozen with the graph around it
        self.table = encoder.item_table().detach()

    def forward(self, user: UserInputs) -> Tensor:
        (encoder,) = self.encoder
        query = encoder(user, self.table, last_only=True)
        return F.linear(query, self.table, encoder.bias)


def _judged(
    blueprint: Blueprint, scorer: nn.Module, queries: Sequence[Query], users: Users
) -> Judged:
    items, _ = rank(blueprint.graph(scorer), requests(queries, users), blueprint.limits)
    return judge(items, queries, len(blueprint.catalogue))


def _cross_judged(
    blueprint: Blueprint, scorer: Deep, queries: Sequence[Query], users: Users
) -> Judged:
    """Metrics in which no query is judged by combiner weights that were fitted on it."""
    halves, items = (queries[::2], queries[1::2]), []
    for fitted_on, asked in (halves[::-1], halves):
        if fitted_on:
            scorer.weights = nn.Parameter(fit_weights(scorer, blueprint, fitted_on, users))
        graph = blueprint.graph(scorer)
        items.append(rank(graph, requests(asked, users), blueprint.limits)[0])
    return judge(np.concatenate(items), [*halves[0], *halves[1]], len(blueprint.catalogue))


def train(
    dataset: Dataset,
    out: Path,
    *,
    users: Users | None = None,
    family: str = "deep",
    config: Config,
    resume: bool = False,
    progress: Progress = silent,
) -> Run:
    """Train `family` on `users` (default: every row of `dataset`) and write the run folder `out`.

    With `resume`, goes on with an interrupted training, and gives back a finished run.
    Raises RunError where `out` is taken, or was begun on other data or with another recipe.
    """
    users = dataset.users if users is None else users
    blueprint = blueprint_of(family, users, dataset, config)
    finished = begin(out, family=family, config=config, digest=dataset.digest, resume=resume)
    if finished is not None:
        return finished
    run = fit_run(blueprint, users, dataset, checkpoints=out, progress=progress)
    write(run, out)
    return run


def fit_run(
    blueprint: Blueprint,
    users: Users,
    dataset: Dataset,
    *,
    checkpoints: Path | None = None,
    progress: Progress = silent,
) -> Run:
    """`fit` on `users` (some rows of `dataset`), as a run not yet written."""
    started = time.monotonic()
    fitted = fit(blueprint, users, checkpoints=checkpoints, progress=progress)
    seconds = round(time.monotonic() - started, 1)
    return Run(
        blueprint=blueprint,
        graph=fitted.graph,
        users=users,
        user_features=dataset.user_features,
        mean_rating=dataset.mean_rating,
        digest=dataset.digest,
        metrics=fitted.metrics,
        details={**fitted.details, "seconds": seconds},
    )


def check_family(family: str) -> None:
    if family not in FAMILIES:
        raise BadInput(
            f"model {shown(family)} does not exist", remedy=f"Choose {', '.join(FAMILIES)}."
        )
