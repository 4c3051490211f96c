"""Read a release from a model repository: which one serves, and is it whole?

    model_repository/
      releases.json                       the one commit point: releases that exist, which serve
      recommender_onnx/
        config.pbtxt
        3/  model.onnx  release.json  catalogue.parquet  users.parquet
      recommender_torchscript/3/  model.pt
      similar_items/3/  ranker/3/  explainer/3/   model.onnx each

`export/releases.py` writes what this module reads. Files only: no server, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recommender.acts import ActRules
from recommender.catalogue import Catalogue
from recommender.contract import RECOMMENDER, Limits, kind_of
from recommender.errors import ReleaseError, shown
from recommender.features import UserFeatures
from recommender.stored import WRITTEN_ANEW, read_json, taken
from recommender.users import Users
from recommender.variants import Variant, read_variants
from recommender.verify import check_sha256, inside, verify

INDEX = "releases.json"
FILE = "release.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Release:
    """One release: `home` is the folder of release.json, catalogue and users."""

    repository: Path
    version: int
    family: str  # "deep", "item-knn", ...
    items: int  # N: of the catalogue, and of the models' tables
    models: tuple[str, ...]  # model folders of this release; the first one serves
    limits: Limits
    user_features: UserFeatures
    mean_rating: float | None  # what history_weight is centred by; None without ratings
    acts: ActRules  # how live events count
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
        """Raise ReleaseError naming the first file that is not what was exported."""
        verify(self)


@dataclass(frozen=True, kw_only=True)
class Index:
    """releases.json: the versions that exist, the one that serves (None before the first), the
    one that served before it, which a rollback goes back to, and what lives beside it."""

    serving: int | None
    previous: int | None = None
    releases: Mapping[int, str]  # version -> path of its release.json below the repository
    checksums: Mapping[int, object]  # version -> sha256 of that file, which has those of all others
    variants: tuple[Variant, ...] = ()


def read_index(repository: Path) -> Index:
    """Raises ReleaseError where the repository has no release or the file cannot be read."""
    path = repository / INDEX
    if not path.is_file():
        raise ReleaseError(
            f"{repository} holds no release ({INDEX} is missing)",
            remedy="Run `recserve export RUN` first, or name another --repository.",
        )
    raw = read_json(path)
    numbers = taken(path, raw, "releases", dict)
    for number, home in numbers.items():
        if not number.isdecimal() or type(home) is not str:
            raise ReleaseError(
                f"{path} names release {shown(number)} at {shown(home)}, not a number and a path",
                remedy=WRITTEN_ANEW,
            )
    checksums = taken(path, raw, "checksums", dict)
    releases = {int(number): home for number, home in numbers.items()}
    optional = {"previous": None, "variants": [], **raw}
    return Index(
        serving=taken(path, raw, "serving", int, type(None)),
        previous=taken(path, optional, "previous", int, type(None)),
        releases=releases,
        checksums={int(number): checksums.get(number) for number in numbers},
        variants=read_variants(path, taken(path, optional, "variants", list), releases),
    )


def read_release(repository: Path, version: int | None = None, *, verify: bool = True) -> Release:
    """Release `version` (default: the one that serves), whole and unchanged (`verify`).

    Raises ReleaseError naming the file at fault.
    """
    index = read_index(repository)
    number = index.serving if version is None else version
    if number is None or number not in index.releases:
        raise ReleaseError(
            f"release {number} is not in {repository / INDEX}",
            remedy=f"Known: {', '.join(map(str, sorted(index.releases))) or 'none'}.",
        )
    path = inside(repository, index.releases[number], named_by=repository / INDEX)
    release = _release(repository, path, read_json(path))
    if release.version != number or path != release.home / FILE:
        raise ReleaseError(
            f"{path} is of release {release.version} of {release.models[0]}, "
            f"{repository / INDEX} names it as release {number}",
            remedy=WRITTEN_ANEW,
        )
    if verify:
        release.verify()
        check_sha256(path, index.checksums[number], number)
    return release


def _release(repository: Path, path: Path, raw: Mapping[str, Any]) -> Release:
    models = taken(path, raw, "models", list)
    if not models or not all(type(m) is str and re.fullmatch(r"\w[\w.-]*", m) for m in models):
        raise ReleaseError(
            f"{path} has models {shown(models)}, which are no folder names", remedy=WRITTEN_ANEW
        )
    try:
        limits = Limits.from_json(taken(path, raw, "limits", dict))
        user_features = UserFeatures.from_json(taken(path, raw, "user_features", list))
    except (KeyError, TypeError) as error:
        reason = str(error).replace("Limits.__init__() ", "")
        raise ReleaseError(
            f"{path} has limits or user_features that cannot be read: {reason}", remedy=WRITTEN_ANEW
        ) from error
    _check_limits(path, limits, user_features)
    return Release(
        repository=repository,
        version=taken(path, raw, "version", int),
        family=taken(path, raw, "family", str),
        items=taken(path, raw, "items", int),
        models=tuple(models),
        limits=limits,
        user_features=user_features,
        mean_rating=taken(path, raw, "mean_rating", float, int, type(None)),
        acts=_acts(path, taken(path, {"acts": {}, **raw}, "acts", dict)),
        clock=taken(path, raw, "clock", int),
        files=taken(path, raw, "files", dict),
        details=raw,
    )


def _acts(path: Path, raw: Mapping[str, Any]) -> ActRules:
    try:
        rules = ActRules.from_json(raw)
        numbers = (*rules.weights.values(), rules.burst_seconds, rules.half_life_days)
        if not all(type(n) in (int, float) for n in numbers) or rules.half_life_days <= 0:
            raise TypeError("not all of them are numbers, or the half-life is not above 0")
    except (AttributeError, TypeError) as error:
        raise ReleaseError(
            f"{path} has acts that cannot be read: {shown(raw)}", remedy=WRITTEN_ANEW
        ) from error
    return rules


def _check_limits(path: Path, limits: Limits, user_features: UserFeatures) -> None:
    wrong = {name: size for name, size in vars(limits).items() if type(size) is not int or size < 1}
    buckets = wrong.pop("length_buckets")
    if not buckets or any(
        type(size) is not int or size <= smaller
        for smaller, size in zip((0, *buckets), buckets, strict=False)
    ):
        wrong["length_buckets"] = buckets
    if user_features.width != limits.user_features:
        wrong["user_features"] = limits.user_features
    for name, size in wrong.items():
        raise ReleaseError(
            f"{path} has the limit {name} {shown(size)}, which its models cannot have",
            remedy=WRITTEN_ANEW,
        )
