"""Raw records to index arrays: the same code for training, evaluation and serving.

`UserFeatures` turns a user's columns into the contract's `user_features`;
`Request` and `tensors()` turn requests into one batch of the contract's inputs.
Knows no torch and no server.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recommender.contract import Array, Limits
from recommender.users import EMPTY, History


@dataclass(frozen=True, kw_only=True)
class UserColumn:
    """How one user column becomes an index: by value (categorical) or by quantile (numeric)."""

    name: str
    values: tuple[str, ...] = ()  # categorical: value -> its position + 1
    edges: tuple[float, ...] = ()  # numeric: bin borders, value -> its bin + 1

    @property
    def size(self) -> int:
        """Number of indexes, 0 (unknown) included."""
        return len(self.edges) + 2 if self.edges else len(self.values) + 1

    def index(self, value: object) -> int:
        """0 for a missing, unknown or unreadable value."""
        if value is None:
            return 0
        if self.edges:
            try:
                number = float(str(value))
            except ValueError:
                return 0
            return 0 if number != number else bisect_right(self.edges, number) + 1
        text = str(value)
        if isinstance(value, bool) and text not in self.values:
            text = text.lower()  # JSON's true: "true" or "True" in the files
        return self.values.index(text) + 1 if text in self.values else 0


@dataclass(frozen=True, kw_only=True)
class UserFeatures:
    columns: tuple[UserColumn, ...] = ()

    @property
    def width(self) -> int:
        """U: at least 1, since Triton knows no empty tensor; a column of zeros stands in."""
        return max(1, len(self.columns))

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(c.size for c in self.columns) or (1,)

    def indexes(self, record: Mapping[str, Any]) -> Array:
        """[U] int64 of one user record; columns it lacks are unknown, others are ignored."""
        found = np.zeros(self.width, np.int64)
        for position, column in enumerate(self.columns):
            found[position] = column.index(record.get(column.name))
        return found

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {"name": c.name, "values": list(c.values), "edges": list(c.edges)} for c in self.columns
        ]

    @classmethod
    def from_json(cls, columns: Sequence[Mapping[str, Any]]) -> UserFeatures:
        return cls(
            columns=tuple(
                UserColumn(name=c["name"], values=tuple(c["values"]), edges=tuple(c["edges"]))
                for c in columns
            )
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One question to the model, in indexes."""

    history: History = EMPTY
    request_time: int = 0  # unix seconds
    user_features: Array | None = None  # [U] int64; None = all unknown
    exclude: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    category_mask: Array | None = None  # [W] int64; None = no filter


def tensors(
    requests: Sequence[Request], limits: Limits, *, length: int | None = None
) -> dict[str, Array]:
    """One batch of the contract's inputs.

    Histories are cut to their newest events and right-aligned in `length`
    columns (default: the shortest bucket that holds the longest of them). Of
    `exclude` the first E count: callers put what matters most first, and drop
    the rest from the answer themselves.
    """
    if length is None:
        length = limits.bucket(max((len(r.history) for r in requests), default=0))
    batch = len(requests)
    arrays: dict[str, Array] = {
        "history": np.zeros((batch, length), np.int64),
        "history_time": np.zeros((batch, length), np.int64),
        "history_weight": np.zeros((batch, length), np.float32),
        "request_time": np.zeros((batch, 1), np.int64),
        "user_features": np.zeros((batch, limits.user_features), np.int64),
        "exclude": np.zeros((batch, limits.exclude), np.int64),
        "category_filter": np.zeros((batch, limits.category_words), np.int64),
    }
    for row, request in enumerate(requests):
        newest = request.history[max(0, len(request.history) - length) :]
        if n := len(newest):
            arrays["history"][row, length - n :] = newest.items
            arrays["history_time"][row, length - n :] = newest.times
            arrays["history_weight"][row, length - n :] = newest.weights
        arrays["request_time"][row, 0] = request.request_time
        if request.user_features is not None:
            arrays["user_features"][row] = request.user_features
        excluded = request.exclude[: limits.exclude]
        arrays["exclude"][row, : len(excluded)] = excluded
        if request.category_mask is not None:
            arrays["category_filter"][row] = request.category_mask
    return arrays
