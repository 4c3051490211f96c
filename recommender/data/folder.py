"""Write a data folder whole or not at all: filled beside its place, moved there at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recommender.errors import DataError


def refuse_taken(out: Path) -> None:
    """Raise DataError unless `out` is free: absent, or an empty folder."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(
            f"{out} exists already{' and is not empty' if out.is_dir() else ' and is a file'}",
            remedy="Name another folder, or remove it first.",
            field="out",
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; it becomes `out` when the block ends well and vanishes when it fails."""
    refuse_taken(out)
    out = out.resolve()  # "." has no parent to fill a folder in
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise DataError(
            f"cannot write below {out.parent}: {error.strerror}",
            remedy="Name a folder in one that you may write to.",
            field="out",
        ) from error
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp's folders are for their owner alone
        staging.replace(out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
