"""A recipe -> its score: NDCG@10 of questions held out among the rows given, and of no others.

    rows ─> encoders ─> signals ─> mixer of half the users ─> the other half's questions
            shared      shared     anew for each recipe

Two kinds of questions, each worth half: what this user did next, and what everybody wanted
after the last cut in time. Nobody is judged by a mixer that has learned from the same user,
nor is the last cut by one that has learned from any question after it: in service, too, a
mixer is asked later than what it learned from. What a recipe shares with the one before it is
not made again. Knows no Optuna.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recommender.config import Config, to_json
from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import Query, before, requests
from recommender.data.timing import REAL
from recommender.errors import BadInput, shown
from recommender.evaluate import judge, rank
from recommender.fitting import Encoders, moments_of
from recommender.mixing import Moment, mixed, views_of
from recommender.models.families import Blueprint
from recommender.models.learn import Progress, silent
from recommender.models.mix import AFTER_CUT, UNTOUCHED, View, cut_views
from recommender.protocols import divide
from recommender.train import blueprint_of
from recommender.tuning.space import MIXER, TABLES, without
from recommender.users import Users

LEAVE_ONE_OUT, TEMPORAL, BOTH = "leave-one-out", "temporal", "both"
WITHHELD = (LEAVE_ONE_OUT, TEMPORAL, BOTH)


@dataclass(frozen=True, kw_only=True)
class Score:
    """NDCG@10 of both questions. `window` is None where time is made up and nothing can be cut."""

    next_item: float  # mean over users of the mean over their held-out events
    window: float | None  # mean over users active after the last cut

    @property
    def value(self) -> float:
        return self.next_item if self.window is None else (self.next_item + self.window) / 2

    def to_json(self) -> dict[str, Any]:
        return {"score": self.value, **asdict(self)}


def allowed_rows(dataset: Dataset, protocol: str) -> Users:
    """The rows of `dataset` that a choice may rest on: without the protocol's test rows, or
    without those of both protocols. Raises BadInput, or DataError where it cannot be split so."""
    if protocol not in WITHHELD:
        raise BadInput(
            f"protocol {shown(protocol)} does not exist", remedy=f"Choose {', '.join(WITHHELD)}."
        )
    if protocol == LEAVE_ONE_OUT:
        return divide(dataset, LEAVE_ONE_OUT).train_valid
    split = divide(dataset, TEMPORAL)
    if protocol == TEMPORAL or not split.test:
        return split.train_valid
    return before(divide(dataset, LEAVE_ONE_OUT).train_valid, split.test[0].request_time)


class Bench:
    """Scores recipes on the same rows. `folder` keeps encoders, so that an interruption costs one
    epoch, and may be shared by Benches of several processes: one of them trains an encoder, the
    others wait and read it. `tidy` removes those of earlier recipes."""

    def __init__(self, dataset: Dataset, users: Users, folder: Path) -> None:
        self.dataset, self.users, self.folder = dataset, users, folder
        self._encoders_of = self._tables_of = ""
        self._moments: list[Moment] = []
        self._views: list[View] = []

    def score(self, config: Config, progress: Progress = silent) -> Score:
        """Raises TrainingError where training diverges."""
        blueprint = blueprint_of("deep", self.users, self.dataset, config)
        self._prepare(blueprint, progress)
        return _scored(blueprint, self._views, progress)

    def _prepare(self, blueprint: Blueprint, progress: Progress) -> None:
        """Encoders and signals of the blueprint, made anew only where its recipe asks for it."""
        encoders_of = _encoders_of(blueprint.config)
        tables_of = _key(without(blueprint.config, MIXER))
        if encoders_of != self._encoders_of:
            self._moments, self._views = [], []
            self._encoders_of = self._tables_of = ""  # should what follows fail
            kept = self.folder / encoders_of
            kept.mkdir(parents=True, exist_ok=True)
            progress("encoders", 0, 1)
            with _alone_in(kept):
                self._moments, _ = moments_of(Encoders(blueprint, kept, progress), self.users)
            self._encoders_of = encoders_of
        if tables_of != self._tables_of:
            self._views, self._tables_of = [], ""  # first: both may not fit into memory
            progress("signals", 0, 1)
            self._views = views_of(blueprint, self._moments)
            self._tables_of = tables_of


def tidy(folder: Path, recipes: Sequence[Config]) -> None:
    """Remove from the `folder` of Benches the encoders of all recipes but these."""
    kept = {_encoders_of(recipe) for recipe in recipes}
    for other in folder.iterdir() if folder.exists() else ():
        if other.name not in kept:
            shutil.rmtree(other)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait for others at work in `folder`. The kernel frees what a process held that was killed."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _encoders_of(config: Config) -> str:
    return _key(without(config, MIXER, TABLES))


def _key(config: Config) -> str:
    return hashlib.sha256(json.dumps(to_json(config)).encode()).hexdigest()[:12]


def _scored(blueprint: Blueprint, views: Sequence[View], progress: Progress) -> Score:
    """Two mixers, each learned from one half of the users, asked by the other."""
    now, cuts = views[0], [view for view in views if view.kind == AFTER_CUT]
    untouched = [view for view in views if view.kind == UNTOUCHED]
    last = cuts[-1] if blueprint.time_kind == REAL and cuts else None
    learned = views
    if last is not None and cuts[:-1]:
        learned = [now, *_reweighed(cuts[:-1], now), *untouched]
    next_item: list[Array] = []
    window: list[Array] = []
    queries: list[Query] = []
    wanted: list[Query] = []
    for half in (0, 1):
        mixed(blueprint, [_half(view, 1 - half) for view in learned], progress)
        asked = _half(now, half)
        next_item.append(_ndcg(blueprint, asked))
        queries += asked.queries
        if last is not None:
            last.scorer.mixer = now.scorer.mixer
            asked = _half(last, half)
            window.append(_ndcg(blueprint, asked))
            wanted += asked.queries
    return Score(
        next_item=_mean_of_users(np.concatenate(next_item), queries),
        window=_mean_of_users(np.concatenate(window), wanted) if window else None,
    )


def _reweighed(cuts: Sequence[View], now: View) -> list[View]:
    """Cut views that share among themselves what all of them weigh beside the next items."""
    return cut_views([(v.scorer, v.queries, v.users) for v in cuts], len(now.queries))


def _half(view: View, half: int) -> View:
    return view.part(np.array([query.user % 2 == half for query in view.queries], bool))


def _ndcg(blueprint: Blueprint, view: View) -> Array:
    """[Q]"""
    graph, asked = blueprint.placed(view.scorer), requests(view.queries, view.users)
    items, _ = rank(graph, asked, blueprint.limits)
    return judge(items, view.queries, len(blueprint.catalogue)).values["ndcg@10"]


def _mean_of_users(values: Array, queries: Sequence[Query]) -> float:
    """A user who was asked often counts as one: their answers go together."""
    _, row = np.unique([query.user for query in queries], return_inverse=True)
    return float((np.bincount(row, values) / np.bincount(row)).mean())
