"""Is a release what was exported, and safe to open? Asked before any server opens a file of it.

Every file that the release names lies in its own folders, is no link, and has the bytes of the
export; nothing else lies there; ONNX files point to no other file; catalogue and users are tables
of the release's sizes. What a model computes is checked where it loads (`serving/backends/`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recommender import catalogue, users
from recommender.errors import ReleaseError, shown
from recommender.external_data import external_tensors

if TYPE_CHECKING:
    from recommender.release import Release

ANOTHER = "Export the run again, or roll back to another release."


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, wanted: object, version: int) -> None:
    if (seen := sha256(path)) != wanted:
        raise ReleaseError(
            f"{path} is corrupted: sha256 {seen[:12]}…, release {version} "
            f"was exported with {str(wanted)[:12]}…",
            remedy=ANOTHER,
        )


def inside(repository: Path, name: object, *, named_by: Path) -> Path:
    """The path `name` below the repository, reached without `..` and without a link."""
    path = repository / str(name)
    root = repository.resolve()
    wanted = root / str(name)
    if "\0" in str(name) or not wanted.is_relative_to(root) or ".." in wanted.parts:
        raise ReleaseError(
            f"{named_by} names {shown(name)}, which is no path inside the repository",
            remedy=ANOTHER,
        )
    if (seen := wanted.resolve()) != wanted:
        raise ReleaseError(
            f"{path} is reached by a link, to {seen}",
            remedy="Put the files themselves there: a link can lead to anything.",
        )
    return path


def verify(release: Release) -> None:
    """Raise ReleaseError naming the first file at fault."""
    named_by = release.home / "release.json"
    folders = {f"{model}/{release.version}" for model in release.models}
    for name, wanted in release.files.items():
        path = inside(release.repository, name, named_by=named_by)
        if str(Path(name).parent) not in folders:
            raise ReleaseError(
                f"{named_by} names {shown(name)}, which is in none of the folders "
                f"{', '.join(sorted(folders))}",
                remedy=ANOTHER,
            )
        if not path.is_file():
            raise ReleaseError(f"release {release.version} lacks {path}", remedy=ANOTHER)
        check_sha256(path, wanted, release.version)
        if path.suffix == ".onnx":
            _check_self_contained(path)
    for folder in sorted(folders):
        _check_nothing_more(release, folder, named_by)
    _check_catalogue(release, release.home / catalogue.FILE)
    _check_users(release, release.home / users.FILE)


def _check_nothing_more(release: Release, folder: str, named_by: Path) -> None:
    """What nobody named nobody checked, and a server may open it all the same."""
    for path in sorted((release.repository / folder).glob("*")):
        if f"{folder}/{path.name}" not in release.files and path != named_by:
            raise ReleaseError(
                f"{path} is none of the files of release {release.version}",
                remedy="Move it elsewhere.",
            )


def _check_self_contained(path: Path) -> None:
    try:
        tensors = external_tensors(path)
    except ValueError as error:
        raise ReleaseError(f"{path} is no ONNX model: {error}", remedy=ANOTHER) from error
    if tensors:
        raise ReleaseError(
            f"{path} keeps tensor {shown(tensors[0])} in another file",
            remedy="Save the model as one file: external data can be any file of the machine.",
        )


def _check_catalogue(release: Release, path: Path) -> None:
    rows = _summary(path, catalogue.SCHEMA, rows=pl.len())["rows"]
    if rows != release.items:
        raise ReleaseError(
            f"{path} has {rows} items, the models of release {release.version} have "
            f"{release.items}",
            remedy=ANOTHER,
        )


def _check_users(release: Release, path: Path) -> None:
    seen = _summary(
        path,
        users.SCHEMA,
        widths=pl.col("features").list.len().unique().sort().implode(),
        item=pl.col("items").list.max().max(),
    )
    wanted = release.limits.user_features
    if any(width != wanted for width in seen["widths"]):
        raise ReleaseError(
            f"{path} has users of {seen['widths']} features, release {release.version} has "
            f"{wanted}",
            remedy=ANOTHER,
        )
    if (seen["item"] or 0) > release.items:
        raise ReleaseError(
            f"{path} has a history with item {seen['item']} of {release.items}", remedy=ANOTHER
        )


def _summary(path: Path, schema: dict[str, Any], **wanted: pl.Expr) -> dict[str, Any]:
    """The values `wanted` of the table in `path`, which has at least the columns of `schema`."""
    if not path.is_file():
        raise ReleaseError(f"{path} is missing", remedy=ANOTHER)
    try:
        table = pl.scan_parquet(path, glob=False)
        columns = dict(table.collect_schema())
        for name, dtype in schema.items():
            if columns.get(name) != dtype:
                raise ReleaseError(
                    f"{path} has column {name} as {columns.get(name)} instead of {dtype}",
                    remedy=ANOTHER,
                )
        return table.select(**wanted).collect().row(0, named=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ReleaseError(f"{path} is no table: {reason}", remedy=ANOTHER) from error
