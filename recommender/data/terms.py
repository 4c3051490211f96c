"""One column of the table of items -> its terms, row by row: what `content` makes a matrix of.

Categories and categorical values are terms as they stand, text is taken apart into words,
numbers into the quantiles they lie near. Knows no weights, and no language: where a script
puts no spaces between words, pieces of two and three characters stand for them.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from recommender.contract import Array
from recommender.data import clean
from recommender.errors import DataError, shown

CHARACTERS = 1_000  # of a text that are read: its beginning says what it is about

# Scripts without spaces between words; and Hangul, whose words carry their endings.
JOINED = (
    r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
_RUN = rf"[{JOINED}]+"
_WORD = rf"[[\p{{Alphabetic}}\p{{M}}\p{{N}}]--[{JOINED}]]+"
_CHARACTER = r"\P{M}\p{M}*"  # with the marks upon it


def terms(kind: str, values: pl.Series) -> pl.DataFrame:
    """`row` (from 0) and `term`, as often as the term stands in the row.

    `kind` is categories, categorical or text. Raises DataError for values of another type.
    """
    if kind == "categories":
        return _rows(clean.split_categories(values)).explode("term").drop_nulls()
    if kind == "categorical" and values.dtype == pl.List(pl.String):
        return terms("categories", values)
    _check(kind, values)
    if kind == "categorical":
        return _rows(values.str.strip_chars()).filter(pl.col("term") != "")
    plain = values.str.slice(0, CHARACTERS).str.normalize("NFKC").str.to_lowercase()
    words = _rows(plain.str.extract_all(_WORD)).explode("term").drop_nulls()
    return pl.concat([words, _pieces(plain)])


def numbers(values: pl.Series) -> Array:
    """[len(values)] float64, NaN where there is no finite number. Raises DataError for lists."""
    _check("numeric", values)
    read = values.str.strip_chars().cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return np.where(np.isfinite(read), read, np.nan)


def quantiles(values: pl.Series, bins: int) -> tuple[float, ...]:
    """The least of the numbers, the borders of `bins` equal parts, the largest; each once.

    Raises DataError where there is no number at all.
    """
    ordered = np.sort(numbers(values))
    ordered = ordered[: np.isfinite(ordered).sum()]  # NaN comes last
    if not len(ordered):
        raise DataError(
            f"column {values.name} of items holds no number, first in row 1: {shown(values[0])}",
            remedy="Change its kind in [data] columns.",
            field=values.name,
        )
    borders = np.arange(bins + 1) * (len(ordered) - 1) // bins
    return tuple(float(q) for q in np.unique(ordered[borders]))


def near(knots: Array, found: Array) -> tuple[Array, Array, Array]:
    """Row, position and weight of the quantiles near each number of `found`.

    A number weighs 1 on the quantile where it lies, half on the next, none on the second:
    the cosine of two numbers is 1 for the same one, 2/3 a quantile apart, 1/6 two, 0 three.
    Positions are those of `knots` and of one more to either side, from 0 to len(knots) + 1.
    """
    row = np.flatnonzero(~np.isnan(found))
    place = np.interp(found[row], knots, np.arange(len(knots)))
    knot = np.floor(place)[:, None] + np.arange(-1, 3)
    weight = 1 - np.abs(place[:, None] - knot) / 2
    here = weight > 0
    return np.broadcast_to(row[:, None], here.shape)[here], knot[here].astype(int) + 1, weight[here]


def _pieces(texts: pl.Series) -> pl.DataFrame:
    """`row` and `term`: two and three characters of what is written without spaces, or the
    only one."""
    characters = (
        _rows(texts.str.extract_all(_RUN))
        .explode("term")
        .drop_nulls()
        .with_row_index("run")
        .with_columns(pl.col("term").str.extract_all(_CHARACTER))
        .explode("term")
        .drop_nulls()
    )
    first, run = pl.col("term"), pl.col("run")
    two, three = first + first.shift(-1), first + first.shift(-1) + first.shift(-2)
    goes_on = (run == run.shift(-1)).fill_null(False)
    begun = (run == run.shift(1)).fill_null(False)
    found = [
        characters.filter(~goes_on & ~begun).select("row", "term"),
        characters.select("row", term=pl.when(goes_on).then(two)),
        characters.select("row", term=pl.when(run == run.shift(-2)).then(three)),
    ]
    return pl.concat(found).drop_nulls()


def _rows(values: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"term": values}).with_row_index("row")


def _check(kind: str, values: pl.Series) -> None:
    if values.dtype != pl.String:
        raise DataError(
            f"column {values.name} of items is of type {values.dtype}, first in row 1: not {kind}",
            remedy="Write single values, or set it to ignore in [data] columns.",
            field=values.name,
        )
