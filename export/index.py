"""A model repository's one commit point, releases.json: who may write it, which release serves,
what nobody names any more.

    releases.json        replaced by rename, last of all (see recommender/release.py)
    .lock                held by whoever writes; it goes with the process
    <model>/.tmp-N/      staging, invisible to Triton

Whatever happens before the index is replaced leaves folders that nothing names: Triton is
asked for exact versions only, and `gc` removes them. Files only: no server is asked or told.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from recommender import release as reading
from recommender.errors import ReleaseError
from recommender.release import Index, Release, read_index, read_release
from recommender.stored import SCHEMA

STAGING = ".tmp-"
LOCK = ".lock"


@contextmanager
def locked(repository: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """One writer at a time. Raises ReleaseError where another holds the lock for `wait_s`."""
    until = time.monotonic() + wait_s
    with (repository / LOCK).open("w") as file:
        while not _taken(file.fileno()):
            if time.monotonic() > until:
                raise ReleaseError(
                    f"{repository} is being written by another process",
                    remedy="Wait until it has ended.",
                )
            time.sleep(0.02)
        yield


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def index_of(repository: Path) -> Index:
    """The index; an empty one before the first release."""
    if not (repository / reading.INDEX).exists():
        return Index(serving=None, releases={}, checksums={})
    return read_index(repository)


def write_index(repository: Path, index: Index) -> None:
    """Replace releases.json, by rename."""
    content = {
        "schema": SCHEMA,
        "serving": index.serving,
        "previous": index.previous,
        "releases": {str(v): path for v, path in sorted(index.releases.items())},
        "checksums": {str(v): index.checksums[v] for v in sorted(index.releases)},
        "variants": [variant.to_json() for variant in index.variants],
    }
    write(repository / reading.INDEX, json.dumps(content, indent=2) + "\n")


def choose(repository: Path, release: Release) -> None:
    """Let `release` be the one that serves; the caller holds the lock and has checked it.

    A variant that is now the default itself goes: there is nothing left to compare. One of
    another model of that release stays.
    """
    index = read_index(repository)
    if release.version == index.serving:
        return
    same = (None, release.models[0])
    variants = tuple(
        v for v in index.variants if v.release != release.version or v.model not in same
    )
    write_index(
        repository,
        replace(index, serving=release.version, previous=index.serving, variants=variants),
    )


def gc(repository: Path, *, keep: int | None = None) -> list[Path]:
    """Remove version folders and staging that releases.json does not name; what was removed.

    With `keep`, older releases than the newest `keep` leave the index first; the one that serves,
    the one before it and those of variants stay.
    """
    with locked(repository):
        index = read_index(repository)
        if keep is not None:
            wanted = {*sorted(index.releases)[-keep:], index.serving, index.previous}
            wanted |= {variant.release for variant in index.variants}
            left = {v: path for v, path in index.releases.items() if v in wanted}
            index = replace(index, releases=left)
            write_index(repository, index)
        named = {
            repository / path
            for version in index.releases
            for path in read_release(repository, version, verify=False).files
        }
        kept = {path.parent for path in named}
        removed = [f for f in version_folders(repository) if f not in kept]
        for folder in removed:
            shutil.rmtree(folder)
    return removed


def next_version(repository: Path, index: Index) -> int:
    """Above every release and every leftover: a number is never used twice."""
    numbers = [int(f.name.removeprefix(STAGING)) for f in version_folders(repository)]
    return max([*numbers, *index.releases], default=0) + 1


def version_folders(repository: Path) -> list[Path]:
    return [
        folder
        for folder in sorted(repository.glob("*/*"))
        if folder.is_dir() and folder.name.removeprefix(STAGING).isdecimal()
    ]


def write(path: Path, text: str) -> None:
    """Whole or not at all, also after a power cut."""
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def sync(folder: Path) -> None:
    """All files of a folder, and the folder, are on the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
