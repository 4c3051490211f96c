"""Made-up films: a table of items with columns of every kind, and the content space of a table."""

from __future__ import annotations

import random

import polars as pl
import scipy.sparse as sp

from recommender.data.columns import guess_columns
from recommender.data.config import DataConfig
from recommender.data.content import ContentSpace

GENRES = ("Comedy", "Drama", "Horror", "War")


def films(n: int = 200, seed: int = 1) -> pl.DataFrame:
    rng = random.Random(seed)
    words = [f"word{i}" for i in range(40)]
    return pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "title": [" ".join(rng.choices(words, k=3)) for _ in range(n)],
            "categories": ["|".join(rng.sample(GENRES, 2)) for _ in range(n)],
            "year": [str(rng.randint(1950, 1999)) for _ in range(n)],
            "studio": [f"studio {rng.randint(1, 9)}" for _ in range(n)],
            "plot": [rng.choice([None, " ".join(rng.choices(words, k=20))]) for _ in range(n)],
        }
    )


def fit(frame: pl.DataFrame, config: DataConfig | None = None) -> ContentSpace:
    config = config or DataConfig()
    further = [c for c in frame.columns if c not in ("item_id", "title", "categories")]
    return ContentSpace.fit(frame, guess_columns(frame, "items", further, config), config)


def same(a: sp.csr_array, b: sp.csr_array) -> bool:
    return a.shape == b.shape and (a != b).nnz == 0
