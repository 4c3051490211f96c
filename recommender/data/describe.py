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
from recommender.data.config import DataConfig
from recommender.data.report import ColumnGuess, Dropped, Report

if TYPE_CHECKING:
    from recommender.data.dataset import Dataset

EARLY = 1e8  # March 1973: what lies before is rather a counter or a date such as 20240131


def describe(
    folder: Path,
    dataset: Dataset,
    events: pl.DataFrame,
    *,
    records: tuple[int, int],
    dropped: tuple[Dropped, ...],
    ignored: tuple[str, ...],
    guesses: tuple[ColumnGuess, ...],
    config: DataConfig,
) -> Report:
    """`events` as `dataset.load` indexed them; `records`: rows kept of items and of users."""
    users, items = dataset.users, len(dataset.catalogue)
    names = events["event"].drop_nulls().value_counts(sort=True)
    counted = dict(names.sort(["count", "event"], descending=[True, False]).iter_rows())
    unknown = {name: n for name, n in counted.items() if name not in config.event_weights}
    same_moment = int(events.select("user", "time").is_duplicated().sum())
    pairs = events.select("user", "item").n_unique()
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
        first=int(users.times.min()),
        last=dataset.end,
        density=pairs / (len(users) * items),
        longest_history=int(users.lengths.max()),
        simultaneous=same_moment / len(events),
        mean_rating=dataset.mean_rating,
        events=counted,
        unknown_events=unknown,
        dropped=dropped,
        ignored_columns=ignored,
        columns=guesses,
        warnings=(
            *_about_time(dataset),
            *_about_events(dataset, events, unknown, records[0]),
            *_about_categories(dataset.catalogue),
        ),
    )


def _about_time(dataset: Dataset) -> list[str]:
    times = dataset.users.times
    warnings = []
    if times.min() == times.max():
        warnings.append(
            f"all timestamps are {times[0]}: the order of a history is the order of rows"
        )
    if np.median(times) < EARLY:
        warnings.append(
            f"timestamps lie around {int(np.median(times))}, in the years 1970 to 1973: they "
            "should be unix seconds, not counters or dates such as 20240131"
        )
    if dataset.end > datetime.now(UTC).timestamp() + 86_400:
        warnings.append(
            f"the last timestamp, {dataset.end}, lies in the future: recency is counted from it"
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
    if dataset.mean_rating is None and events["rating"].drop_nulls().len():
        warnings.append("all ratings are the same: they are not used")
    if dataset.users.lengths.max() < 3:
        warnings.append("no user has three events: there is no history to learn from")
    return warnings


def _about_categories(catalogue: Catalogue) -> list[str]:
    with_any = sum(1 for names in catalogue.categories if names)
    different = len(catalogue.category_names)
    if with_any >= 20 and different > with_any / 2:
        return [
            f"{different:,} different categories for {with_any:,} items, such as "
            f"{catalogue.category_names[0]!r}: separate categories by |"
        ]
    return []
