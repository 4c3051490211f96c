"""An event store -> a data folder for the next training, after the folder of the last one.

    base: interactions without what was forgotten, items, users without the forgotten, recserve.toml
    store: its events, behind them
                                            ->  interactions.csv, items, users, recserve.toml

The base is read as a training reads it, into memory; the store's events stream.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import polars as pl

from bento.store import Reader, reading
from recommender.data.clean import read_times
from recommender.data.config import FILE, DataConfig
from recommender.data.dataset import INTERACTIONS, ITEMS, USERS
from recommender.data.folder import new_folder
from recommender.data.load import ENDINGS, ROW, missing, read_table
from recommender.errors import DataError

OPTIONAL = ("event", "rating")


@dataclass(frozen=True, kw_only=True)
class Written:
    base: int  # interactions
    events: int  # of the store
    forgotten: int  # interactions of the base that were left out
    users: int  # of the users table that were left out


def from_store(url: str, out: Path, base: Path | None) -> Written:
    """Raises DataError for a base that cannot be used and where there is no event at all;
    Unavailable and BadInput as the store does."""
    with reading(url) as store, new_folder(out) as folder:
        with (folder / "interactions.csv").open("w", newline="") as file:
            columns, kept, forgotten = (
                _base_interactions(base, store, file) if base else _no_base(file)
            )
            events, items = _events(store, file, columns, wanted=base is None)
        if not events and not kept:
            raise DataError(
                f"there is not one event in {url.rpartition('@')[2]}",
                remedy="Send some to /v1/events, or name the last data folder with --base.",
            )
        users = _copy_the_rest(base, store, folder) if base else _write_items(folder, items)
    return Written(base=kept, events=events, forgotten=forgotten, users=users)


def _no_base(file: TextIO) -> tuple[list[str], int, int]:
    columns = [*INTERACTIONS, "event"]
    csv.writer(file, lineterminator="\n").writerow(columns)
    return columns, 0, 0


def _base_interactions(base: Path, store: Reader, file: TextIO) -> tuple[list[str], int, int]:
    """Its columns, and how many of its rows were written and left out."""
    most = DataConfig.of(base).max_interactions
    table = read_table(base, "interactions", INTERACTIONS, most)
    if table is None:
        raise missing(base, "interactions", INTERACTIONS)
    frame = table.frame.drop(ROW)
    times = read_times(frame["timestamp"])
    if frame["timestamp"].dtype.is_temporal():
        frame = frame.with_columns(timestamp=times)
    rating = ["rating"] if "rating" in frame.columns else []
    columns = [*INTERACTIONS, "event", *rating]
    if "event" not in frame.columns:
        frame = frame.with_columns(event=pl.lit(None, pl.String))
    erasures = _erasures(frame["user_id"], store)
    until = frame["user_id"].str.strip_chars().replace_strict(erasures, default=None,
                                                              return_dtype=pl.Float64)  # fmt: skip
    kept = frame.filter(until.is_null() | (times > until).fill_null(False))
    kept.select(columns).write_csv(file)
    return columns, len(kept), len(frame) - len(kept)


def _events(
    store: Reader, file: TextIO, columns: list[str], *, wanted: bool
) -> tuple[int, dict[str, None]]:
    """How many were written, and their items where they are wanted."""
    writer = csv.writer(file, lineterminator="\n")
    filler = [""] * (len(columns) - len(INTERACTIONS) - 1)
    items: dict[str, None] = {}
    count = 0
    for count, e in enumerate(store.events(), start=1):  # noqa: B007 - counts on
        writer.writerow([e.user_id, e.item_id, e.timestamp, e.event, *filler])
        if wanted:
            items[e.item_id] = None
    return count, items


def _write_items(folder: Path, items: dict[str, None]) -> int:
    pl.DataFrame({"item_id": list(items)}, schema={"item_id": pl.String}).write_csv(
        folder / "items.csv"
    )
    return 0


def _copy_the_rest(base: Path, store: Reader, folder: Path) -> int:
    """Items and recserve.toml as they are, users without those who were forgotten, who are
    counted."""
    items = [path for ending in ENDINGS if (path := base / f"items{ending}").is_file()]
    if not items:
        raise missing(base, "items", ITEMS)
    for path in (*items, base / FILE):
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    table = read_table(base, "users", USERS, DataConfig.of(base).max_interactions)
    if table is None:
        return 0
    forgotten = _erasures(table.frame["user_id"], store)
    ids = table.frame["user_id"].str.strip_chars()
    kept = table.frame.drop(ROW).filter(~ids.is_in(list(forgotten)).fill_null(False))
    if len(kept):
        nested = any(dtype.is_nested() for dtype in kept.dtypes)
        kept.write_parquet(folder / "users.parquet") if nested else kept.write_csv(
            folder / "users.csv"
        )
    return len(table.frame) - len(kept)


def _erasures(ids: pl.Series, store: Reader) -> dict[str, float]:
    users = ids.str.strip_chars().drop_nulls().unique()
    return {user: float(at) for user in users if (at := store.erasure(user)) is not None}
