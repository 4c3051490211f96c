"""Read a release from a model repository: which one serves, and is it whole?

    model_repository/
      releases.json                       the one commit point: releases that exist, which serves
      recommender_onnx/
        config.pbtxt
        3/  model.onnx  release.json  catalogue.parquet  users.parquet
      recommender_torchscript/3/  model.pt
      similar_items/3/  ranker/3/  explainer/3/   model.onnx each

`export/releases.py` writes what this module reads. Files only: no server, no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recommender.catalogue import Catalogue
from recommender.contract import RECOMMENDER, Limits, kind_of
from recommender.errors import ReleaseError
from recommender.features import UserFeatures
from recommender.users import Users

INDEX = "releases.json"
FILE = "release.json"
SCHEMA = 1


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """One release: `home` is the folder of release.json, catalogue and users."""

    repository: Path
    version: int
    family: str  # "deep", "item-knn", ...
    models: tuple[str, ...]  # model folders of this release; the first one serves
    limits: Limits
    user_features: UserFeatures
    mean_rating: float | None  # what history_weight is centred by; None without ratings
    clock: int  # latest time the model knows how to read: request_time is clamped to it
    files: Mapping[str, str]  # path below the repository -> sha256
    details: Mapping[str, Any]  # the whole release.json: created, digests, metrics, parity

    @property
    def home(self) -> Path:
        return self.repository / self.models[0] / str(self.version)

    @property
    def recommenders(self) -> tuple[str, ...]:
        """Of the models, those that recommend: all that BentoML asks for `/v1/recommend`."""
        return tuple(model for model in self.models if kind_of(model) == RECOMMENDER)

    @cached_property
    def catalogue(self) -> Catalogue:
        return Catalogue.read(self.home)

    @cached_property
    def users(self) -> Users:
        return Users.read(self.home)

    def verify(self) -> None:
        """Raise ReleaseError naming the first file that is missing or not what was exported."""
        for name, wanted in self.files.items():
            path = self.repository / name
            if not path.is_file():
                raise ReleaseError(
                    f"release {self.version} lacks {path}",
                    remedy="Export the run again, or roll back to another release.",
                )
            if (seen := sha256(path)) != wanted:
                raise ReleaseError(
                    f"{path} is corrupted: sha256 {seen[:12]}…, release {self.version} "
                    f"was exported with {wanted[:12]}…",
                    remedy="Export the run again, or roll back to another release.",
                )


@dataclass(frozen=True, kw_only=True)
class Index:
    """releases.json: the versions that exist and the one that serves (None before the first)."""

    serving: int | None
    releases: Mapping[int, str]  # version -> path of its release.json below the repository


def read_index(repository: Path) -> Index:
    """Raises ReleaseError where the repository has no release or the file cannot be read."""
    path = repository / INDEX
    if not path.is_file():
        raise ReleaseError(
            f"{repository} holds no release ({INDEX} is missing)",
            remedy="Run `recserve export RUN` first, or name another --repository.",
        )
    raw = _read_json(path)
    releases = {int(version): str(home) for version, home in raw["releases"].items()}
    return Index(serving=raw["serving"], releases=releases)


def read_release(repository: Path, version: int | None = None, *, verify: bool = True) -> Release:
    """Release `version` (default: the one that serves), its checksums verified.

    Raises ReleaseError naming the file at fault.
    """
    index = read_index(repository)
    number = index.serving if version is None else version
    if number is None or number not in index.releases:
        raise ReleaseError(
            f"release {number} is not in {repository / INDEX}",
            remedy=f"Known: {', '.join(map(str, sorted(index.releases))) or 'none'}.",
        )
    path = repository / index.releases[number]
    raw = _read_json(path)
    release = Release(
        repository=repository,
        version=int(raw["version"]),
        family=raw["family"],
        models=tuple(raw["models"]),
        limits=Limits.from_json(raw["limits"]),
        user_features=UserFeatures.from_json(raw["user_features"]),
        mean_rating=raw["mean_rating"],
        clock=int(raw["clock"]),
        files=raw["files"],
        details=raw,
    )
    if verify:
        release.verify()
    return release


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ReleaseError(f"{path} is missing", remedy="Export the run again.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ReleaseError(
            f"{path} is not JSON: {error}", remedy="Export the run again."
        ) from error
    if raw.get("schema") != SCHEMA:
        raise ReleaseError(
            f"{path} has schema {raw.get('schema')!r}, this recserve reads {SCHEMA}",
            remedy="Export the run again with this recserve, or use the recserve that wrote it.",
        )
    return raw
