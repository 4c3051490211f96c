"""A run folder: what a training leaves behind and export, batch and evaluate take.

    RUN/run.json            family, recipe, limits, digests, metrics of the held-out part
    RUN/weights.pt          the graph's state_dict; or, of an adapted model,
    RUN/graph.pt2           the scorer as a program (models/exported.py)
    RUN/catalogue.parquet   RUN/users.parquet
    RUN/content.npz   RUN/content.json        the items' content, and the space for new items
    RUN/started.json  RUN/checkpoint-*.pt     only while training runs: what --resume goes on from

run.json is written last: a folder without it is an unfinished training.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import scipy.sparse as sp
import torch

from recommender import heldout
from recommender.acts import ActRules
from recommender.catalogue import Catalogue
from recommender.config import Config, from_json, to_json
from recommender.contract import Limits
from recommender.data.content import ContentSpace
from recommender.errors import RunError
from recommender.features import UserFeatures
from recommender.heldout import Values
from recommender.models import exported
from recommender.models.exported import Exported
from recommender.models.families import Blueprint, load_graph
from recommender.models.graph import Graph
from recommender.provenance import made_by
from recommender.users import Users

FILE, WEIGHTS = "run.json", "weights.pt"
CONTENT, SPACE = "content.npz", "content.json"
STARTED, CHECKPOINTS = "started.json", "checkpoint-*.pt"
SCHEMA = 7  # of what lies in the folder and of what a graph computes from it
# What reading a truncated or foreign file raises: JSON, TOML, Parquet, zip, torch's own.
_BROKEN = (ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError,
           pickle.UnpicklingError, pl.exceptions.PolarsError, zipfile.BadZipFile,
           zlib.error)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    blueprint: Blueprint
    graph: Graph
    users: Users
    user_features: UserFeatures
    content_space: ContentSpace  # gives new items their content
    mean_rating: float | None
    acts: ActRules  # how live events count
    digest: str  # of the data it was trained on
    metrics: Mapping[str, Any]  # of the held-out part
    held_out: Values  # the same, user by user; empty where nothing was held out
    details: Mapping[str, Any]  # epochs, seconds, library versions


def check_free(folder: Path, *, resume: bool) -> None:
    """Raise RunError where a training may not write."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file", remedy="Name a folder that does not exist yet.")
    if resume or not folder.exists():
        return
    if (folder / FILE).exists():
        raise RunError(f"{folder} holds a finished run", remedy="Name another --out, or delete it.")
    if any(folder.iterdir()):
        raise RunError(
            f"{folder} exists and is not empty",
            remedy="Pass --resume to go on with an interrupted training, or name another --out.",
        )


def begin(folder: Path, *, family: str, config: Config, digest: str, resume: bool) -> Run | None:
    """Make `folder` ready for a training; with `resume`, the run if it has already finished.

    Raises RunError where the folder is taken, or was begun on other data or with another recipe.
    """
    check_free(folder, resume=resume)
    identity = _identity(family, config, digest)
    if (folder / FILE).exists():
        run = read(folder)
        seen = _identity(run.blueprint.family, run.blueprint.config, run.digest)
    elif (folder / STARTED).exists():
        run, seen = None, json.loads((folder / STARTED).read_text())
    elif folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} holds no training to resume", remedy="Name another --out.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STARTED).write_text(json.dumps(identity))
        return None
    if seen != identity:
        raise RunError(
            f"{folder} was begun on other data or with another recipe",
            remedy="Name another --out, or delete it.",
        )
    return run


def _identity(family: str, config: Config, digest: str) -> Any:
    """What makes two trainings the same, as it reads back from JSON (which knows no tuples)."""
    identity = {"family": family, "config": to_json(config), "data": digest, "schema": SCHEMA}
    return json.loads(json.dumps(identity))


def write(run: Run, folder: Path) -> None:
    """Write the run; the folder becomes a run with run.json, its last file."""
    folder.mkdir(parents=True, exist_ok=True)
    blueprint = run.blueprint
    blueprint.catalogue.write(folder)
    run.users.write(folder)
    heldout.write(run.held_out, folder)
    sp.save_npz(folder / CONTENT, blueprint.content)
    (folder / SPACE).write_text(json.dumps(run.content_space.to_json()))
    if isinstance(run.graph.scorer, Exported):
        exported.write(run.graph.scorer, folder / exported.FILE)
    else:
        torch.save(run.graph.state_dict(), folder / WEIGHTS)
    content = {
        "schema": SCHEMA,
        "family": blueprint.family,
        "config": to_json(blueprint.config),
        "limits": dataclasses.asdict(blueprint.limits),
        "clock": blueprint.clock,
        "session_gap": blueprint.session_gap,
        "repurchase": blueprint.repurchase,
        "time_kind": blueprint.time_kind,
        "user_features": run.user_features.to_json(),
        "mean_rating": run.mean_rating,
        "acts": run.acts.to_json(),
        "data": run.digest,
        "metrics": run.metrics,
        "details": {**run.details, **made_by(("recommender",), ("torch", "numpy", "scipy"))},
    }
    unfinished = folder / f"{FILE}.tmp"
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(folder / FILE)
    for checkpoint in (*folder.glob(CHECKPOINTS), folder / STARTED):
        checkpoint.unlink(missing_ok=True)


def read(folder: Path) -> Run:
    """Raises RunError where `folder` holds no finished run, one of another schema, or a file of it
    is broken."""
    path = folder / FILE
    if not path.is_file():
        started = any(folder.glob(CHECKPOINTS))
        raise RunError(
            f"{folder} holds no {'finished ' if started else ''}run ({FILE} is missing)",
            remedy="Run `recserve train DIR --out "
            + f"{folder}{' --resume' if started else ''}` first.",
        )
    try:
        raw = json.loads(path.read_text())
        if raw["schema"] != SCHEMA:
            raise RunError(
                f"{path} has schema {raw['schema']!r}, this recserve reads {SCHEMA}",
                remedy="Train the run again, or use the recserve that wrote it.",
            )
        user_features = UserFeatures.from_json(raw["user_features"])
        catalogue = Catalogue.read(folder)
        space = ContentSpace.from_json(json.loads((folder / SPACE).read_text()))
        blueprint = Blueprint(
            family=raw["family"],
            config=from_json(raw["config"]),
            catalogue=catalogue,
            content=_content(folder, (len(catalogue) + 1, space.width)),
            user_sizes=user_features.sizes,
            limits=Limits.from_json(raw["limits"]),
            clock=raw["clock"],
            session_gap=raw["session_gap"],
            repurchase=raw["repurchase"],
            time_kind=raw["time_kind"],
        )
        users, held_out = Users.read(folder), heldout.read(folder)
        graph = _graph(folder, blueprint)
    except _BROKEN as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{folder} is broken: {reason}", remedy="Train the run again.") from error
    return Run(
        blueprint=blueprint,
        graph=graph,
        users=users,
        user_features=user_features,
        content_space=space,
        mean_rating=raw["mean_rating"],
        acts=ActRules.from_json(raw.get("acts", {})),
        digest=raw["data"],
        metrics=raw["metrics"],
        held_out=held_out,
        details=raw["details"],
    )


def _graph(folder: Path, blueprint: Blueprint) -> Graph:
    if (program := folder / exported.FILE).exists():
        return blueprint.graph(exported.read(program, blueprint.items))
    return load_graph(blueprint, torch.load(folder / WEIGHTS, weights_only=True))


def _content(folder: Path, shape: tuple[int, int]) -> sp.csr_array:
    content = sp.load_npz(folder / CONTENT)
    if content.shape != shape:
        raise ValueError(f"{CONTENT} has shape {content.shape}, expected {shape}")
    return content
