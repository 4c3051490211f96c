"""What was read, what was dropped and why, what was guessed: the answer of `data check`.

Rows count from 1 below the header. Knows no files: `dataset.load` fills it in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """The rows of one file that could not be used for one reason."""

    file: str
    column: str
    reason: str
    count: int
    rows: tuple[int, ...]  # the first few
    value: str  # what stood in the first of them

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.rows) else ""
        return (
            f"{self.file}: {self.count:,} × {self.reason} "
            f"(column {self.column}, row {', '.join(map(str, self.rows))}{more}: {self.value})"
        )


@dataclass(frozen=True, kw_only=True)
class ColumnGuess:
    """How a further column of users or items is read, and why."""

    table: str  # "users" or "items"
    name: str
    kind: str  # one of config.KINDS
    why: str


@dataclass(frozen=True, kw_only=True)
class Report:
    folder: str
    digest: str
    interactions: int
    users: int
    items: int
    users_with_events: int
    items_with_events: int
    items_without_record: int  # seen in interactions only
    users_without_record: int
    categories: int
    first: int  # unix seconds
    last: int
    density: float  # share of (user, item) pairs with an event
    longest_history: int
    simultaneous: float  # share of events that share user and timestamp with another
    time_kind: str  # real, order or none
    time_why: str
    session_gap: int  # seconds, 0 = only equal timestamps share a basket
    session_why: str
    baskets: int
    mean_rating: float | None
    events: Mapping[str, int]  # by name, empty without a column `event`
    negative_events: int  # returns, dislikes: never a target
    taken_back: int  # events that they take back: no targets either
    repeated: int  # events with an item that the user had before
    repurchase: bool
    unknown_events: Mapping[str, int]  # names without a weight: they count 1
    dropped: tuple[Dropped, ...]
    ignored_columns: tuple[str, ...]  # of interactions
    columns: tuple[ColumnGuess, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The report as a person reads it."""
        lines = [
            f"{self.folder}: {self.interactions:,} interactions of {self.users:,} users with "
            f"{self.items:,} items in {self.categories:,} categories",
            f"  time            {_day(self.first)} to {_day(self.last)}",
            f"  with events     {self.users_with_events:,} users, {self.items_with_events:,} items",
            f"  without record  {self.users_without_record:,} users, "
            f"{self.items_without_record:,} items (seen in interactions only; kept)",
            f"  density         {self.density:.2%} of all pairs",
            f"  longest history {self.longest_history:,} events",
            f"  simultaneous    {self.simultaneous:.0%} of events share user and timestamp",
            f"  timestamps      {_TIMES[self.time_kind]}: {self.time_why}",
            f"  baskets         {self.baskets:,}, {self._baskets()}",
            f"  repeats         {self.repeated:,} events with an item the user had before; "
            + ("such items may be recommended again" if self.repurchase else _NO_REPURCHASE),
        ]
        if self.mean_rating is not None:
            lines.append(f"  mean rating     {self.mean_rating:.3f}")
        if self.events:
            counted = ", ".join(f"{name} {count:,}" for name, count in self.events.items())
            lines.append(f"  events          {counted}")
        if self.negative_events:
            lines.append(
                f"  taken back      {self.taken_back:,} events by {self.negative_events:,} of "
                "negative weight: in histories, so not offered again, but never learned as wanted"
            )
        if self.ignored_columns:
            lines.append(f"  ignored columns of interactions: {', '.join(self.ignored_columns)}")
        if self.columns:
            lines.append("columns, as guessed (overrule with columns in [data] of recserve.toml):")
            wide = max(len(f"{c.table}.{c.name}") for c in self.columns)
            lines += [
                f"  {f'{c.table}.{c.name}':<{wide}}  {c.kind:<11}  {c.why}" for c in self.columns
            ]
        lines.append("dropped (rows count from 1 below the header):")
        lines += [f"  {dropped}" for dropped in self.dropped] or ["  nothing"]
        return lines + [f"warning: {warning}" for warning in self.warnings]

    def _baskets(self) -> str:
        if self.session_gap:
            rule = f"a user's events at most {self.session_gap:,} s apart"
        else:
            rule = "a user's events of equal timestamps"
        return f"each {rule} ({self.session_why})"


_TIMES = {"real": "real", "order": "an order only", "none": "none"}
_NO_REPURCHASE = "never recommended again (repurchase = false)"


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
