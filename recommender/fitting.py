"""Fit a blueprint's model: choose on a part held out here, then refit on every row given.

    users ─┬─ newest events of each ───────────> next-item queries ──┐
           ├─ the rest ─> encoder, signals ────> a view of them      ├─> mixer, metrics
           └─ cuts in time ─> encoders, signals ─> views, windows  ──┘
    all rows ─> encoder (as many epochs as were best), signals, that mixer ─> graph

Works on histories; knows no data folder and no run folder but the one for checkpoints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recommender.ablate import ablation
from recommender.config import TrainingConfig
from recommender.data.split import Query, cuts, newest, strangers
from recommender.data.timing import REAL
from recommender.errors import DataError
from recommender.heldout import Values
from recommender.mixing import (
    Moment,
    check_finite,
    cross_judged,
    judged_by,
    mixed,
    thinned,
    views_of,
)
from recommender.models.encoder import Encoder
from recommender.models.families import Blueprint, fit_scorer
from recommender.models.graph import Graph
from recommender.models.learn import Progress, silent, train_encoder
from recommender.models.mix import NEXT_ITEM
from recommender.models.parts import EncoderAlone
from recommender.users import Users

_CELLS = 40_000_000  # queries x items of a mixer's epoch: keeps its time within minutes
_HELD_OUT = 3000  # next-item queries that early stopping asks, at most
_MANY = 4_000  # items from which on signals are fitted at fewer moments: EASE's inverse is cubic
_STRANGERS = 1000  # users who ask with their history hidden, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    graph: Graph
    metrics: Mapping[str, Any]  # of the held-out part
    held_out: Values  # the same, user by user
    details: Mapping[str, Any]


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
    if blueprint.family == "deep":
        return _fit_deep(blueprint, users, checkpoints, progress)
    rest, queries = _held_out(blueprint, users)
    held_out = judged_by(blueprint, fit_scorer(blueprint, rest), _last(queries), rest)
    scorer = fit_scorer(blueprint, users)
    return Fitted(
        graph=blueprint.graph(scorer),
        metrics=held_out.to_json(),
        held_out=held_out.by_user(users.user_ids),
        details={},
    )


def _held_out(blueprint: Blueprint, users: Users) -> tuple[Users, Sequence[Query]]:
    """What is left of `users`, and the next-item queries that are asked of the rest."""
    config = blueprint.config
    rest, queries = newest(
        users, config.mixer.held_out, config.training.seed, repurchase=blueprint.repurchase
    )
    if not queries:
        raise DataError(
            "nothing can be held out to choose by: nobody's newest event is of an item that is "
            "new to the user",
            remedy="Bring longer histories, or set repurchase = true where items are wanted again.",
        )
    return rest, queries


def _last(queries: Sequence[Query]) -> list[Query]:
    """The newest query of each user: what a release's held-out metrics are measured on."""
    newest_of = {query.user: query for query in queries}
    return list(newest_of.values())


def _fit_deep(
    blueprint: Blueprint, users: Users, checkpoints: Path | None, progress: Progress
) -> Fitted:
    recipe = blueprint.config
    encoders = Encoders(blueprint, checkpoints, progress)
    moments, curve = moments_of(encoders, users)
    views = views_of(blueprint, moments)
    held_out = cross_judged(
        blueprint, views, lambda v: _last(v.queries) if v.kind == NEXT_ITEM else (), progress
    )[NEXT_ITEM]
    paid = {}
    if recipe.mixer.ablate:
        paid = ablation(blueprint, views, progress)
    mixer = mixed(blueprint, views, progress)
    epochs = int(np.argmax(curve)) + 1 if curve else 0
    encoder, _ = encoders.train("refit", users, epochs, None)
    return Fitted(
        graph=blueprint.graph(blueprint.deep(users, encoder, mixer)).cpu(),
        metrics=held_out.to_json(),
        held_out=held_out.by_user(users.user_ids),
        details={"epochs": epochs, "curve": [round(s, 5) for s in curve], **paid},
    )


class Encoders:
    """Trains encoders of the blueprint on several parts of the rows, each with its checkpoint."""

    def __init__(self, blueprint: Blueprint, checkpoints: Path | None, progress: Progress) -> None:
        self.blueprint, self.checkpoints, self.progress = blueprint, checkpoints, progress
        self.used = "encoder" in blueprint.signals.use

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
        config = self.blueprint.config.training
        check_finite(encoder, "training.learning_rate", config.learning_rate)
        return encoder, scores


def queries_of(blueprint: Blueprint) -> int:
    """Next-item queries that a mixer learns from, at most."""
    return min(blueprint.config.mixer.queries, _CELLS // blueprint.items)


def cuts_of(blueprint: Blueprint) -> int:
    """Moments in time at which signals are fitted for the mixer."""
    wanted = blueprint.config.mixer.cuts
    return wanted if blueprint.items <= _MANY else min(3, wanted)


def moments_of(encoders: Encoders, users: Users) -> tuple[list[Moment], list[float]]:
    """The moment before the newest events, then one for each cut in time; and the curve of the
    first encoder's NDCG@10 by epoch.

    Without cuts, as in made-up time, nobody would ask without a history: then some ask once
    more with theirs hidden.
    """
    blueprint = encoders.blueprint
    recipe, config = blueprint.config, blueprint.config.mixer
    rest, queries = _held_out(blueprint, users)
    queries = thinned(queries, queries_of(blueprint))
    asked = thinned(queries, _HELD_OUT)

    def score(encoder: Encoder) -> float:
        alone = EncoderAlone(encoder, encoder.item_table(), encoder.bias)
        judged = judged_by(blueprint, alone, asked, rest)
        return float(judged.values["ndcg@10"].mean())

    epochs = _affordable(recipe.training.epochs, rest, recipe.training)
    searched, curve = encoders.train("search", rest, epochs, score)
    found = [Moment(encoder=searched, users=rest, queries=queries)]
    parts = []
    if blueprint.time_kind == REAL:
        parts = cuts(users, cuts_of(blueprint), repurchase=blueprint.repurchase)
    encoder, every = None, -(-len(parts) // max(1, config.cut_encoders))
    for number, (known, wanted) in enumerate(parts):
        epochs = config.cut_epochs if number == 0 else max(1, config.cut_epochs // 3)
        epochs = _affordable(epochs, known, recipe.training)
        if number % every == 0:  # an encoder may be a little older than the signals beside it
            encoder, _ = encoders.train(f"cut {number + 1}", known, epochs, None, encoder)
        found.append(Moment(encoder=encoder, users=known, queries=wanted))
    if not parts:
        hidden = strangers(users, rest, _STRANGERS)
        found.append(Moment(encoder=searched, users=rest, queries=hidden))
    return found, curve


def _affordable(epochs: int, users: Users, config: TrainingConfig) -> int:
    """As many epochs as `config.events` allow, of which a short training has its share."""
    share = epochs / max(1, config.epochs)
    return min(epochs, max(1, int(config.events * share / max(1, len(users.items)))))
