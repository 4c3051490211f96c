"""What the reading of a data folder leaves to choose: the `[data]` table of a TOML file.

[data]
event_weights = { view = 1, purchase = 4, return = -2 }
columns = { zip_code = "ignore", age = "categorical" }
half_life_days = 30
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recommender.errors import BadInput, shown

KINDS = ("categorical", "numeric", "text", "ignore")

EVENT_WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "view": 1.0,
        "click": 1.0,
        "play": 1.0,
        "like": 2.0,
        "cart": 2.0,
        "rating": 1.0,
        "purchase": 4.0,
        "dislike": -1.0,
        "return": -2.0,
    }
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    # strength of an event by its (lower-case) name; names of a file's own add to the defaults
    event_weights: Mapping[str, float] = field(default_factory=lambda: EVENT_WEIGHTS)
    # kind of a users' or items' column, where the guess is wrong
    columns: Mapping[str, str] = field(default_factory=dict)
    half_life_days: float = 30.0  # an event this much older counts half in the popularity
    bins: int = 8  # quantile bins of a numeric column
    min_occurrences: int = 3  # a category seen less often is unknown
    max_values: int = 500  # categories kept per column, the most frequent ones
    max_interactions: int = 20_000_000  # what is read into memory at once: about 10 GB

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> DataConfig:
        """From a parsed `[data]` table; raises BadInput naming the key and what is allowed."""
        known = {f.name for f in dataclasses.fields(cls)}
        checked: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                raise BadInput(
                    f"setting data.{key} does not exist",
                    remedy=f"Settings of data: {', '.join(sorted(known))}.",
                )
            if key == "event_weights":
                weights = _mapping(key, value).items()
                named = {str(k).strip().lower(): _number(f"{key}.{k}", v) for k, v in weights}
                checked[key] = {**EVENT_WEIGHTS, **named}
            elif key == "columns":
                checked[key] = {k: _kind(k, v) for k, v in _mapping(key, value).items()}
            elif key == "half_life_days":
                checked[key] = _number(key, value, least=1e-3)
            else:
                checked[key] = _whole(key, value, least=2 if key == "bins" else 1)
        return cls(**checked)

    @classmethod
    def read(cls, file: Path) -> DataConfig:
        """From the `[data]` table of a TOML file; the file's other tables are others' business."""
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8")).get("data", {})
        except OSError as error:
            raise BadInput(
                f"cannot read {file}: {error.strerror}", remedy="Name an existing TOML file."
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{file} is not TOML: {error}", remedy="Mend the file.") from error
        return cls.from_table(_mapping("", table))


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        name = f"data.{key}" if key else "data"
        raise BadInput(f"{name} is {shown(value)}", remedy=f"Make {name} a table of name = value.")
    return value


def _kind(column: str, value: object) -> str:
    if value not in KINDS:
        raise BadInput(
            f"data.columns.{column} is {shown(value)}", remedy=f"Choose {', '.join(KINDS)}."
        )
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
