"""A run -> release N of a model repository. Files only: no server is asked or told.

    <model>/.tmp-N/      staging, invisible to Triton
    <model>/N/           renamed from staging once everything in it is checked
    releases.json        replaced last: the one commit point (see recommender/release.py)

Whatever happens before the last step leaves folders that nothing names: Triton is
asked for exact versions only, and `gc` removes them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from export import to_onnx, to_torchscript
from export.parity import Parity, check_parity
from export.triton_config import backend_of, config_text
from recommender import release as reading
from recommender.contract import EXPLAINER, Limits, kind_of, model_names
from recommender.errors import ReleaseError
from recommender.models.beside import modules
from recommender.models.explain import signal_names
from recommender.models.families import Blueprint
from recommender.release import Index, read_index, read_release, sha256
from recommender.runs import Run

CONFIG = "config.pbtxt"
_STAGING = ".tmp-"
_LOCK = ".lock"


def publish(run: Run, repository: Path) -> int:
    """Export `run` as the next release and give its number N. The first release serves at once.

    Raises ReleaseError, and leaves the repository as it was, where parity fails or
    the limits are not those of the releases that are there.
    """
    repository.mkdir(parents=True, exist_ok=True)
    with _locked(repository):
        index = _index(repository)
        limits = run.blueprint.limits
        models = model_names(run.blueprint.family, modules(run.graph, limits).keys())
        _check_limits(repository, index, limits, models)
        version = _next_version(repository, index)
        staged = {model: repository / model / f"{_STAGING}{version}" for model in models}
        try:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            _stage(run, staged, version)
            for model in models:
                _write(repository / model / CONFIG, config_text(model, backend_of(model), limits))
            for folder in staged.values():
                _sync(folder)
                folder.rename(folder.parent / str(version))
        finally:
            for folder in staged.values():
                shutil.rmtree(folder, ignore_errors=True)
        releases = {**index.releases, version: f"{models[0]}/{version}/{reading.FILE}"}
        serving = version if index.serving is None else index.serving
        write_index(repository, Index(serving=serving, releases=releases))
    return version


def _stage(run: Run, staged: Mapping[str, Path], version: int) -> None:
    """Weights, catalogue and users, checked for parity, then release.json with their checksums."""
    blueprint, home = run.blueprint, next(iter(staged.values()))
    weights, limits, kinds = {}, blueprint.limits, modules(run.graph, blueprint.limits)
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
    blueprint.catalogue.write(home)
    run.users.write(home)
    files = {
        f"{model}/{version}/{path.name}": sha256(path)
        for model, folder in staged.items()
        for path in sorted(folder.iterdir())
    }
    content = _content(run, version, list(staged), parity, files)
    _write(home / reading.FILE, json.dumps(content, indent=2) + "\n")


def _content(
    run: Run,
    version: int,
    models: list[str],
    parity: Mapping[str, Parity],
    files: Mapping[str, str],
) -> dict[str, Any]:
    blueprint = run.blueprint
    return {
        "schema": reading.SCHEMA,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "family": blueprint.family,
        "models": models,
        "signals": _signals(blueprint, models),
        "limits": dataclasses.asdict(blueprint.limits),
        "clock": blueprint.clock,
        "repurchase": blueprint.repurchase,
        "mean_rating": run.mean_rating,
        "user_features": run.user_features.to_json(),
        "data": run.digest,
        "metrics": run.metrics,
        "training": run.details,
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


def write_index(repository: Path, index: Index) -> None:
    """Replace releases.json, by rename."""
    content = {
        "schema": reading.SCHEMA,
        "serving": index.serving,
        "releases": {str(v): path for v, path in sorted(index.releases.items())},
    }
    _write(repository / reading.INDEX, json.dumps(content, indent=2) + "\n")


def promote(repository: Path, version: int) -> None:
    """Let `version` be the release that serves, from the next start of the servers on.

    Raises ReleaseError, and changes nothing, where it is unknown or not whole.
    """
    with _locked(repository):
        read_release(repository, version)
        index = read_index(repository)
        write_index(repository, Index(serving=version, releases=index.releases))


def gc(repository: Path) -> list[Path]:
    """Remove version folders and staging that releases.json does not name; what was removed."""
    with _locked(repository):
        named = {
            repository / path
            for version in read_index(repository).releases
            for path in read_release(repository, version, verify=False).files
        }
        kept = {path.parent for path in named}
        removed = [f for f in _version_folders(repository) if f not in kept]
        for folder in removed:
            shutil.rmtree(folder)
    return removed


def _index(repository: Path) -> Index:
    if not (repository / reading.INDEX).exists():
        return Index(serving=None, releases={})
    return read_index(repository)


def _check_limits(repository: Path, index: Index, limits: Limits, models: tuple[str, ...]) -> None:
    """A model's releases share one config.pbtxt, so its limits cannot change under them."""
    for version in index.releases:
        other = read_release(repository, version, verify=False)
        if set(models) & set(other.models) and other.limits != limits:
            raise ReleaseError(
                f"the run's limits {limits} are not those of release {version}, {other.limits}",
                remedy="Export into a new --repository.",
            )


def _next_version(repository: Path, index: Index) -> int:
    """Above every release and every leftover: a number is never used twice."""
    numbers = [int(f.name.removeprefix(_STAGING)) for f in _version_folders(repository)]
    return max([*numbers, *index.releases], default=0) + 1


def _version_folders(repository: Path) -> list[Path]:
    return [
        folder
        for folder in sorted(repository.glob("*/*"))
        if folder.is_dir() and folder.name.removeprefix(_STAGING).isdecimal()
    ]


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """One writer at a time; the lock goes with the process, so none is ever left behind."""
    with (repository / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ReleaseError(
                f"{repository} is being written by another process",
                remedy="Wait until it has ended.",
            ) from error
        yield


def _write(path: Path, text: str) -> None:
    """Whole or not at all, also after a power cut."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    _sync_folder(path.parent)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
