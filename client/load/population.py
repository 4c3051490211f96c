"""Who asks: the users of a release, or of a data folder, and how often each of them comes.

Each user as often as any other, in a new order each round; or by Zipf's law, where the user of
rank r (a random order) comes in proportion to r ** -exponent. Knows no questions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from recommender.catalogue import Catalogue
from recommender.contract import Array
from recommender.errors import BadInput, DataError
from recommender.users import Users

BLOCK = 4096  # draws at a time
COLUMNS = ("user_id", "item_id", "timestamp")


def of_folder(folder: Path, catalogue: Catalogue, features: int) -> Users:
    """The users of `folder`'s interactions, with histories of the items that `catalogue` knows,
    oldest first; of their columns (`features` of them) nothing is known. Raises DataError."""
    from recommender.data import clean
    from recommender.data.config import DataConfig
    from recommender.data.load import missing, read_table

    limit = DataConfig.of(folder).max_interactions
    table = read_table(folder, "interactions", COLUMNS, limit)
    if table is None:
        raise missing(folder, "interactions", COLUMNS)
    events, _ = clean.clean_interactions(table)
    known = pl.DataFrame(
        {"item_id": catalogue.item_ids, "item": range(1, len(catalogue) + 1)},
        schema={"item_id": pl.String, "item": pl.Int64},
    )
    found = events.join(known, on="item_id").sort("user_id", "time", maintain_order=True)
    if found.is_empty():
        raise DataError(
            f"{folder} has no event of an item that the release knows",
            remedy="Name the data folder that the release was trained on, or a later state of it.",
            field="data",
        )
    users = found.group_by("user_id", maintain_order=True).len()
    return Users(
        user_ids=tuple(users["user_id"]),
        features=np.zeros((len(users), features), np.int64),
        offsets=np.concatenate([[0], np.cumsum(users["len"].to_numpy())]).astype(np.int64),
        items=found["item"].to_numpy().astype(np.int64),
        times=found["time"].to_numpy().astype(np.int64),
        weights=np.ones(len(found), np.float32),
    )


def arriving(count: int, zipf: float | None, seed: int, stream: int = 0) -> Iterator[int]:
    """Rows of `count` users, for ever. The order of ranks follows from `seed`; who comes when
    also from `stream`, so that several processes draw from the same ranks."""
    if count < 1:
        raise BadInput("there are no users to ask for", remedy="Name a release that has users.")
    order = np.random.default_rng(seed).permutation(count)
    random = np.random.default_rng([seed, stream, 2])
    if zipf is None:
        while True:
            yield from random.permutation(count).tolist()
    until = np.cumsum(shares(count, zipf))
    while True:
        drawn = np.searchsorted(until, random.random(BLOCK) * until[-1], side="right")
        yield from order[drawn].tolist()


def shares(count: int, zipf: float) -> Array:
    """[count] float64, descending, sum 1: of all requests, those of the user of each rank."""
    weights = np.arange(1, count + 1, dtype=np.float64) ** -zipf
    found: Array = weights / weights.sum()
    return found
