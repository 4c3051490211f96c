"""What the table of items says -> a sparse matrix in which items that are alike are near.

    items -> ContentSpace.fit -> space; space.matrix(items) -> [items, F], unit rows

Each column of the table is a block of columns of the matrix: categories and categorical
values as they stand, numbers by the quantiles they lie near, text by its words. The space
is fitted once and kept with the run, so that items added later find their place without
training. Knows no interactions and no language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from recommender.contract import Array
from recommender.data.config import DataConfig
from recommender.data.report import ColumnGuess
from recommender.data.terms import near, numbers, quantiles, terms

TERMS = 50_000  # kept of a column, those of most items
SHARED = 2  # items a term stands in at least: what one item alone has likens it to none
SLICE = 5_000  # rows whose text is taken apart at once: a bound on memory
BLOCK = 1 << 24  # pairs of items whose likeness is held at once

# How a kind of column is weighed: kinds of one group share its say, whatever their number.
GROUPS = {
    "categories": "categories",
    "categorical": "columns",
    "numeric": "columns",
    "text": "text",
}


@dataclass(frozen=True, kw_only=True)
class Block:
    """One column of the table and the columns of the matrix that it becomes."""

    column: str
    kind: str  # a key of GROUPS
    terms: tuple[str, ...] = ()  # sorted; none for a numeric column
    counts: tuple[int, ...] = ()  # items that have each term
    items: int = 0  # that have any term
    knots: tuple[float, ...] = ()  # of a numeric column: its quantiles, ascending

    @property
    def width(self) -> int:
        return len(self.knots) + 2 if self.knots else len(self.terms)

    @cached_property
    def _vocabulary(self) -> pl.DataFrame:
        """The columns and weights of the terms. IDF is above 0 even for what all items have."""
        return pl.DataFrame(
            {
                "term": self.terms,
                "position": np.arange(len(self.terms)),
                "idf": np.log((self.items + 1) / np.array(self.counts, np.float64)),
            },
            schema_overrides={"term": pl.String},
        )

    def matrix(self, values: pl.Series) -> sp.csr_array:
        """[len(values), width] float64; zero where nothing is known, else rows of length 1,
        less what terms that were not kept have of it: they count as had by one item."""
        if self.knots:
            row, position, value = near(np.array(self.knots), numbers(values))
            return _unit(self._sparse(len(values), row, position, value))
        found = (
            terms(self.kind, values)
            .group_by("row", "term")
            .len("times")
            .join(self._vocabulary, on="term", how="left")
            .with_columns(pl.col("idf").fill_null(np.log(self.items + 1)))
            .sort("row", "term")
        )
        row, times = found["row"].to_numpy(), found["times"].to_numpy()
        value = (1 + np.log(times)) * found["idf"].to_numpy()
        value /= np.sqrt(np.bincount(row, value**2))[row]
        kept = found["position"].is_not_null().to_numpy()
        position = found["position"].drop_nulls().to_numpy()
        return self._sparse(len(values), row[kept], position, value[kept])

    def _sparse(self, rows: int, row: Array, position: Array, value: Array) -> sp.csr_array:
        return sp.csr_array((value, (row, position)), shape=(rows, self.width))


@dataclass(frozen=True, kw_only=True)
class ContentSpace:
    blocks: tuple[Block, ...] = ()

    @classmethod
    def fit(
        cls, frame: pl.DataFrame, guesses: Sequence[ColumnGuess], config: DataConfig
    ) -> ContentSpace:
        """The space of the items in `frame`, as read and cleaned; columns that `guesses`
        (of items) calls ignored, or that it does not name, are left out.

        Raises DataError for a column whose values are not of its kind.
        """
        kinds = {"categories": "categories", "title": "text"}
        kinds |= {g.name: g.kind for g in guesses if g.table == "items"}
        blocks = [
            _fit(frame[column], kind, config)
            for column, kind in kinds.items()
            if kind in GROUPS and column in frame.columns
        ]
        return cls(blocks=tuple(b for b in blocks if b.width))

    @property
    def width(self) -> int:
        """F."""
        return sum(b.width for b in self.blocks)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table, that say something."""
        return tuple(b.column for b in self.blocks)

    def matrix(self, frame: pl.DataFrame) -> sp.csr_array:
        """[len(frame), F] float32 with unit rows, zero rows where nothing is known.

        Each group of kinds has the same say in the cosine of two rows. Columns that `frame`
        lacks are unknown, others it has are ignored; so are terms that were not fitted.
        """
        parts = [self._part(part) for part in frame.iter_slices(SLICE)]
        empty = sp.csr_array((0, self.width), dtype=np.float32)
        return sp.vstack([empty, *parts], format="csr")

    def _part(self, frame: pl.DataFrame) -> sp.csr_array:
        sharing = Counter(GROUPS[b.kind] for b in self.blocks)
        parts = [sp.csr_array((len(frame), 0), dtype=np.float64)]
        for block in self.blocks:
            if block.column in frame.columns:
                part = block.matrix(frame[block.column])
                parts.append(part / np.sqrt(sharing[GROUPS[block.kind]]))
            else:
                parts.append(sp.csr_array((len(frame), block.width), dtype=np.float64))
        return _unit(sp.hstack(parts, format="csr")).astype(np.float32)

    def by_index(self, frame: pl.DataFrame, items: int) -> sp.csr_array:
        """[items + 1, F]: `matrix` with zero rows for the padding above it and, below it, for
        the items that have no record in `frame`."""
        known = self.matrix(frame)
        ends = np.full(items - len(frame), known.nnz, known.indptr.dtype)
        rows = np.concatenate([known.indptr[:1], known.indptr, ends])
        return sp.csr_array((known.data, known.indices, rows), shape=(items + 1, self.width))

    def read_from(self, frame: pl.DataFrame) -> list[object]:
        """What it takes from the further columns of `frame`: for the digest of the data."""
        return [
            (b.column, b.kind, b.knots, _plain(frame[b.column], b.kind))
            for b in self.blocks
            if b.column not in ("title", "categories")
        ]

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "column": b.column,
                "kind": b.kind,
                "terms": list(b.terms),
                "counts": list(b.counts),
                "items": b.items,
                "knots": list(b.knots),
            }
            for b in self.blocks
        ]

    @classmethod
    def from_json(cls, blocks: Sequence[Mapping[str, Any]]) -> ContentSpace:
        return cls(
            blocks=tuple(
                Block(
                    column=b["column"],
                    kind=b["kind"],
                    terms=tuple(b["terms"]),
                    counts=tuple(b["counts"]),
                    items=b["items"],
                    knots=tuple(b["knots"]),
                )
                for b in blocks
            )
        )


def similar_by_content(
    content: sp.csr_array, *, rows: Array | None = None, most: int
) -> tuple[Array, Array]:
    """Item [R, most] int64 and similarity [R, most] float32: the other items nearest by cosine
    to each of `rows` (default: every row, that of the padding too), nearest first.

    `content`: [N + 1, F], unit rows. Item 0 and similarity 0 where fewer items have anything
    in common with the row; equal similarities (to a millionth) by index.
    """
    rows = np.arange(content.shape[0]) if rows is None else np.asarray(rows, np.int64)
    item = np.zeros((len(rows), most), np.int64)
    similarity = np.zeros((len(rows), most), np.float32)
    # A term of many items makes a sparse product dense, and slow: those are multiplied densely.
    items_of = np.bincount(content.indices, minlength=content.shape[1])
    common = items_of > content.shape[0] / 20
    dense = np.ascontiguousarray(content[:, common].toarray().T)  # [common, N + 1]
    rare = content[:, ~common]
    rare_T = rare.T.tocsr()
    block = max(1, BLOCK // content.shape[0])
    for start in range(0, len(rows), block):
        asked = rows[start : start + block]
        scores = dense[:, asked].T @ dense + (rare[asked] @ rare_T).toarray()
        scores[np.arange(len(asked)), asked] = 0
        for row, (nearest, score) in enumerate(_best(scores, most), start):
            item[row, : len(nearest)] = nearest
            similarity[row, : len(nearest)] = score
    return item, similarity


def _best(scores: Array, most: int) -> list[tuple[Array, Array]]:
    """Of each row of `scores` the `most` largest above 0, to a millionth: position and score."""
    # The `most` largest of a row are no less than the `most`-th largest maximum of its chunks:
    # few positions need a closer look.
    chunk = max(1, scores.shape[1] // (8 * most))
    whole = scores.shape[1] // chunk * chunk
    maxima = scores[:, :whole].reshape(len(scores), chunk, -1).max(axis=1)
    rank = maxima.shape[1] - most
    floor = np.partition(maxima, rank, axis=1)[:, rank] if rank >= 0 else np.zeros(len(scores))
    best = []
    for row, least in zip(scores, np.maximum(floor - 2e-6, 1e-6), strict=True):
        found = np.flatnonzero(row >= least)
        score = np.round(row[found], 6)
        if len(found) > most:
            bound = np.partition(score, len(score) - most)[len(score) - most]
            above, equal = np.flatnonzero(score > bound), np.flatnonzero(score == bound)
            chosen = np.sort(np.concatenate([above, equal[: most - len(above)]]))
            found, score = found[chosen], score[chosen]
        order = np.argsort(-score, kind="stable")
        best.append((found[order], score[order]))
    return best


def _fit(values: pl.Series, kind: str, config: DataConfig) -> Block:
    """Block of a column's quantiles, or of the terms that at least SHARED items have."""
    if kind == "numeric":
        # Near ones overlap: twice as many as where each bin stands alone.
        knots = quantiles(values, 2 * config.bins)
        return Block(column=values.name, kind=kind, knots=knots if len(knots) > 1 else ())
    counted, items = [], 0
    for start in range(0, len(values), SLICE):
        found = terms(kind, values.slice(start, SLICE)).unique()
        counted.append(found["term"].value_counts(sort=False))
        items += found["row"].n_unique()
    kept = (
        pl.concat(counted)
        .group_by("term")
        .agg(pl.col("count").sum())
        .filter(pl.col("count") >= SHARED)
        .sort(["count", "term"], descending=[True, False])
        .head(TERMS)
        .sort("term")
    )
    return Block(
        column=values.name,
        kind=kind,
        terms=tuple(kept["term"]),
        counts=tuple(kept["count"]),
        items=items,
    )


def _plain(values: pl.Series, kind: str) -> list[object]:
    """The values as text of CSV and numbers of Parquet have them alike."""
    return list(numbers(values)) if kind == "numeric" else values.to_list()


def _unit(matrix: sp.csr_array) -> sp.csr_array:
    """Its rows at length 1; rows of zeros stay."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    length = np.sqrt(np.bincount(row, matrix.data**2, minlength=matrix.shape[0]))
    data = matrix.data / length[row]
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
