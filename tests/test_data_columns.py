"""What a column is, guessed from its values; and the features fitted to it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from data_folders import events, items, write

from recommender.data.columns import guess
from recommender.data.config import DataConfig
from recommender.data.dataset import load
from recommender.errors import DataError

N = 400
RNG = random.Random(7)
WORDS = ["red", "bird", "sea", "stone", "tall", "north", "rain", "glass"]

COLUMNS: dict[str, tuple[str, list[object]]] = {
    "age": ("numeric", [RNG.randint(15, 90) for _ in range(N)]),
    "income": ("numeric", [RNG.uniform(5e3, 2e5) for _ in range(N)]),
    "year": ("numeric", [RNG.randint(1930, 1998) for _ in range(N)]),
    "age with gaps": ("numeric", [RNG.choice([None, "", n % 70 + 10]) for n in range(N)]),
    "age with a few words": ("numeric", ["unknown"] * 5 + [n % 70 + 10 for n in range(N)]),
    "gender": ("categorical", [RNG.choice("FM") for _ in range(N)]),
    "stars": ("categorical", [RNG.randint(1, 5) for _ in range(N)]),
    "month": ("categorical", [f"{RNG.randint(1, 12):02d}" for _ in range(N)]),
    "city": ("categorical", [f"City {RNG.randint(1, 90)}" for _ in range(N)]),
    "name": ("text", [" ".join(RNG.choices(WORDS, k=4)) for _ in range(N)]),
    "plot": ("text", [RNG.choice(["a long tale " * 9, "a short one " * 9]) for _ in range(N)]),
    "zip": ("ignore", [f"{RNG.randint(0, 99999):05d}" for _ in range(N)]),
    "zip without zeros": ("ignore", [RNG.randint(10000, 99999) for _ in range(N)]),
    "phone": ("ignore", [f"+49 {RNG.randint(10**8, 10**9)}".replace(" ", "") for _ in range(N)]),
    "email": ("ignore", [f"{RNG.choice(WORDS)}{n}@example.org" for n in range(N)]),
    "signed up": ("ignore", [f"2024-{n % 12 + 1:02d}-01 10:00:00" for n in range(N)]),
    "row number": ("ignore", list(range(N))),
    "constant": ("ignore", ["same"] * N),
    "empty": ("ignore", [None] * N),
    "Unnamed: 0": ("ignore", [RNG.choice("ab") for _ in range(N)]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_kind_of_a_column_is_guessed_from_its_values(name: str) -> None:
    kind, values = COLUMNS[name]
    texts = pl.Series(name, [None if v is None else str(v) for v in values], pl.String)
    guessed, why = guess(name, texts)
    assert guessed == kind, why
    assert why


def folder(path: Path, format: str = "csv", **columns: list[object]) -> Path:
    size = len(next(iter(columns.values())))
    people = [f"u{n}" for n in range(size)]
    users = pl.DataFrame({"user_id": people, **columns}, strict=False)
    return write(
        path,
        format,
        interactions=events(*[(u, "i", 900000000 + n) for n, u in enumerate(people)]),
        items=items("i"),
        users=users,
    )


def test_a_numeric_column_falls_into_equal_bins(tmp_path: Path) -> None:
    dataset, _ = load(folder(tmp_path, age=list(range(100, 900))[::-1]), AGE)
    (column,) = dataset.user_features.columns
    assert len(column.edges) == 7
    assert set(Counter(dataset.users.features[:, 0].tolist()).values()) == {100}
    assert dataset.users.features[0, 0] == 8 and dataset.users.features[-1, 0] == 1


AGE = DataConfig(columns={"age": "numeric"})


@pytest.mark.parametrize("rare", [1, 3, 30])
def test_a_value_that_fills_most_bins_is_still_told_from_the_others(
    rare: int, tmp_path: Path
) -> None:
    values = [0] * 100 + [n + 1 for n in range(rare)]
    dataset, _ = load(folder(tmp_path, age=values), AGE)
    bins = dataset.users.features[:, 0]
    assert set(bins[:100].tolist()) == {1}
    assert bins[100:].min() > 1


def test_a_missing_number_is_unknown_and_a_record_at_serving_time_gets_the_same_index(
    tmp_path: Path,
) -> None:
    values = [*range(20, 80), None, "old"]
    dataset, _ = load(folder(tmp_path, age=values), AGE)
    assert dataset.users.features[-2:, 0].tolist() == [0, 0]
    for row, value in enumerate(values):
        assert dataset.user_features.indexes({"age": value})[0] == dataset.users.features[row, 0]


@pytest.mark.parametrize("spelling", ["true false", "True False"])
def test_a_truth_value_of_a_request_is_the_one_of_the_file(spelling: str, tmp_path: Path) -> None:
    yes, no = spelling.split()
    dataset, _ = load(folder(tmp_path, member=[yes] * 3 + [no] * 4))
    for row, value in ((0, True), (6, False)):
        assert dataset.user_features.indexes({"member": value})[0] != 0
        assert dataset.user_features.indexes({"member": value})[0] == dataset.users.features[row, 0]


def test_a_category_seen_less_than_three_times_is_unknown(tmp_path: Path) -> None:
    dataset, _ = load(folder(tmp_path, plan=["b"] * 3 + ["a"] * 4 + ["c"] * 2))
    (column,) = dataset.user_features.columns
    assert column.values == ("a", "b")
    assert dataset.users.features[:, 0].tolist() == [2, 2, 2, 1, 1, 1, 1, 0, 0]


def test_a_column_of_rare_categories_is_ignored(tmp_path: Path) -> None:
    dataset, report = load(folder(tmp_path, plan=["a", "a", "b", "b", "c", "c"]))
    assert dataset.user_features.columns == ()
    assert [(c.kind, c.why) for c in report.columns] == [("ignore", "no value stands 3 times")]
    assert dataset.users.features.shape == (6, 1)


def test_only_the_most_frequent_categories_are_kept(tmp_path: Path) -> None:
    values = [letter for n, letter in enumerate("abcdefgh", start=3) for _ in range(n)]
    dataset, _ = load(folder(tmp_path, plan=values), DataConfig(max_values=2))
    assert dataset.user_features.columns[0].values == ("g", "h")


def test_the_config_overrules_a_guess(tmp_path: Path) -> None:
    path = folder(tmp_path, age=[n % 30 for n in range(300)], plan=["a", "b"] * 150)
    config = DataConfig(columns={"age": "categorical", "plan": "ignore"})
    dataset, report = load(path, config)
    assert [len(c.values) for c in dataset.user_features.columns] == [30]
    assert {c.name: c.kind for c in report.columns} == config.columns


def test_a_text_column_that_the_config_calls_numeric_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, plan=["a", "b"] * 5)
    with pytest.raises(DataError, match=r"column plan of users holds no number.*row 1: 'a'"):
        load(path, DataConfig(columns={"plan": "numeric"}))


def test_a_list_column_of_users_is_ignored_and_reported(tmp_path: Path) -> None:
    path = folder(tmp_path, "parquet", likes=[["a"], ["b", "c"], []])
    _, report = load(path)
    assert [(c.name, c.kind) for c in report.columns] == [("likes", "ignore")]
    with pytest.raises(DataError, match="column likes of users is of type List"):
        load(path, DataConfig(columns={"likes": "categorical"}))


def test_further_columns_of_items_are_reported(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(40)],
            "brand": ["a", "b"] * 20,
            "price": [n * 1.37 for n in range(40)],
        }
    )
    rows = events(*[(f"u{n}", f"i{n}", 900000000 + n) for n in range(40)])
    _, report = load(write(tmp_path, interactions=rows, items=frame))
    assert {f"{c.table}.{c.name}": c.kind for c in report.columns} == {
        "items.brand": "categorical",
        "items.price": "numeric",
    }
