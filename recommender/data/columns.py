"""What is a further column of users or items: a category, a number, text, or of no use?

A guess from the values alone, that `[data] columns` overrules, and the fitting of
`UserFeatures` to the users' columns. Knows no files and no names of data sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from recommender.contract import Array
from recommender.data.config import DataConfig
from recommender.data.report import ColumnGuess
from recommender.data.terms import JOINED
from recommender.errors import DataError, shown
from recommender.features import UserColumn, UserFeatures

FEW = 10  # numbers with at most this many values are categories
LONG = 50  # characters of an average value: text
NUMBERS = 0.95  # share of readable numbers that makes a column numeric
CODE = 5  # characters: numbers of one such width are codes, not amounts


def guess_columns(
    frame: pl.DataFrame, table: str, names: Sequence[str], config: DataConfig
) -> tuple[ColumnGuess, ...]:
    """The kind of each column in `names`, the config's word above the guess."""
    guesses = []
    for name in names:
        if (kind := config.columns.get(name)) is not None:
            why = "the config says so"
        else:
            kind, why = guess(name, frame[name])
        guesses.append(ColumnGuess(table=table, name=name, kind=kind, why=why))
    return tuple(guesses)


def guess(name: str, values: pl.Series) -> tuple[str, str]:
    """Kind of one column and the reason for it."""
    if values.dtype != pl.String:
        return "ignore", f"of type {values.dtype}"
    if name.lower().startswith("unnamed"):
        return "ignore", "a column without a name"
    texts = _texts(values)
    count, distinct = len(texts), texts.n_unique()
    seen = f"{distinct:,} different values in {count:,} rows"
    if distinct < 2:
        return "ignore", "no values" if not distinct else "one value only"
    if _mean(texts.str.contains(r"^\d{4}-\d\d-\d\d")) >= NUMBERS:
        return "ignore", f"dates: {seen}"
    unique_share = distinct / count
    padded = bool(texts.str.contains(r"^0\d+$").any())  # 02139 is no amount
    numeric = not padded and _mean(_numbers(texts).is_not_null()) >= NUMBERS
    if unique_share > 0.5 and _is_code(texts, numeric):
        return "ignore", f"codes: {seen}"
    if numeric:
        if distinct <= FEW:
            return "categorical", f"{seen}, numbers"
        if _is_counter(texts):
            return "ignore", "counts the rows"
        return "numeric", f"{seen}, numbers"
    if _mean(texts.str.len_chars()) > LONG:
        return "text", f"long: {_mean(texts.str.len_chars()):.0f} characters on average"
    if unique_share > 0.5 and distinct > 2:
        return "text", seen
    return "categorical", seen


def fit(
    frame: pl.DataFrame, guesses: Sequence[ColumnGuess], config: DataConfig
) -> tuple[UserFeatures, tuple[ColumnGuess, ...]]:
    """Features of the categorical and numeric columns, and the guesses corrected: a column
    whose values are all too rare to learn is ignored."""
    columns: list[UserColumn] = []
    corrected: list[ColumnGuess] = []
    for guessed in guesses:
        if guessed.kind == "numeric":
            columns.append(_numeric(guessed.name, frame[guessed.name], config))
        elif guessed.kind == "categorical":
            column = _categorical(guessed.name, frame[guessed.name], config)
            if column is None:
                rare = f"no value stands {config.min_occurrences} times"
                guessed = dataclasses.replace(guessed, kind="ignore", why=rare)
            else:
                columns.append(column)
        corrected.append(guessed)
    return UserFeatures(columns=tuple(columns)), tuple(corrected)


def feature_table(frame: pl.DataFrame, features: UserFeatures) -> Array:
    """[users, U] int64: `features.indexes` of every row, each different value looked up once."""
    table = np.zeros((len(frame), features.width), np.int64)
    for position, column in enumerate(features.columns):
        values = frame[column.name].str.strip_chars()
        index = {value: column.index(value) for value in values.unique().drop_nulls()}
        found = values.replace_strict(index, default=0, return_dtype=pl.Int64)
        table[:, position] = found.fill_null(0).to_numpy()
    return table


def _categorical(name: str, values: pl.Series, config: DataConfig) -> UserColumn | None:
    _check_type(name, values, "categorical")
    counts = _texts(values).alias("value").value_counts(sort=False)
    often = counts.filter(pl.col("count") >= config.min_occurrences)
    kept = often.sort(["count", "value"], descending=[True, False])["value"]
    names = sorted(kept.head(config.max_values))
    return UserColumn(name=name, values=tuple(names)) if names else None


def _numeric(name: str, values: pl.Series, config: DataConfig) -> UserColumn:
    _check_type(name, values, "numeric")
    numbers = _numbers(_texts(values)).drop_nulls().to_numpy()
    if not len(numbers):
        raise DataError(
            f"column {name} of users holds no number, first in row 1: {shown(values[0])}",
            remedy="Change its kind in [data] columns.",
            field=name,
        )
    numbers = np.sort(numbers)
    edges = numbers[np.arange(1, config.bins) * len(numbers) // config.bins]
    # the least value may fill whole bins: what lies above it is told from it all the same
    above = numbers[numbers > numbers[0]]
    edges = np.unique(np.where(edges == numbers[0], above[0] if len(above) else edges, edges))
    return UserColumn(name=name, edges=tuple(float(e) for e in edges))


def _check_type(name: str, values: pl.Series, kind: str) -> None:
    if values.dtype != pl.String:
        raise DataError(
            f"column {name} of users is of type {values.dtype}, first in row 1: not {kind}",
            remedy="Write single values, or set it to ignore in [data] columns.",
            field=name,
        )


def _texts(values: pl.Series) -> pl.Series:
    """The values that say something, without outer spaces."""
    texts = values.str.strip_chars().drop_nulls()
    return texts.filter(texts != "")


def _numbers(texts: pl.Series) -> pl.Series:
    """Float64, null for what is no finite number."""
    numbers = texts.cast(pl.Float64, strict=False)
    return pl.select(pl.when(numbers.is_finite()).then(numbers)).to_series()


def _is_code(texts: pl.Series, numeric: bool) -> bool:
    """Zip codes, phone numbers, e-mail and web addresses: one token, and no amount."""
    lengths = texts.str.len_chars()
    most_common = lengths.value_counts(sort=True)["count"][0] / len(texts)
    if numeric:
        whole = _mean(texts.str.contains(r"^\+?\d+$")) >= NUMBERS
        return whole and most_common >= NUMBERS and _mean(lengths) >= CODE
    # A sentence without spaces is one token too, and no code: it has words of such a script.
    spaced = texts.str.contains(rf"\s|[{JOINED}]{{2}}")
    token = ~spaced & texts.str.contains(r"[\d@/_:.]")
    return _mean(token) >= 0.9


def _is_counter(texts: pl.Series) -> bool:
    numbers = _numbers(texts)
    low, high = numbers.min(), numbers.max()
    if not isinstance(low, float) or not isinstance(high, float):
        return False
    return texts.n_unique() == len(texts) == len(numbers.drop_nulls()) == high - low + 1


def _mean(values: pl.Series) -> float:
    """Mean of numbers or share of trues."""
    mean = values.mean()
    return float(mean) if isinstance(mean, int | float) else 0.0
