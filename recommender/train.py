"""Train a family: choose on a part held out here, then refit on every row given.

    users ─┬─ newest events of each ───────────> next-item queries ──┐
           ├─ the rest ─> encoder, signals ────> a view of them      ├─> mixer, metrics
           └─ cuts in time ─> encoders, signals ─> views, windows  ──┘
    all rows ─> encoder (as many epochs as were best), signals, that mixer ─> graph

`fit` works on histories and is what evaluation uses too; `train` reads a data set
and writes a run folder.
"""

from __future__ import annotations

import copy
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
from recommender.data.split import Query, cuts, newest, requests
from recommender.errors import BadInput, DataError, shown
from recommender.evaluate import Judged, judge, rank
from recommender.models.deep import Deep
from recommender.models.encoder import Encoder
from recommender.models.families import FAMILIES, Blueprint, fit_scorer
from recommender.models.graph import Graph
from recommender.models.learn import Progress, silent, train_encoder
from recommender.models.mix import View, cut_views, fit_mixer, next_item_view
from recommender.models.mixer import Mixer
from recommender.models.scorer import UserInputs
from recommender.runs import Run, begin, write
from recommender.users import Users

_HELD_OUT = 3000  # next-item queries that early stopping asks, at most


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
        content=dataset.content,
        user_sizes=dataset.user_features.sizes,
        limits=Limits(
            user_features=dataset.user_features.width,
            category_words=dataset.catalogue.category_words,
            exclude=exclude_size(int(users.lengths.max())),
            length_buckets=(*(b for b in Limits.length_buckets if b < length), length),
        ),
        clock=int(users.times.max()) + int(gaps.max(initial=0)),
        session_gap=dataset.session_gap,
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
    config = blueprint.config
    rest, queries = newest(users, config.mixer.held_out, config.training.seed)
    if not queries:
        raise DataError(
            "no user has two different items or more: nothing can be held out to choose by",
            remedy="Bring longer histories.",
        )
    if blueprint.family == "deep":
        return _fit_deep(blueprint, users, rest, queries, checkpoints, progress)
    held_out = _judged(blueprint, fit_scorer(blueprint, rest), _last(queries), rest)
    scorer = fit_scorer(blueprint, users)
    return Fitted(graph=blueprint.graph(scorer), metrics=held_out.to_json(), details={})


def _last(queries: Sequence[Query]) -> list[Query]:
    """The newest query of each user: what a release's held-out metrics are measured on."""
    newest_of = {query.user: query for query in queries}
    return list(newest_of.values())


def _fit_deep(
    blueprint: Blueprint,
    users: Users,
    rest: Users,
    queries: Sequence[Query],
    checkpoints: Path | None,
    progress: Progress,
) -> Fitted:
    recipe = blueprint.config
    queries = _some(queries, recipe.mixer.queries)
    encoders = _Encoders(blueprint, checkpoints, progress)
    asked = _some(queries, _HELD_OUT)

    def score(encoder: Encoder) -> float:
        judged = _judged(blueprint, _EncoderAlone(encoder), asked, rest)
        return float(judged.values["ndcg@10"].mean())

    searched, curve = encoders.train("search", rest, recipe.training.epochs, score)
    views = _views(blueprint, encoders, searched, users, rest, queries)
    held_out = _cross_judged(blueprint, views, progress)
    mixer = _mixed(blueprint, views, progress)
    epochs = int(np.argmax(curve)) + 1 if curve else 0
    encoder, _ = encoders.train("refit", users, epochs, None)
    return Fitted(
        graph=blueprint.graph(blueprint.deep(users, encoder, mixer)),
        metrics=held_out.to_json(),
        details={"epochs": epochs, "curve": [round(s, 5) for s in curve]},
    )


class _Encoders:
    """Trains encoders of the blueprint on several parts of the rows, each with its checkpoint."""

    def __init__(self, blueprint: Blueprint, checkpoints: Path | None, progress: Progress) -> None:
        self.blueprint, self.checkpoints, self.progress = blueprint, checkpoints, progress
        self.used = "encoder" in blueprint.config.signals.use

    def train(
        self,
        name: str,
        users: Users,
        epochs: int,
        score: Callable[[Encoder], float] | None,
        start: Encoder | None = None,
    ) -> tuple[Encoder | None, list[float]]:
        """A fresh encoder, or a copy of `start` trained on; None where encoders are left out."""
        if not self.used:
            return None, []
        torch.manual_seed(self.blueprint.config.training.seed)
        encoder = copy.deepcopy(start) if start is not None else self.blueprint.encoder()
        scores = train_encoder(
            encoder,
            users,
            self.blueprint.config.training,
            epochs=epochs,
            score=score,
            checkpoint=self.checkpoints / f"checkpoint-{name}.pt" if self.checkpoints else None,
            progress=lambda what, done, total: self.progress(f"{name}, {what}", done, total),
        )
        return encoder, scores


def _views(
    blueprint: Blueprint,
    encoders: _Encoders,
    searched: Encoder | None,
    users: Users,
    rest: Users,
    queries: Sequence[Query],
) -> list[View]:
    """The next-item view, and one for each cut in time; all share a mixer, yet to be trained."""
    config, mixer = blueprint.config.mixer, blueprint.mixer()
    found: list[tuple[Deep, Sequence[Query], Users]] = []
    encoder = None
    for number, (known, asked) in enumerate(cuts(users, config.cuts)):
        epochs = config.cut_epochs if number == 0 else max(1, config.cut_epochs // 3)
        encoder, _ = encoders.train(f"cut {number + 1}", known, epochs, None, encoder)
        found.append((blueprint.deep(known, encoder, mixer), asked, known))
    next_items = next_item_view(blueprint.deep(rest, searched, mixer), queries, rest)
    return [next_items, *cut_views(found, len(queries))]


def _mixed(blueprint: Blueprint, views: Sequence[View], progress: Progress) -> Mixer:
    """A fresh mixer, trained on `views` and given to their scorers."""
    config = blueprint.config
    torch.manual_seed(config.training.seed)
    mixer = blueprint.mixer()
    for view in views:
        view.scorer.mixer = mixer
    fit_mixer(
        mixer, views, blueprint.limits, config.mixer, seed=config.training.seed, progress=progress
    )
    return mixer


def _some(queries: Sequence[Query], most: int) -> Sequence[Query]:
    """Every so many-th query, so that `most` are left."""
    if len(queries) <= most:
        return queries
    return [queries[i] for i in np.linspace(0, len(queries) - 1, most).astype(int)]


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


def _cross_judged(blueprint: Blueprint, views: Sequence[View], progress: Progress) -> Judged:
    """Metrics of the newest next item in which no user is judged by a mixer that has seen them."""
    items, judged = [], []
    for half in (0, 1):
        learned = [v.part(np.array([q.user % 2 != half for q in v.queries])) for v in views]
        _mixed(blueprint, [view for view in learned if len(view.queries)], progress)
        asked = [q for q in _last(views[0].queries) if q.user % 2 == half]
        graph = blueprint.graph(views[0].scorer)
        items.append(rank(graph, requests(asked, views[0].users), blueprint.limits)[0])
        judged += asked
    return judge(np.concatenate(items), judged, len(blueprint.catalogue))


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
        content_space=dataset.content_space,
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
