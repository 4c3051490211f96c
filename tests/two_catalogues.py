"""Two runs of the same shapes whose catalogues share no item: an answer tells whose it is."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recommender import config
from recommender.data.dataset import Dataset, load
from recommender.runs import Run
from recommender.train import blueprint_of, fit_run

MODEL = "popularity_onnx"
OTHER = "other-"  # what every item of `other` begins with


def popularity(dataset: Dataset) -> Run:
    return fit_run(blueprint_of("popularity", dataset.users, dataset, config.read()),
                   dataset.users, dataset)  # fmt: skip


@pytest.fixture(scope="session")
def one(dataset: Dataset) -> Run:
    return popularity(dataset)


@pytest.fixture(scope="session")
def other(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same shapes, but no item of `one`: an answer tells which catalogue it is from."""
    folder = tmp_path_factory.mktemp("other")
    for file in data_folder.iterdir():
        frame = pl.read_csv(file, infer_schema=False)
        if "item_id" in frame.columns:
            frame = frame.with_columns(item_id=OTHER + pl.col("item_id"))
        frame.write_csv(folder / file.name)
    return popularity(load(folder)[0])
