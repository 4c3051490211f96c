"""A data folder -> a Dataset: items and users in indexes, histories in order of time.

    read_table -> clean -> choose -> Dataset (catalogue, content, users,
    user_features) and Report

Whoever trains or evaluates reads data through `load` and nothing else. Everything is
held in memory: `DataConfig.max_interactions` says up to what size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from recommender.acts import ActRules
from recommender.catalogue import Catalogue
from recommender.contract import Array
from recommender.data import choose, clean, columns, describe
from recommender.data.baskets import guess_gap
from recommender.data.config import DataConfig
from recommender.data.content import ContentSpace
from recommender.data.load import ROW, Table, missing, read_table
from recommender.data.report import ColumnGuess, Dropped, Report
from recommender.data.timing import NONE, REAL, honest, kind_of_time
from recommender.errors import DataError, shown
from recommender.features import UserFeatures
from recommender.users import Users

DAY = 86_400
OLD = 1e-4  # share of an event, however old, in the popularity: keeps forgotten items in order

INTERACTIONS = ("user_id", "item_id", "timestamp")
ITEMS = ("item_id",)
USERS = ("user_id",)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    catalogue: Catalogue  # items in the file's order, then those seen in interactions only
    content: sp.csr_array  # [N + 1, F] float32 by index, unit rows; zero where nothing is known
    content_space: ContentSpace  # gives new items their content
    users: Users  # users in the file's order, then those seen in interactions only
    user_features: UserFeatures
    mean_rating: float | None  # what weights are centred by; None without ratings
    acts: ActRules  # how events came to their weights
    digest: str  # sha256 of the cleaned content, whatever the files' format
    end: int  # unix seconds of the last event
    time_kind: str  # "real", "order" (made up, but in order) or "none"
    session_gap: int  # seconds; a user's events no further apart share a basket, 0 = equal times
    repurchase: bool  # what a user already had may be recommended, and asked for, again


@dataclass(frozen=True, kw_only=True, eq=False)
class _Records:
    """Cleaned items or users and what became of their file (an absent users file is empty)."""

    frame: pl.DataFrame
    guesses: tuple[ColumnGuess, ...]
    dropped: tuple[Dropped, ...]


def load(folder: Path, config: DataConfig | None = None) -> tuple[Dataset, Report]:
    """Read, clean and index the data folder, as `config` says or else its own recserve.toml.

    Weights are 1; with `rating` the rating less the mean rating; with `event` times the
    event's weight (the product of both stays negative where either is). Raises DataError
    for a folder that cannot be used.
    """
    config = config or DataConfig.of(folder)
    table = read_table(folder, "interactions", INTERACTIONS, config.max_interactions)
    if table is None:
        raise missing(folder, "interactions", INTERACTIONS)
    items = _records(folder, "items", ITEMS, config)
    if items is None:
        raise missing(folder, "items", ITEMS)
    users = _records(folder, "users", USERS, config) or _Records(
        frame=pl.DataFrame(schema={"user_id": pl.String}), guesses=(), dropped=()
    )
    _check_names(config, items.guesses + users.guesses)
    features, user_guesses = columns.fit(users.frame, users.guesses, config)

    events, dropped = clean.clean_interactions(table)
    _refuse_strangers(events, items.frame)
    time_kind, time_why = _kind_of_time(events)  # before anything is left out
    twice: tuple[Dropped, ...] = ()
    if time_kind != NONE:
        events, twice = clean.each_once(events, table.name)
        time_kind, time_why = _kind_of_time(events) if twice else (time_kind, time_why)
    events, left_out = choose.choose(events, config, table.name, real=time_kind == REAL)
    item_ids = _all_ids(items.frame["item_id"], events["item_id"])
    user_ids = _all_ids(users.frame["user_id"], events["user_id"])
    events, mean_rating = _weighted(events)
    events = _indexed(events, user_ids, item_ids)
    owner, times = events["user"].to_numpy(), events["time"].to_numpy()
    timed = events.with_columns(time=honest(owner, times, time_kind))
    histories = _histories(timed, user_ids, columns.feature_table(users.frame, features))
    catalogue = _catalogue(items.frame, item_ids, timed, histories.targets, config)
    space = ContentSpace.fit(items.frame, items.guesses, config)
    gap = guess_gap(histories, time_kind)[0] if config.session_gap is None else config.session_gap
    dataset = Dataset(
        catalogue=catalogue,
        content=space.by_index(items.frame, len(item_ids)),
        content_space=space,
        users=histories,
        user_features=features,
        mean_rating=mean_rating,
        acts=config.acts,
        digest=_digest(
            catalogue,
            space.read_from(items.frame),
            histories,
            features,
            mean_rating,
            (gap, config.repurchase),
        ),
        end=int(histories.times.max()),
        time_kind=time_kind,
        session_gap=gap,
        repurchase=config.repurchase,
    )
    report = describe.describe(
        folder,
        dataset,
        events,
        records=(len(items.frame), len(users.frame)),
        time_why=time_why,
        dropped=dropped + twice + left_out + items.dropped + users.dropped,
        ignored=tuple(c for c in table.columns if c not in (*INTERACTIONS, "event", "rating")),
        guesses=user_guesses + items.guesses,
        config=config,
    )
    return dataset, report


def _records(folder: Path, name: str, required: tuple[str], config: DataConfig) -> _Records | None:
    table: Table | None = read_table(folder, name, required, config.max_interactions)
    if table is None:
        return None
    frame, dropped = clean.clean_records(table, required[0])
    own = ("item_id", "title", "categories") if name == "items" else USERS
    further = [c for c in table.columns if c not in own]
    guesses = columns.guess_columns(frame, name, further, config)
    return _Records(frame=frame, guesses=guesses, dropped=dropped)


def _kind_of_time(events: pl.DataFrame) -> tuple[str, str]:
    """And why."""
    ordered = events.select("user_id", "time").sort("user_id", "time")
    return kind_of_time(ordered["user_id"].rle_id().to_numpy(), ordered["time"].to_numpy())


def _check_names(config: DataConfig, guesses: tuple[ColumnGuess, ...]) -> None:
    names = [g.name for g in guesses]
    if wrong := [c for c in config.columns if c not in names]:
        raise DataError(
            f"[data] columns names {shown(wrong[0])}, which neither users nor items have",
            remedy=f"Columns that have a kind: {', '.join(names) or 'none'}.",
            field=wrong[0],
        )


def _refuse_strangers(events: pl.DataFrame, items: pl.DataFrame) -> None:
    """Interactions and items that share no id are two data sets, or one id written two ways."""
    if not events["item_id"].is_in(items["item_id"].implode()).any():
        raise DataError(
            f"no item_id of interactions stands in items: {shown(events['item_id'][0])} in row "
            f"{events[ROW][0]} of interactions, {shown(items['item_id'][0])} in row "
            f"{items[ROW][0]} of items",
            remedy="Write the ids of column item_id the same way in both files.",
            field="item_id",
        )


def _all_ids(recorded: pl.Series, seen: pl.Series) -> pl.Series:
    """Each id once: those with a record in its order, then the others as they first appear."""
    return pl.concat([recorded, seen], rechunk=True).unique(maintain_order=True)


def _weighted(events: pl.DataFrame) -> tuple[pl.DataFrame, float | None]:
    """Add `weight`, of `strength` and rating; give the mean rating."""
    ratings = events["rating"].drop_nulls()
    if ratings.n_unique() < 2:  # none, or the same everywhere: they say nothing
        return events.with_columns(weight=pl.col("strength")), None
    mean = float(np.mean(ratings.to_numpy()))
    centred = (pl.col("rating") - mean).fill_null(1.0)  # an event without a rating is plain
    product = pl.col("strength") * centred
    negative = (pl.col("strength") < 0) & (centred < 0)
    weight = pl.when(negative).then(-product).otherwise(product)
    return events.with_columns(weight=weight), mean


def _indexed(events: pl.DataFrame, user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
    """Add `user` (row) and `item` (index), sorted by user, time and row of the file."""

    def positions(ids: pl.Series, key: str, name: str, first: int) -> pl.DataFrame:
        return pl.DataFrame({key: ids}).with_row_index(name, offset=first)

    return (
        events.join(positions(user_ids, "user_id", "user", 0), on="user_id", how="left")
        .join(positions(item_ids, "item_id", "item", 1), on="item_id", how="left")
        .sort("user", "time", ROW)
    )


def _histories(events: pl.DataFrame, user_ids: pl.Series, known: Array) -> Users:
    """`known`: [users with a record, U] features, of the first users."""
    unknown = np.zeros((len(user_ids) - len(known), known.shape[1]), np.int64)
    counts = np.bincount(events["user"].to_numpy(), minlength=len(user_ids))
    negative = events["strength"].to_numpy() < 0
    return Users(
        user_ids=tuple(user_ids),
        features=np.concatenate([known, unknown]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=events["item"].to_numpy().astype(np.int64),
        times=np.floor(events["time"].to_numpy()).astype(np.int64),
        weights=events["weight"].to_numpy().astype(np.float32),
        negative=negative if negative.any() else None,
    )


def _catalogue(
    items: pl.DataFrame,
    item_ids: pl.Series,
    events: pl.DataFrame,
    wanted: Array,
    config: DataConfig,
) -> Catalogue:
    unrecorded = len(item_ids) - len(items)
    return Catalogue(
        item_ids=tuple(item_ids),
        titles=(*clean.titles(items), *[None] * unrecorded),
        categories=(*clean.categories(items), *[()] * unrecorded),
        popularity=_popularity(events, wanted, len(item_ids), config.half_life_days),
    )


def _popularity(events: pl.DataFrame, wanted: Array, items: int, half_life_days: float) -> Array:
    """[items] float32: events that count for the item, halved per half-life before the data's
    end; `wanted` [events] bool leaves out returns and what was returned."""
    times = events["time"].to_numpy()
    age = (times.max() - times[wanted]) / (DAY * half_life_days)
    share = np.exp2(-age) + OLD
    return np.bincount(events["item"].to_numpy()[wanted] - 1, share, items).astype(np.float32)


def _digest(
    catalogue: Catalogue,
    further: Sequence[object],  # columns of items
    users: Users,
    features: UserFeatures,
    mean_rating: float | None,
    choices: tuple[int, bool],  # how the same content is understood
) -> str:
    content = hashlib.sha256()
    named = [catalogue.item_ids, catalogue.titles, catalogue.categories, users.user_ids]
    content.update(json.dumps([named, features.to_json(), mean_rating]).encode())
    for array in (users.features, users.offsets, users.items, users.times, users.weights):
        content.update(np.ascontiguousarray(array).tobytes())
    if further:
        content.update(json.dumps(further).encode())
    if any(choices):
        content.update(json.dumps(choices).encode())
    if users.negative is not None:
        content.update(np.packbits(users.negative).tobytes())
    return content.hexdigest()
