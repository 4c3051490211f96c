"""What the reading of a data folder leaves to choose: the `[data]` table of a TOML file.

    DIR/recserve.toml  <  --config FILE  <  --set data.key=value      later ones overrule

docs/data.md explains every key with an example; `recserve init` writes them all out.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recommender.acts import EVENT_WEIGHTS, ActRules
from recommender.errors import BadInput, shown

FILE = "recserve.toml"  # of a data folder: what its data means travels with it
KINDS = ("categorical", "numeric", "text", "ignore")
REPEATS = ("keep", "last", "first")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    # strength of an event by its (lower-case) name; names of a file's own add to the defaults.
    # Below 0: a return or dislike, never a target; 0: such rows are left out
    event_weights: Mapping[str, float] = field(default_factory=lambda: EVENT_WEIGHTS)
    min_rating: float | None = None  # only what is rated at least this; None: strength by rating
    repeats: str = "keep"  # of one user and item: all events, the last or the first one
    burst_seconds: int = 60  # an act repeated at once, so soon after, counts once; 0 = each counts
    repurchase: bool = False  # what a user already had may be recommended again
    session_gap: int | None = None  # seconds: closer events share a basket; None: as guessed
    max_events_per_user: int = 10_000  # the newest are kept; 0 = no cap
    max_events_per_day: int = 0  # per user and UTC day; 0 = no cap
    # kind of a users' or items' column, where the guess is wrong
    columns: Mapping[str, str] = field(default_factory=dict)
    half_life_days: float = 30.0  # an event this much older counts half in the popularity
    bins: int = 8  # quantile bins of a numeric column
    min_occurrences: int = 3  # a category seen less often is unknown
    max_values: int = 500  # categories kept per column, the most frequent ones
    max_interactions: int = 20_000_000  # what is read into memory at once: about 10 GB

    @property
    def acts(self) -> ActRules:
        """What of these live events follow too."""
        return ActRules(
            weights=dict(self.event_weights),  # no view: it travels to other processes
            burst_seconds=self.burst_seconds,
            half_life_days=self.half_life_days,
        )

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> DataConfig:
        """From a parsed `[data]` table; raises BadInput naming the key and what is allowed."""
        known = {f.name for f in dataclasses.fields(cls)}
        for key in table:
            if key not in known:
                raise BadInput(
                    f"setting data.{key} does not exist",
                    remedy=f"Settings of data: {', '.join(sorted(known))}.",
                )
        return cls(**{key: _checked(key, value) for key, value in table.items()})

    @classmethod
    def read(cls, file: Path) -> DataConfig:
        """From the `[data]` table of a TOML file; the file's other tables are others' business."""
        return cls.from_table(_mapping("", _toml(file).get("data", {})))

    @classmethod
    def of(cls, folder: Path, file: Path | None = None, settings: Iterable[str] = ()) -> DataConfig:
        """The folder's own `recserve.toml`, changed by `file`, changed by `data.key=value`.

        `settings` of other sections are others' business. Raises BadInput.
        """
        tables = [_own(folder / FILE)] if (folder / FILE).is_file() else []
        if file is not None:
            tables.append(_mapping("", _toml(file).get("data", {})))
        tables += [_setting(s) for s in settings if s.startswith("data.")]
        merged: dict[str, Any] = {}
        for table in tables:
            for key, value in table.items():
                both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
                merged[key] = {**merged[key], **value} if both else value
        return cls.from_table(merged)


def _own(file: Path) -> Mapping[str, Any]:
    """The `[data]` table of a data folder's file, which may hold nothing else."""
    tables = _toml(file)
    if other := next((name for name in tables if name != "data"), None):
        raise BadInput(
            f"{file} sets {shown(other)}, and in a data folder only the table [data] is read",
            remedy=f"Move {other} to another file and name that with --config.",
        )
    return _mapping("", tables.get("data", {}))


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadInput(
            f"cannot read {file}: {error.strerror}", remedy="Name an existing TOML file."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not TOML: {error}", remedy="Mend the file.") from error


def _setting(text: str) -> dict[str, Any]:
    """`data.min_rating=4`, `data.event_weights.view=0.5`, `data.repeats=last` as a table."""
    key, equals, value = text.removeprefix("data.").partition("=")
    if not equals:
        raise BadInput(
            f"setting {shown(text)} is not data.key=value",
            remedy="Write for example --set data.min_rating=4.",
        )
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a bare word
    name, dot, inner = key.partition(".")
    return {name: {inner: parsed}} if dot else {name: parsed}


def _checked(key: str, value: object) -> Any:
    match key:
        case "event_weights":
            weights = _mapping(key, value).items()
            named = {str(k).strip().lower(): _number(f"{key}.{k}", v) for k, v in weights}
            return {**EVENT_WEIGHTS, **named}
        case "columns":
            return {k: _choice(f"columns.{k}", v, KINDS) for k, v in _mapping(key, value).items()}
        case "repeats":
            return _choice(key, value, REPEATS)
        case "repurchase":
            if not isinstance(value, bool):
                raise BadInput(f"data.{key} is {shown(value)}", remedy="Give true or false.")
            return value
        case "half_life_days":
            return _number(key, value, least=1e-3)
        case "min_rating":
            return _number(key, value)
        case "bins":
            return _whole(key, value, least=2)
        case "burst_seconds" | "session_gap" | "max_events_per_user" | "max_events_per_day":
            return _whole(key, value, least=0)
    return _whole(key, value, least=1)


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        name = f"data.{key}" if key else "data"
        raise BadInput(f"{name} is {shown(value)}", remedy=f"Make {name} a table of name = value.")
    return value


def _choice(key: str, value: object, choices: Sequence[str]) -> str:
    if value not in choices:
        raise BadInput(f"data.{key} is {shown(value)}", remedy=f"Choose {', '.join(choices)}.")
    return str(value)


def _number(key: str, value: object, least: float = -math.inf) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and least <= float(str(value)) and abs(float(str(value))) <= 1e6):
        raise BadInput(
            f"data.{key} is {shown(value)}",
            remedy=f"Give a number from {max(least, -1e6):g} to 1e6.",
        )
    return float(str(value))


def _whole(key: str, value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10**9:
        raise BadInput(
            f"data.{key} is {shown(value)}", remedy=f"Give a whole number from {least} to 1e9."
        )
    return value
