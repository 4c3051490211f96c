"""Tables of text -> tables of usable rows, and what was dropped, by reason and row.

    interactions  ->  user_id, item_id, time (float seconds), event, rating
    items, users  ->  the same columns, each id once

Nothing is repaired silently: a row is used as it stands or dropped and counted.
Raises DataError where most rows of a file, or its unit of time, make no sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl

from recommender.data.load import ROW, Table
from recommender.data.report import Dropped
from recommender.errors import DataError, shown

EXAMPLES = 3
LATEST = 1e11  # unix seconds of the year 5138: whatever lies beyond is no count of seconds
LARGEST_RATING = 1e6

REMEDIES = {
    "missing id": "Give every row an id, or remove those rows.",
    "control character in id": 'Look for a quote (") that is not closed above that row.',
    "missing timestamp": "Give every row a timestamp: unix seconds or ISO 8601.",
    "unreadable timestamp": "Write unix seconds (881250949) or ISO 8601 (1997-12-04T15:55:49Z).",
    "timestamp out of range": "Write unix seconds from 1970 on.",
    "unreadable rating": "Write plain finite numbers, or leave the field empty.",
    "duplicate id": "Write each id once.",
}

Rule = tuple[str, str, pl.Expr]  # column, reason, true where the row must go


def clean_interactions(table: Table) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """ROW, user_id, item_id, time Float64, event String, rating Float64, in the file's order.

    `event` and `rating` are null throughout where the file lacks them.
    """
    raw = table.frame
    none = pl.lit(None, pl.String)
    raw = raw.with_columns(
        [none.alias(c) for c in ("event", "rating") if c not in raw.columns],
    ).with_columns(
        time=read_times(raw["timestamp"]),
        was_rating=pl.col("rating").cast(pl.String).str.strip_chars(),
    )
    _refuse_other_units(table, raw["time"])
    frame = raw.select(
        ROW,
        _id("user_id"),
        _id("item_id"),
        "time",
        event=_id("event").str.to_lowercase(),
        rating=pl.col("was_rating").cast(pl.Float64, strict=False),
        timestamp=pl.col("timestamp").cast(pl.String).str.strip_chars(),
        was_rating=pl.when(pl.col("was_rating") != "").then("was_rating"),
    )
    rating = pl.col("rating")
    rules: list[Rule] = [
        ("user_id", "missing id", pl.col("user_id").is_null()),
        ("item_id", "missing id", pl.col("item_id").is_null()),
        ("user_id", "control character in id", _broken("user_id")),
        ("item_id", "control character in id", _broken("item_id")),
        ("timestamp", "missing timestamp", pl.col("timestamp").fill_null("") == ""),
        ("timestamp", "unreadable timestamp", pl.col("time").is_null()),
        ("timestamp", "timestamp out of range", ~pl.col("time").is_between(0, LATEST)),
        (
            "rating",
            "unreadable rating",
            pl.col("was_rating").is_not_null()
            & ~(rating.is_finite() & (rating.abs() <= LARGEST_RATING)).fill_null(False),
        ),
    ]
    shown_as = {"rating": "was_rating"}
    kept, dropped = _sift(table, frame, rules, shown_as)
    return kept.drop("timestamp", "was_rating"), dropped


def each_once(events: pl.DataFrame, file: str) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """Without the rows that say again what a row above them says.

    However many they are, nothing is lost with them; but where times tell nothing apart, two such
    rows are two events, and this is not to be asked.
    """
    first = pl.struct("user_id", "item_id", "time", "event", "rating").is_first_distinct()
    again = events.filter(~first)
    if again.is_empty():
        return events, ()
    value = shown(again["user_id"][0])
    return events.filter(first), (noted(file, again, "user_id", "duplicate row", value),)


def clean_records(table: Table, key: str) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """Items or users: rows with an id in `key`, the first of each id."""
    rules: list[Rule] = [
        (key, "missing id", pl.col(key).is_null()),
        (key, "control character in id", _broken(key)),
        (key, "duplicate id", ~pl.col(key).is_first_distinct()),
    ]
    return _sift(table, table.frame.with_columns(_id(key)), rules, {})


def read_times(values: pl.Series) -> pl.Series:
    """Float64 unix seconds of numbers, datetimes or text; null where unreadable.

    Text is a number of seconds or ISO 8601, in UTC where it names no zone.
    """
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return values.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6
    if not values.dtype.is_numeric():
        text = values.cast(pl.String).str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        other = text.filter(numbers.is_null() & text.is_not_null()).unique()
        read = {t: _iso(t) for t in other}
        if read:
            dates = text.replace_strict(read, default=None, return_dtype=pl.Float64)
            numbers = numbers.fill_null(dates)
        values = numbers
    seconds = values.cast(pl.Float64)
    return pl.select(pl.when(seconds.is_finite()).then(seconds)).to_series()


def titles(items: pl.DataFrame) -> list[str | None]:
    """The title of each row, None where there is none."""
    if "title" not in items.columns:
        return [None] * len(items)
    text = items["title"].cast(pl.String).str.strip_chars()
    return [title or None for title in text]


def categories(items: pl.DataFrame) -> list[tuple[str, ...]]:
    """The categories of each row."""
    if "categories" not in items.columns:
        return [()] * len(items)
    return [tuple(names) for names in split_categories(items["categories"])]


def split_categories(values: pl.Series) -> pl.Series:
    """List(String) of `|`-separated text or of a list: trimmed, none empty, each once."""
    if values.dtype == pl.String:
        values = values.str.split("|")
    elif values.dtype != pl.List(pl.String):
        raise DataError(
            f"column categories of items is of type {values.dtype}, first in row 1",
            remedy='Write text separated by "|", or a list of text.',
            field="categories",
        )
    one = pl.element().str.strip_chars()
    return (
        values.list.eval(one.filter(one.is_not_null() & (one != "")))
        .list.unique(maintain_order=True)
        .fill_null([])
    )


def noted(file: str, gone: pl.DataFrame, column: str, reason: str, value: str) -> Dropped:
    """What the report says of the rows `gone`; `value` is what stood in the first of them."""
    rows = tuple(gone[ROW].sort().head(EXAMPLES))
    return Dropped(file=file, column=column, reason=reason, count=len(gone), rows=rows, value=value)


def _id(column: str) -> pl.Expr:
    """Text without outer spaces; null where nothing is left."""
    text = pl.col(column).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text).alias(column)


def _broken(column: str) -> pl.Expr:
    """An id over two lines is what a stray quote makes of several rows."""
    return pl.col(column).str.contains(r"[\x00-\x1f\x7f]")


def _iso(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _sift(
    table: Table, frame: pl.DataFrame, rules: Sequence[Rule], shown_as: dict[str, str]
) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """Apply the rules in turn; raise DataError if more than half of the rows go."""
    before, dropped = len(frame), []
    for column, reason, bad in rules:
        gone = frame.filter(bad)
        if gone.is_empty():
            continue
        frame = frame.filter(~bad)
        value = shown(gone[shown_as.get(column, column)][0])
        dropped.append(noted(table.name, gone, column, reason, value))
    if 2 * len(frame) < before or frame.is_empty():
        worst = max(dropped, key=lambda d: d.count)
        others = [f"{d.count:,} × {d.reason} in {d.column}" for d in dropped if d is not worst]
        besides = f"; besides, {', '.join(others)}" if others else ""
        raise DataError(
            f"{table.name}: {before - len(frame):,} of {before:,} rows cannot be used: "
            f"{worst.count:,} × {worst.reason} in column {worst.column}, first in row "
            f"{worst.rows[0]} ({worst.value}){besides}",
            remedy=REMEDIES[worst.reason],
            field=worst.column,
        )
    return frame, tuple(dropped)


def _refuse_other_units(table: Table, times: pl.Series) -> None:
    """Milliseconds and finer are never converted silently."""
    middle = times.median()
    if not isinstance(middle, float) or middle <= LATEST:
        return
    unit, factor = next(
        (name, factor)
        for most, name, factor in (
            (1e14, "milliseconds", "1,000"),
            (1e17, "microseconds", "1,000,000"),
            (float("inf"), "nanoseconds", "1,000,000,000"),
        )
        if middle <= most
    )
    row = int((times > LATEST).arg_max() or 0)
    raise DataError(
        f"{table.name}: column timestamp looks like {unit}, first in row "
        f"{table.frame[ROW][row]} ({table.frame['timestamp'][row]})",
        remedy=f"Divide it by {factor}: timestamps are unix seconds.",
        field="timestamp",
    )
