"""A Dataset and what became of its files -> the Report: counts and warnings.

Warnings are what a person should look at; nothing here changes the data.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recommender.catalogue import Catalogue
from recommender.data.baskets import count_baskets, guess_gap
from recommender.data.config import DataConfig
from recommender.data.names import likely
from recommender.data.report import ColumnGuess, Dropped, Report
from recommender.data.timing import NONE, REAL
from recommender.errors import shown
from recommender.users import Users

if TYPE_CHECKING:
    from recommender.data.dataset import Dataset

AGAIN = 0.3  # share of events with an item the user had, from which people seem to buy again
MANY = 1_000  # events of one user before it is taken for a bot
TIMES_MEDIAN = 50  # as many as so many median users together: a bot


def describe(
    folder: Path,
    dataset: Dataset,
    events: pl.DataFrame,
    *,
    records: tuple[int, int],
    time_why: str,
    dropped: tuple[Dropped, ...],
    ignored: tuple[str, ...],
    guesses: tuple[ColumnGuess, ...],
    config: DataConfig,
) -> Report:
    """`events` as `dataset.load` indexed them, with the file's times; `records`: rows kept of items
    and of users."""
    users, items = dataset.users, len(dataset.catalogue)
    names = events["event"].drop_nulls().value_counts(sort=True)
    counted = dict(names.sort(["count", "event"], descending=[True, False]).iter_rows())
    unknown = {name: n for name, n in counted.items() if name not in config.event_weights}
    same_moment = int(events.select("user", "time").is_duplicated().sum())
    pairs = events.select("user", "item").n_unique()
    times = events["time"].to_numpy()
    first, last = (int(np.floor(t)) for t in (times.min(), times.max()))
    guessed = guess_gap(users, dataset.time_kind)[1]
    return Report(
        folder=str(folder),
        digest=dataset.digest,
        interactions=len(events),
        users=len(users),
        items=items,
        users_with_events=int((users.lengths > 0).sum()),
        items_with_events=events["item"].n_unique(),
        items_without_record=items - records[0],
        users_without_record=len(users) - records[1] if records[1] else 0,
        categories=len(dataset.catalogue.category_names),
        first=first,
        last=last,
        density=pairs / (len(users) * items),
        longest_history=int(users.lengths.max()),
        simultaneous=same_moment / len(events),
        time_kind=dataset.time_kind,
        time_why=time_why,
        session_gap=dataset.session_gap,
        session_why=guessed if config.session_gap is None else "the config says so",
        baskets=count_baskets(users, dataset.session_gap),
        mean_rating=dataset.mean_rating,
        events=counted,
        negative_events=0 if users.negative is None else int(users.negative.sum()),
        taken_back=_taken_back(users),
        repeated=len(events) - pairs,
        repurchase=dataset.repurchase,
        unknown_events=unknown,
        dropped=dropped,
        ignored_columns=ignored,
        columns=guesses,
        warnings=(
            *_about_time(dataset, time_why, last),
            *_about_events(dataset, events, unknown, records[0]),
            *_about_columns(events, ignored, guesses),
            *_about_bots(users),
            *_about_categories(dataset.catalogue),
        ),
    )


def _taken_back(users: Users) -> int:
    return 0 if users.negative is None else int((~users.targets & ~users.negative).sum())


def _about_time(dataset: Dataset, why: str, last: int) -> list[str]:
    warnings = []
    if dataset.time_kind == NONE:
        warnings.append(f"{why}: the order of a history is the order of rows")
    elif dataset.time_kind != REAL:
        warnings.append(f"{why}; only their order is used: recency needs unix seconds")
    if last > datetime.now(UTC).timestamp() + 86_400:
        warnings.append(
            f"the last timestamp, {last}, lies in the future: recency is counted from it"
        )
    return warnings


def _about_events(
    dataset: Dataset, events: pl.DataFrame, unknown: dict[str, int], recorded: int
) -> list[str]:
    warnings = []
    if strangers := int((events["item"] > recorded).sum()):
        warnings.append(
            f"{strangers:,} interactions are with items that the items file lacks: kept, "
            "without title and categories"
        )
    if unknown:
        warnings.append(
            f"events without a weight count 1: {', '.join(unknown)} "
            "(give weights in [data] event_weights)"
        )
    nameless = events["event"].null_count()
    if 0 < nameless < len(events):
        warnings.append(f"{nameless:,} events have no name: they count 1")
    strongest = events.filter(pl.col("strength") == pl.col("strength").max())
    again = len(strongest) - strongest.select("user", "item").n_unique()
    browsing = strongest["event"].count() and strongest["strength"][0] <= 1  # nobody buys a view
    if not dataset.repurchase and not browsing and again > AGAIN * len(strongest):
        warnings.append(
            f"{again / len(strongest):.0%} of the strongest events are with an item that the user "
            "had before: where people buy again, set repurchase = true in the [data] table"
        )
    if dataset.mean_rating is None and events["rating"].drop_nulls().len():
        warnings.append("all ratings are the same: they are not used")
    if dataset.users.lengths.max() < 3:
        warnings.append("no user has three events: there is no history to learn from")
    return warnings


def _about_columns(
    events: pl.DataFrame, ignored: tuple[str, ...], guesses: tuple[ColumnGuess, ...]
) -> list[str]:
    """Columns that probably hold what is optional, under a name that is not read."""
    warnings = []
    for column in ("event", "rating"):
        if not events[column].count() and (name := likely(column, ignored)) is not None:
            warnings.append(
                f"column {name} of interactions is ignored: rename it to {column} if it holds that"
            )
    return warnings


def _about_bots(users: Users) -> list[str]:
    lengths = users.lengths
    usual = float(np.median(lengths[lengths > 0]))
    rows = np.flatnonzero((lengths > MANY) & (lengths > TIMES_MEDIAN * usual))
    if not len(rows):
        return []
    most = rows[np.argsort(-lengths[rows], kind="stable")][:3]
    named = ", ".join(f"{shown(users.user_ids[row])} {lengths[row]:,}" for row in most)
    return [
        f"users with many times the usual {usual:g} events: {len(rows):,}, such as {named} (for "
        "bots, set max_events_per_user or max_events_per_day in [data])"
    ]


def _about_categories(catalogue: Catalogue) -> list[str]:
    with_any = sum(1 for names in catalogue.categories if names)
    different = len(catalogue.category_names)
    if with_any >= 20 and different > with_any / 2:
        return [
            f"{different:,} different categories for {with_any:,} items, such as "
            f"{catalogue.category_names[0]!r}: separate categories by |"
        ]
    return []
