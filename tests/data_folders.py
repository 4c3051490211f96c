"""Writes small data folders and reads back what was made of them, for the tests of the data."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recommender.data.dataset import Dataset


def write(folder: Path, format: str = "csv", **frames: pl.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in frames.items():
        getattr(frame, f"write_{format}")(folder / f"{name}.{format}")
    return folder


def events(*rows: tuple[object, ...], columns: str = "user_id item_id timestamp") -> pl.DataFrame:
    return pl.DataFrame(rows, schema=columns.split(), orient="row")


def items(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"item_id": ids})


def history(dataset: Dataset, user_id: str) -> list[tuple[str, int, float]]:
    row = dataset.users.row(user_id)
    assert row is not None
    h = dataset.users.history(row)
    ids = [dataset.catalogue.item_id(int(i)) for i in h.items]
    return list(zip(ids, h.times.tolist(), h.weights.tolist(), strict=True))
