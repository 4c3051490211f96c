"""Trainings of seconds, and what every one of them must hold, for the tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recommender import config
from recommender.contract import Array
from recommender.data.dataset import Dataset, load
from recommender.data.split import Query, requests
from recommender.data.synthetic import write_synthetic
from recommender.evaluate import rank
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run
from recommender.users import EMPTY

T = 1_700_000_000
SMALL = (
    "training.epochs=3", "encoder.width=16", "encoder.layers=1", "training.batch=16",
    "training.batch_events=0",
    "mixer.cuts=2", "mixer.cut_epochs=3", "mixer.epochs=1", "mixer.queries=300",
)  # fmt: skip


def small(*settings: str) -> config.Config:
    return config.read("quick", settings=[*SMALL, *settings])


def fitted(dataset: Dataset, *settings: str, family: str = "deep") -> Run:
    blueprint = blueprint_of(family, dataset.users, dataset, small(*settings))
    return fit_run(blueprint, dataset.users, dataset)


def answers(run: Run, *queries: Query) -> tuple[Array, Array]:
    """Items and scores, [Q, K]."""
    return rank(run.graph, requests(queries, run.users), run.blueprint.limits)


def all_asked(run: Run) -> tuple[Array, Array]:
    """Every user, at the user's last event."""
    queries = [
        Query(user=row, history=h, request_time=run.blueprint.clock, targets=EMPTY.items)
        for row, h in enumerate(run.users.histories())
    ]
    return answers(run, *queries)


def check_sound(run: Run) -> None:
    """Weights are numbers, and everybody is given all there is, without what was seen."""
    for name, value in run.graph.state_dict().items():
        assert value.isfinite().all(), name
    items, scores = all_asked(run)
    assert np.isfinite(scores[items > 0]).all()
    for row, history in enumerate(run.users.histories()):
        given = items[row][items[row] > 0]
        assert len(set(given)) == len(given)
        assert not np.isin(given, history.items).any()
        left = len(run.blueprint.catalogue) - len(set(history.items))
        assert len(given) == min(left, items.shape[1])


def write_little(folder: Path) -> Dataset:
    """Synthetic, for tests that need many trainings."""
    write_synthetic(folder, users=80, items=60, events=1600, seed=3)
    return load(folder)[0]
