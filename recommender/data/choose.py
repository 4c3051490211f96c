"""Usable interactions -> those that count, by the choices of the `[data]` table.

    events of weight 0 | beyond the caps | rated too low | repeated at once | repeats

Each step reports the rows it leaves out, like cleaning does. A return or dislike is
never left out here: it stays in the history, so that its item is not offered again.
"""

from __future__ import annotations

import polars as pl

from recommender.data.clean import noted
from recommender.data.config import DataConfig
from recommender.data.load import ROW
from recommender.data.report import Dropped
from recommender.data.timing import DAY
from recommender.errors import DataError, shown

NAMED = 5  # users beyond the cap that the report names
PAIR = ("user", "item_id")

Rule = tuple[str, str, pl.Expr]  # column, reason, true where the row must go


def choose(
    events: pl.DataFrame, config: DataConfig, file: str, *, real: bool
) -> tuple[pl.DataFrame, tuple[Dropped, ...]]:
    """The rows that count, with their `strength`, in the file's order; `real`: their times are.

    With `min_rating` the ratings have had their say: they become null. Raises DataError
    where no row is left, or none is rated and `min_rating` is set.
    """
    strength = pl.col("event").replace_strict(
        dict(config.event_weights), default=1.0, return_dtype=pl.Float64
    )
    events = events.with_columns(strength=strength.fill_null(1.0))
    events = events.sort("user_id", "time", ROW).with_columns(user=pl.col("user_id").rle_id())
    _check_ratings(events, config)
    dropped: list[Dropped] = []
    for column, reason, bad in _rules(config, real):
        marked = events.with_columns(bad.fill_null(False).alias("gone"))
        gone, events = marked.filter("gone"), marked.filter(~pl.col("gone")).drop("gone")
        if len(gone):
            value = _counts(gone) if column == "user_id" else shown(gone.sort(ROW)[column][0])
            dropped.append(noted(file, gone, column, reason, value))
        if events.is_empty():
            raise DataError(
                f"{file}: no interaction is left: {'; '.join(map(str, dropped))}",
                remedy="Loosen that choice in the [data] table.",
                field=column,
            )
    if config.min_rating is not None:
        events = events.with_columns(rating=pl.lit(None, pl.Float64))
    return events.sort(ROW).drop("user"), tuple(dropped)


def _rules(config: DataConfig, real: bool) -> list[Rule]:
    """Of events sorted by user, time and row. Seconds and days mean something in `real` time."""
    rules: list[Rule] = [("event", "event of weight 0", pl.col("strength") == 0)]
    if config.max_events_per_day and real:
        day = (pl.col("time") // DAY).alias("day")
        reason = f"older than the newest {config.max_events_per_day:,} of the user's day"
        rules.append(("user_id", reason, _from_end("user", day) >= config.max_events_per_day))
    if config.max_events_per_user:
        reason = f"older than the user's newest {config.max_events_per_user:,}"
        rules.append(("user_id", reason, _from_end("user") >= config.max_events_per_user))
    if config.min_rating is not None:
        low = pl.col("rating") < config.min_rating
        rules.append(("rating", f"rated below {config.min_rating:g}", low))
    if config.burst_seconds and real:
        alike = ("user", "item_id", "event", "rating")
        following = [pl.col(c).shift(-1).eq_missing(pl.col(c)) for c in alike]
        soon = pl.col("time").shift(-1) - pl.col("time") <= config.burst_seconds
        reason = f"repeated within {config.burst_seconds} s"
        rules.append(("item_id", reason, pl.all_horizontal(soon, *following)))
    if config.repeats != "keep":
        # returns keep their place: what takes back must stay behind what it takes back
        kind = (pl.col("strength") < 0).alias("negative")
        number = pl.int_range(pl.len()).over(*PAIR, kind)
        from_chosen = number if config.repeats == "first" else _from_end(*PAIR, kind)
        reason = f"not the user's {config.repeats} with the item"
        rules.append(("item_id", reason, (pl.col("strength") > 0) & (from_chosen > 0)))
    return rules


def _from_end(*group: str | pl.Expr) -> pl.Expr:
    """0 for the last row of its group, 1 for the one before, ..."""
    return (pl.len() - 1 - pl.int_range(pl.len())).over(*group)


def _check_ratings(events: pl.DataFrame, config: DataConfig) -> None:
    if config.min_rating is not None and not events["rating"].count():
        raise DataError(
            f"min_rating is {config.min_rating:g} and no interaction has a rating",
            remedy="Add a column rating, or remove min_rating from the [data] table.",
            field="rating",
        )


def _counts(gone: pl.DataFrame) -> str:
    """The users that lost most rows, with how many: "'bot' 1,203, 'crawler' 7"."""
    counted = gone["user_id"].value_counts().sort(["count", "user_id"], descending=[True, False])
    named = [f"{shown(u)} {n:,}" for u, n in counted.head(NAMED).iter_rows()]
    more = f", … {len(counted):,} users in all" if len(counted) > NAMED else ""
    return f"of {', '.join(named)}{more}"
