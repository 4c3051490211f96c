"""A data set -> a run folder: the blueprint of its shapes, the fit, the files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from recommender.config import Config
from recommender.contract import Limits, exclude_size
from recommender.data.dataset import Dataset
from recommender.errors import BadInput, DataError, shown
from recommender.fitting import fit
from recommender.heldout import Values
from recommender.models.device import device_of, name_of
from recommender.models.families import FAMILIES, Blueprint
from recommender.models.graph import Graph
from recommender.models.learn import Progress, silent
from recommender.runs import Run, begin, write
from recommender.users import Users


def blueprint_of(family: str, users: Users, dataset: Dataset, config: Config) -> Blueprint:
    """Limits and clock come from `users`, the rows that are trained on."""
    check_family(family)
    device_of(config.training.device)  # refused now, not when there is something to train
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
        repurchase=dataset.repurchase,
        time_kind=dataset.time_kind,
    )


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
    details = {
        **fitted.details,
        "seconds": round(time.monotonic() - started, 1),
        "device": name_of(blueprint.device),
    }
    return run_of(
        dataset,
        users,
        blueprint,
        fitted.graph,
        metrics=fitted.metrics,
        held_out=fitted.held_out,
        details=details,
    )


def run_of(
    dataset: Dataset,
    users: Users,
    blueprint: Blueprint,
    graph: Graph,
    *,
    metrics: Mapping[str, Any],
    details: Mapping[str, Any],
    held_out: Values,
) -> Run:
    """A model of `users`, some rows of `dataset`, with all that serving it takes."""
    return Run(
        blueprint=blueprint,
        graph=graph,
        users=users,
        user_features=dataset.user_features,
        content_space=dataset.content_space,
        mean_rating=dataset.mean_rating,
        acts=dataset.acts,
        digest=dataset.digest,
        metrics=metrics,
        held_out=held_out,
        details=details,
    )


def check_family(family: str) -> None:
    if family not in FAMILIES:
        raise BadInput(
            f"model {shown(family)} does not exist", remedy=f"Choose {', '.join(FAMILIES)}."
        )
