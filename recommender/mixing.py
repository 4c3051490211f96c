"""Views of what was asked at several moments -> a mixer trained on them, and its metrics.

A moment is what was known at some time, and the questions of then; its view has a scorer of
its own, and all views share one mixer. Trains no encoder; where a moment's comes from, and
which moments there are: fitting.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from recommender.contract import Array
from recommender.data.hidden import cold_items, hidden_items
from recommender.data.split import Query, requests
from recommender.errors import TrainingError
from recommender.evaluate import Judged, judge, rank
from recommender.models.encoder import Encoder
from recommender.models.families import Blueprint
from recommender.models.learn import Progress, silent
from recommender.models.mix import (
    UNTOUCHED,
    View,
    cut_views,
    fit_mixer,
    next_item_view,
    untouched_view,
)
from recommender.models.mixer import Mixer
from recommender.users import Users

_UNTOUCHED = 100  # items from which on some are hidden
_ASKED_OF_THEM = 1000  # questions for hidden items, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """What was known at some time, the encoder trained on it, and what was asked then."""

    encoder: Encoder | None
    users: Users
    queries: Sequence[Query]


def views_of(blueprint: Blueprint, moments: Sequence[Moment]) -> list[View]:
    """The next-item view, and one for each later moment; all share a mixer, yet to be trained."""
    mixer, (now, *others) = blueprint.mixer(), moments
    scorer = blueprint.deep(now.users, now.encoder, mixer)
    found = [
        (
            scorer if moment.users is now.users
            else blueprint.deep(moment.users, moment.encoder, mixer),
            moment.queries,
            moment.users,
        )
        for moment in others
    ]  # fmt: skip
    return [
        next_item_view(scorer, now.queries, now.users),
        *cut_views(found, len(now.queries)),
        *_untouched(blueprint, now, mixer),
    ]


def _untouched(blueprint: Blueprint, now: Moment, mixer: Mixer) -> list[View]:
    """A view without all that happened to a tenth of the items; none of tiny catalogues."""
    if len(np.unique(now.users.items)) < _UNTOUCHED:
        return []
    seed = blueprint.config.training.seed + 1
    split = cold_items(now.users, repurchase=blueprint.repurchase, seed=seed)
    scorer = blueprint.deep(split.train, now.encoder, mixer)
    hidden = hidden_items(now.users, split)
    asked = thinned(split.test, _ASKED_OF_THEM)
    return [untouched_view(scorer, asked, now.users, hidden, len(now.queries))]


def mixed(blueprint: Blueprint, views: Sequence[View], progress: Progress) -> Mixer:
    """A fresh mixer, trained on `views` and given to their scorers, on the training's device."""
    config = blueprint.config
    torch.manual_seed(config.training.seed)
    mixer = blueprint.mixer()
    for view in views:
        view.scorer.mixer = mixer
        view.scorer.to(blueprint.device)
    asked = [view for view in views if len(view.queries)]
    fit_mixer(
        mixer, asked, blueprint.limits, config.mixer, seed=config.training.seed, progress=progress
    )
    check_finite(mixer, "mixer.learning_rate", config.mixer.learning_rate)
    return mixer


def check_finite(trained: nn.Module, setting: str, rate: float) -> None:
    """Raise TrainingError where weights are not all numbers: such a model ranks nothing."""
    for name, value in trained.state_dict().items():
        if not value.isfinite().all():
            raise TrainingError(
                f"training diverged: {name} is not all finite numbers ({setting} = {rate:g})",
                remedy=f"Lower it, for example --set {setting}={rate / 4:g}.",
            )


def judged_by(
    blueprint: Blueprint, scorer: nn.Module, queries: Sequence[Query], users: Users
) -> Judged:
    items, _ = rank(blueprint.placed(scorer), requests(queries, users), blueprint.limits)
    return judge(items, queries, len(blueprint.catalogue))


def cross_ndcg(blueprint: Blueprint, views: Sequence[View]) -> dict[str, Array]:
    """NDCG@10 of every query [Q], by kind of question."""
    found = cross_judged(
        blueprint, views, lambda view: () if view.kind == UNTOUCHED else view.queries, silent
    )
    return {kind: judged.values["ndcg@10"] for kind, judged in found.items()}


def cross_judged(
    blueprint: Blueprint,
    views: Sequence[View],
    asked: Callable[[View], Sequence[Query]],
    progress: Progress,
) -> dict[str, Judged]:
    """Metrics, by kind, of the queries `asked` of each view, in which no user is judged by a mixer
    that has seen them."""
    answers: dict[str, list[Array]] = {}
    judged: dict[str, list[Query]] = {}
    for half in (0, 1):
        learned = [v.part(np.array([q.user % 2 != half for q in v.queries])) for v in views]
        mixed(blueprint, learned, progress)
        for view in views:
            queries = [q for q in asked(view) if q.user % 2 == half]
            if queries:
                graph = blueprint.placed(view.scorer)
                items, _ = rank(graph, requests(queries, view.users), blueprint.limits)
                answers.setdefault(view.kind, []).append(items)
                judged.setdefault(view.kind, []).extend(queries)
    return {
        kind: judge(np.concatenate(items), judged[kind], len(blueprint.catalogue))
        for kind, items in answers.items()
    }


def thinned(queries: Sequence[Query], most: int) -> Sequence[Query]:
    """Every so many-th query, so that `most` are left."""
    if len(queries) <= most:
        return queries
    return [queries[i] for i in np.linspace(0, len(queries) - 1, most).astype(int)]
