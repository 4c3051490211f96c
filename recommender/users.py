"""The users of one release: their histories and features as they were at training time.

Written beside the weights as `users.parquet`, so that a freshly served release
answers known users before any event store holds anything. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recommender.contract import Array

FILE = "users.parquet"
SCHEMA: dict[str, Any] = {
    "user_id": pl.String,
    "features": pl.List(pl.Int64),
    "items": pl.List(pl.Int64),
    "times": pl.List(pl.Int64),
    "weights": pl.List(pl.Float32),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """One user's events, oldest first."""

    items: Array  # [n] int64 item indexes, none of them 0
    times: Array  # [n] int64 unix seconds
    weights: Array  # [n] float32 strengths, 1 = plain

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, part: slice) -> History:
        return History(items=self.items[part], times=self.times[part], weights=self.weights[part])


EMPTY = History(
    items=np.zeros(0, np.int64), times=np.zeros(0, np.int64), weights=np.zeros(0, np.float32)
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Users:
    """Histories in one flat array each; user u owns rows offsets[u] to offsets[u + 1]."""

    user_ids: tuple[str, ...]
    features: Array  # [users, U] int64, 0 = unknown
    offsets: Array  # [users + 1] int64
    items: Array  # [events] int64
    times: Array  # [events] int64
    weights: Array  # [events] float32
    # [events] bool: a return, a dislike, ...; None = there is none. A low rating is none of them:
    # it has a negative weight too, and is an act that a model may be asked to predict
    negative: Array | None = None

    def __len__(self) -> int:
        return len(self.user_ids)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {user_id: row for row, user_id in enumerate(self.user_ids)}

    def row(self, user_id: str) -> int | None:
        """The user's row, None for an id that was not in the training data."""
        return self._row.get(user_id)

    def history(self, row: int) -> History:
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return History(items=self.items[part], times=self.times[part], weights=self.weights[part])

    def histories(self) -> Iterator[History]:
        return (self.history(row) for row in range(len(self)))

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)

    @cached_property
    def targets(self) -> Array:
        """[events] bool: what counts for an item, and what a model may be asked to predict.

        Neither a negative event nor what it takes back: all that the same user did with
        the same item before. Of a part of the histories, only what is known in that part.
        """
        if self.negative is None:
            return np.ones(len(self.items), bool)
        user, rows = np.repeat(np.arange(len(self)), self.lengths), np.arange(len(self.items))
        key = user * (self.items.max(initial=0) + 1) + self.items
        pairs, pair = np.unique(key, return_inverse=True)
        last = np.full(len(pairs), -1)  # row of the pair's last negative event
        np.maximum.at(last, pair[self.negative], rows[self.negative])
        kept: Array = rows > last[pair]
        return kept

    def kept(self, events: Array) -> Users:
        """The events where `events` [events] is true; users stay, if need be
        with empty histories."""
        before = np.concatenate([[0], np.cumsum(events)])
        return Users(
            user_ids=self.user_ids,
            features=self.features,
            offsets=before[self.offsets],
            items=self.items[events],
            times=self.times[events],
            weights=self.weights[events],
            negative=None if self.negative is None else self.negative[events],
        )

    def write(self, folder: Path) -> None:
        def split(flat: Array) -> list[Array]:
            return np.split(flat, self.offsets[1:-1]) if len(self) else []

        frame = pl.DataFrame(
            {
                "user_id": self.user_ids,
                "features": self.features.tolist(),
                "items": split(self.items),
                "times": split(self.times),
                "weights": split(self.weights),
            },
            schema=SCHEMA,
        )
        if self.negative is not None:
            marks = pl.Series("negative", split(self.negative), dtype=pl.List(pl.Boolean))
            frame = frame.with_columns(marks)
        frame.write_parquet(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Users:
        frame = pl.read_parquet(folder / FILE)
        lengths = frame["items"].list.len().to_numpy().astype(np.int64)

        def flat(column: str, dtype: type[np.generic]) -> Array:
            values = frame.filter(pl.col("items").list.len() > 0)[column].explode()
            return values.to_numpy().astype(dtype)

        features = np.asarray(frame["features"].to_list(), np.int64)
        return cls(
            user_ids=tuple(frame["user_id"]),
            features=features.reshape(len(frame), -1),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            items=flat("items", np.int64),
            times=flat("times", np.int64),
            weights=flat("weights", np.float32),
            negative=flat("negative", np.bool_) if "negative" in frame.columns else None,
        )
