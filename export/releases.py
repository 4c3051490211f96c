"""A run -> release N of a model repository. Files only: no server is asked or told.

    <model>/.tmp-N/      staging, invisible to Triton
    <model>/N/           renamed from staging once everything in it is checked
    releases.json        replaced last: until then nobody sees the release

Who may write and what an interruption leaves: index.py.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from export import configs, golden, to_onnx, to_torchscript
from export.index import STAGING, index_of, locked, next_version, sync, write, write_index
from export.parity import Parity, check_parity
from export.triton_config import backend_of
from recommender import heldout
from recommender import release as reading
from recommender.config import to_json
from recommender.contract import EXPLAINER, Kind, Limits, kind_of, model_names
from recommender.errors import ReleaseError
from recommender.models.beside import modules
from recommender.models.explain import signal_names
from recommender.models.families import Blueprint
from recommender.provenance import made_by
from recommender.release import Index, read_release
from recommender.runs import Run
from recommender.stored import SCHEMA
from recommender.verify import sha256

_SOURCES, _LIBRARIES = ("recommender", "export"), ("torch", "onnx", "onnxruntime", "numpy")
_WAIT_S = 2.0  # for whoever puts away an old release; not for another export


def publish(run: Run, repository: Path, settings: Path | None = None) -> int:
    """Export `run` as the next release and give its number N. The first release serves at once.

    `settings` becomes the repository's triton.toml; without it, the one that is there holds on.
    Raises BadInput for a setting that cannot be, ReleaseError where parity fails or the limits
    are not those of the releases that are there; the repository is then as it was.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with locked(repository, wait_s=_WAIT_S):
        index = index_of(repository)
        limits = run.blueprint.limits
        kinds = modules(run.graph, limits)
        models = model_names(run.blueprint.family, kinds.keys())
        _check_limits(repository, index, limits, models)
        there = configs.models_of(repository, index)
        planned = configs.plan(repository, {**there, **dict.fromkeys(models, limits)}, settings)
        version = next_version(repository, index)
        staged = {model: repository / model / f"{STAGING}{version}" for model in models}
        try:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            _stage(run, kinds, staged, version)
            configs.put(planned)
            for folder in staged.values():
                sync(folder)
                folder.rename(folder.parent / str(version))
        finally:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)
        home = f"{models[0]}/{version}/{reading.FILE}"
        serving = version if index.serving is None else index.serving
        write_index(
            repository,
            dataclasses.replace(
                index,
                serving=serving,
                releases={**index.releases, version: home},
                checksums={**index.checksums, version: sha256(repository / home)},
            ),
        )
    return version


def _stage(
    run: Run, kinds: Mapping[Kind, nn.Module], staged: Mapping[str, Path], version: int
) -> None:
    """Weights, catalogue and users, checked for parity, then release.json with their checksums."""
    blueprint, home = run.blueprint, next(iter(staged.values()))
    weights, limits = {}, blueprint.limits
    for model, folder in staged.items():
        kind = kind_of(model)
        if backend_of(model) == "onnxruntime":
            weights[model] = folder / to_onnx.FILE
            to_onnx.write_onnx(kinds[kind], limits, weights[model], kind)
        else:
            weights[model] = folder / to_torchscript.FILE
            to_torchscript.write_torchscript(kinds[kind], limits, weights[model])
    parity = check_parity(
        run.graph,
        weights,
        limits=limits,
        items=blueprint.items,
        clock=blueprint.clock,
        users=run.users,
    )
    golden.write(
        kinds,
        home,
        limits=limits,
        items=blueprint.items,
        clock=blueprint.clock,
        users=run.users,
    )
    blueprint.catalogue.write(home)
    run.users.write(home)
    heldout.write(run.held_out, home)
    files = {
        f"{model}/{version}/{path.name}": sha256(path)
        for model, folder in staged.items()
        for path in sorted(folder.iterdir())
    }
    content = _content(run, version, list(staged), parity, files)
    write(home / reading.FILE, json.dumps(content, indent=2) + "\n")


def _content(
    run: Run,
    version: int,
    models: list[str],
    parity: Mapping[str, Parity],
    files: Mapping[str, str],
) -> dict[str, Any]:
    blueprint = run.blueprint
    return {
        "schema": SCHEMA,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "family": blueprint.family,
        "items": len(blueprint.catalogue),
        "models": models,
        "signals": _signals(blueprint, models),
        "limits": dataclasses.asdict(blueprint.limits),
        "clock": blueprint.clock,
        "repurchase": blueprint.repurchase,
        "mean_rating": run.mean_rating,
        "acts": run.acts.to_json(),
        "user_features": run.user_features.to_json(),
        "time_kind": blueprint.time_kind,
        "data": run.digest,
        "config": to_json(blueprint.config),
        "metrics": run.metrics,
        "training": run.details,
        "exported": made_by(_SOURCES, _LIBRARIES),
        "parity": {model: dataclasses.asdict(report) for model, report in parity.items()},
        "files": files,
    }


def _signals(blueprint: Blueprint, models: list[str]) -> list[str]:
    """What the explainer takes a score apart into, in the order of its output; none without one."""
    if EXPLAINER not in map(kind_of, models):
        return []
    names, room = signal_names(blueprint), blueprint.limits.signals
    if len(names) > room:
        raise ReleaseError(
            f"the model has {len(names)} signals, an explainer has room for {room}",
            remedy="Train with fewer trends: --set signals.half_life_days=1,7,30.",
        )
    return list(names)


def _check_limits(repository: Path, index: Index, limits: Limits, models: tuple[str, ...]) -> None:
    """A model's releases share one config.pbtxt, so its limits cannot change under them."""
    for version in index.releases:
        other = read_release(repository, version, verify=False)
        if set(models) & set(other.models) and other.limits != limits:
            raise ReleaseError(
                f"the run's limits {limits} are not those of release {version}, {other.limits}",
                remedy="Export into a new --repository.",
            )
