"""A model of your own, as one more family: a function that builds it -> a run folder.

    FILE.py: build(dataset) -> nn.Module ─┬─ without everybody's newest events ─> metrics
                                          └─ with every event ─> checks ─> program ─> run

The module is a `Scorer` (recommender/models/scorer.py). Afterwards export, batch and serving
take the run like any other, and need FILE.py no longer. Knows nothing of what is inside.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from recommender.config import Config
from recommender.contract import KINDS, model_names
from recommender.data.dataset import Dataset
from recommender.data.split import newest, requests
from recommender.errors import BadInput, DataError, RunError, shown
from recommender.evaluate import judge, rank
from recommender.models.check import check_scorer, probes
from recommender.models.exported import Exported, export_scorer
from recommender.models.families import FAMILIES, Blueprint
from recommender.models.learn import Progress, silent
from recommender.runs import Run, check_free, write
from recommender.train import blueprint_of, run_of
from recommender.users import Users

Build = Callable[[Dataset], nn.Module]
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
# Models of ours, and names that would pass for one of the other kinds.
_TAKEN = {*(f"{kind}_onnx" for kind in KINDS),
          *(model for family in FAMILIES for model in model_names(family))}  # fmt: skip


def check_name(name: str) -> None:
    """Raise BadInput unless `name` can be a family: its model is `NAME_onnx`."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"name {shown(name)} cannot be that of a model",
            remedy="Use lower-case letters, digits, - and _, a letter first, 40 at most.",
            field="name",
        )
    if (model := model_names(name)[0]) in _TAKEN:
        raise BadInput(
            f"name {shown(name)} is taken: {model} is a model of ours",
            remedy="Choose another --name.",
            field="name",
        )


def builder(module: str, arguments: Mapping[str, str] | None = None) -> Build:
    """The function that `FILE.py:FUNCTION` names (`FILE.py` alone: build), with `arguments`.

    Raises BadInput where there is none. What the function raises becomes a RunError that says
    in which line.
    """
    path, _, name = module.partition(":")
    name = name or "build"
    if not Path(path).is_file():
        raise BadInput(
            f"{path} is no file", remedy="Write --module FILE.py:FUNCTION.", field="module"
        )
    spec = importlib.util.spec_from_file_location(f"adapted_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} is no Python file", remedy="Name a FILE.py.", field="module")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    sys.path.append(str(Path(path).parent.resolve()))  # last: its neighbours, not in our place
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        raise _blamed(error, path, "importing it") from error
    function = getattr(loaded, name, None)
    if not callable(function):
        raise BadInput(
            f"{path} has no function {shown(name)}",
            remedy="Define build(dataset) there, or name another after the colon.",
            field="module",
        )

    def build(dataset: Dataset) -> nn.Module:
        try:
            built = function(dataset, **(arguments or {}))
        except Exception as error:
            raise _blamed(error, path, f"{name}()") from error
        if not isinstance(built, nn.Module):
            raise RunError(
                f"{name}() of {path} gave {shown(built)}", remedy="Return a torch.nn.Module."
            )
        return built

    return build


def _blamed(error: Exception, path: str, what: str) -> RunError:
    """Says in which line of the user's file it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == path]
    where = f", line {lines[-1]}" if lines else ""
    return RunError(
        f"{path}{where}: {what} failed: {type(error).__name__}: {shown(str(error), 160)}",
        remedy="Mend it; RECSERVE_DEBUG=1 shows the whole traceback.",
    )


def adapt(
    dataset: Dataset,
    build: Build,
    out: Path,
    *,
    name: str,
    config: Config,
    users: Users | None = None,
    progress: Progress = silent,
) -> Run:
    """Write the run folder `out` of family `name`: what `build` makes of `users` (default: every
    row of `dataset`).

    `build` is called twice. A module whose parameters come out the same with and without the
    newest events was trained elsewhere and may have seen them: its figures are no held-out
    metrics, and go into the run's `details` instead. Raises RunError where the module does
    not meet the contract or cannot be exported.
    """
    check_name(name)
    check_free(out, resume=False)
    users = dataset.users if users is None else users
    started = time.monotonic()
    blueprint = replace(blueprint_of("popularity", users, dataset, config), family=name)
    rest, queries = newest(users, 1, config.training.seed, repurchase=blueprint.repurchase)
    if not queries:
        raise DataError(
            "no user has two different items or more: nothing can be held out to measure by",
            remedy="Bring longer histories.",
        )
    progress("build without the newest events", 0, 3)
    first = _built(build, blueprint, dataset, rest)
    items, _ = rank(blueprint.graph(first), requests(queries, rest), blueprint.limits)
    judged = judge(items, queries, len(blueprint.catalogue))
    figures = judged.to_json()
    progress("build with every event", 1, 3)
    scorer = _built(build, blueprint, dataset, users)
    elsewhere = _same_parameters(first, scorer)
    run = run_of(
        dataset,
        users,
        blueprint,
        blueprint.graph(scorer),
        metrics={} if elsewhere else figures,
        held_out={} if elsewhere else judged.by_user(users.user_ids),
        details={
            "adapted": True,
            "trained_elsewhere": elsewhere,
            **({"on_events_it_may_have_seen": figures} if elsewhere else {}),
            "seconds": round(time.monotonic() - started, 1),
        },
    )
    progress("write", 2, 3)
    write(run, out)
    return run


def known(dataset: Dataset, users: Users) -> Dataset:
    """`dataset` as it was when only `users` had happened: nothing in it counts a later event.

    The catalogue's popularity is how often each item was wanted.
    """
    counts = np.bincount(users.items[users.targets], minlength=len(dataset.catalogue) + 1)
    catalogue = replace(dataset.catalogue, popularity=counts[1:].astype(np.float32))
    return replace(dataset, users=users, catalogue=catalogue, end=int(users.times.max()))


def _built(build: Build, blueprint: Blueprint, dataset: Dataset, users: Users) -> Exported:
    module = build(known(dataset, users)).eval().requires_grad_(False)
    asked = probes(users, blueprint.limits)
    scorer = export_scorer(module, asked[0], blueprint.limits)
    check_scorer(module, scorer, asked, blueprint)
    return scorer


def _same_parameters(first: Exported, second: Exported) -> bool:
    """Of a module without any, its buffers: tables that were counted."""
    one, other = (
        {k: v for k, v in s.program.state_dict.items() if k in s.program.graph_signature.parameters}
        or s.program.state_dict
        for s in (first, second)
    )
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
