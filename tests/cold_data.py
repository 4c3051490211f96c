"""Data with strangers and untouched items whose answer is known: a user's region names the group
that the user walks in, and an item's category names its group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recommender.data.dataset import Dataset, load
from recommender.data.synthetic import START, write_synthetic

GROUPS, ITEMS, UNTOUCHED = 3, 150, 5  # untouched: of each group
LATELY = 6  # events
HITS = ("item-000000", "item-000001", "item-000002")  # one of each group


def of_groups(prefix: str) -> pl.DataFrame:
    """UNTOUCHED items of each group, as the synthetic data names them."""
    group = np.arange(GROUPS * UNTOUCHED) % GROUPS
    return pl.DataFrame(
        {
            "item_id": [f"{prefix}-{i}" for i in range(len(group))],
            "title": [f"{prefix} {i} of group {g}" for i, g in enumerate(group)],
            "categories": [f"group-{g:03d}" for g in group],
        }
    )


@pytest.fixture(scope="session")
def cold_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic data with untouched items, users who come one after another, each for a week, and
    three hits that most of them came upon."""
    folder = tmp_path_factory.mktemp("cold") / "data"
    write_synthetic(folder, users=500, items=ITEMS, events=5000, seed=5)
    items = pl.read_csv(folder / "items.csv")
    pl.concat([items, of_groups("untouched")]).write_csv(folder / "items.csv")
    rng = np.random.default_rng(5)
    came = pl.DataFrame(
        {
            "user_id": [f"user-{u:06d}" for u in range(500)],
            "came": rng.integers(0, 80 * 86_400, 500),
            "item_id": [HITS[u % 3] for u in range(500)],
        }
    )
    events = pl.read_csv(folder / "interactions.csv").join(came.drop("item_id"), on="user_id")
    week = (pl.col("timestamp") - pl.col("timestamp").min()) // 13 + pl.col("came") + START
    hits = came.head(400).with_columns(timestamp=pl.col("came") + START + 86_400)
    columns = ["user_id", "item_id", "timestamp"]
    both = pl.concat([events.with_columns(timestamp=week).select(columns), hits.select(columns)])
    both.write_csv(folder / "interactions.csv")
    return folder


@pytest.fixture(scope="session")
def cold_dataset(cold_folder: Path) -> Dataset:
    return load(cold_folder)[0]


def recserve(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.cli", *map(str, arguments)]
    wide = {**os.environ, "COLUMNS": "200"}  # names in tables stay whole
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=wide)
