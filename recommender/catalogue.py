"""The items of one release: item id <-> index, titles, categories, popularity.

Index 0 is padding; items take 1 to N in the order of the catalogue, the order in
which the model was trained. One catalogue per release, written beside its
weights as `catalogue.parquet`. Knows no torch and no server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recommender.contract import BITS_PER_WORD, Array

FILE = "catalogue.parquet"
SCHEMA: dict[str, Any] = {
    "item_id": pl.String,
    "title": pl.String,
    "categories": pl.List(pl.String),
    "popularity": pl.Float32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """Items in index order (position 0 is index 1)."""

    item_ids: tuple[str, ...]
    titles: tuple[str | None, ...]
    categories: tuple[tuple[str, ...], ...]  # of each item
    popularity: Array  # [N] float32, recent popularity: the order of /v1/popular

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def category_names(self) -> tuple[str, ...]:
        """All categories, sorted; the position is the bit in the category mask."""
        return tuple(sorted({c for cs in self.categories for c in cs}))

    @property
    def category_words(self) -> int:
        """W: words of the category mask."""
        return max(1, -(-len(self.category_names) // BITS_PER_WORD))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item_id: i for i, item_id in enumerate(self.item_ids, start=1)}

    @cached_property
    def _bit(self) -> dict[str, int]:
        return {name: bit for bit, name in enumerate(self.category_names)}

    def index(self, item_id: str) -> int:
        """The item's index, 0 for an id the catalogue does not hold."""
        return self._index.get(item_id, 0)

    def indexes(self, item_ids: Iterable[str]) -> Array:
        """[n] int64 indexes of `item_ids`, 0 where unknown."""
        return np.fromiter(map(self._index.get, item_ids, repeat(0)), np.int64)

    def item_id(self, index: int) -> str:
        return self.item_ids[index - 1]

    def title(self, index: int) -> str | None:
        return self.titles[index - 1]

    def categories_of(self, index: int) -> tuple[str, ...]:
        return self.categories[index - 1]

    def known_category(self, name: str) -> bool:
        return name in self._bit

    def category_mask(self, names: Iterable[str]) -> Array:
        """[W] int64 with the bit of every known category in `names` set."""
        mask = np.zeros(self.category_words, np.int64)
        for name in names:
            if (bit := self._bit.get(name)) is not None:
                mask[bit // BITS_PER_WORD] |= np.int64(1) << (bit % BITS_PER_WORD)
        return mask

    @cached_property
    def category_words_table(self) -> Array:
        """[N + 1, W] int64 category mask of every item; row 0 is padding."""
        table = np.zeros((len(self) + 1, self.category_words), np.int64)
        for i, names in enumerate(self.categories, start=1):
            table[i] = self.category_mask(names)
        return table

    @cached_property
    def by_popularity(self) -> Array:
        """[N] int64 indexes, most popular first, ties by index."""
        return np.argsort(-self.popularity, kind="stable").astype(np.int64) + 1

    def popular(
        self,
        n: int,
        *,
        order: Array | None = None,
        exclude: Sequence[int] | Array = (),
        categories: Iterable[str] | None = None,
        only: Array | None = None,
    ) -> list[int]:
        """The `n` most popular indexes outside `exclude`, of any of `categories` if given, and
        among `only` if given; `order` is [N] indexes, the most popular first (default: by this
        catalogue's popularity)."""
        order = self.by_popularity if order is None else order
        if only is not None:
            order = order[np.isin(order, only)]
        if categories is not None:
            wanted = self.category_mask(categories)
            order = order[(self.category_words_table[order] & wanted).any(axis=1)]
        if len(exclude):
            order = order[~np.isin(order, np.asarray(exclude, np.int64))]
        return [int(i) for i in order[:n]]

    @cached_property
    def category_sizes(self) -> tuple[tuple[str, int], ...]:
        """Every category and how many items it has, the largest first."""
        sizes = Counter(name for names in self.categories for name in set(names))
        return tuple(sorted(sizes.items(), key=lambda one: (-one[1], one[0])))

    def holding(self, text: str) -> Array:
        """[n] int64 indexes, distinct, of items whose title and id hold every word of `text`,
        whatever the case."""
        found = np.ones(len(self), bool)
        for word in text.lower().split():
            found &= self._words.str.contains(word, literal=True).to_numpy()
        return np.flatnonzero(found).astype(np.int64) + 1

    @cached_property
    def _words(self) -> pl.Series:
        """[N] what `holding` looks through."""
        known = zip(self.titles, self.item_ids, strict=True)
        return pl.Series(
            [f"{title or ''} {item_id}".lower() for title, item_id in known], dtype=pl.String
        )

    def write(self, folder: Path) -> None:
        pl.DataFrame(
            {
                "item_id": self.item_ids,
                "title": self.titles,
                "categories": [list(c) for c in self.categories],
                "popularity": self.popularity.astype(np.float32),
            },
            schema=SCHEMA,
        ).write_parquet(folder / FILE)

    @classmethod
    def read(cls, folder: Path) -> Catalogue:
        frame = pl.read_parquet(folder / FILE)
        return cls(
            item_ids=tuple(frame["item_id"]),
            titles=tuple(frame["title"]),
            categories=tuple(tuple(c) for c in frame["categories"].to_list()),
            popularity=frame["popularity"].to_numpy(),
        )
