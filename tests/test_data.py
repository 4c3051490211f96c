"""Data folders that can be used: what `load` makes of them, whatever their format."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_folders import events, history, items, write

from recommender.data.config import DataConfig
from recommender.data.dataset import load
from recommender.users import Users

DAY = 86_400


# Ids, order, weights, popularity


def test_ids_with_leading_zeros_stay_as_they_are(tmp_path: Path) -> None:
    frame = events(("007", "01", 900000001), ("7", "1", 900000002))
    dataset, _ = load(write(tmp_path, interactions=frame, items=items("01", "1")))
    assert dataset.users.user_ids == ("007", "7")
    assert dataset.catalogue.item_ids == ("01", "1")


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.Categorical])
def test_whole_numbers_in_parquet_become_the_same_ids_as_in_csv(
    dtype: type[pl.DataType], tmp_path: Path
) -> None:
    text = pl.col("user_id", "item_id")
    frame = events(("5", "10", 900000001), ("6", "11", 900000002))
    numbers = frame.with_columns(text if dtype == pl.Categorical else text.cast(pl.Int64))
    write(tmp_path, "parquet", interactions=numbers.with_columns(text.cast(dtype)))
    dataset, _ = load(write(tmp_path, items=items("10", "11")))
    assert dataset.users.user_ids == ("5", "6")
    assert dataset.catalogue.item_ids == ("10", "11")


def test_histories_are_in_order_of_time_then_of_rows(tmp_path: Path) -> None:
    frame = events(
        ("u", "c", 900000009), ("u", "b", 900000005), ("u", "a", 900000009), ("u", "d", 900000001)
    )
    dataset, report = load(write(tmp_path, interactions=frame, items=items("a", "b", "c", "d")))
    assert [item for item, _, _ in history(dataset, "u")] == ["d", "b", "c", "a"]
    assert report.simultaneous == 0.5
    assert dataset.end == 900000009


def test_what_is_seen_in_interactions_only_is_kept_after_what_has_a_record(tmp_path: Path) -> None:
    frame = events(("new", "y", 900000001), ("old", "a", 900000002), ("new", "x", 900000003))
    users = pl.DataFrame({"user_id": ["silent", "old"]})
    dataset, report = load(write(tmp_path, interactions=frame, items=items("b", "a"), users=users))
    assert dataset.catalogue.item_ids == ("b", "a", "y", "x")
    assert dataset.users.user_ids == ("silent", "old", "new")
    assert history(dataset, "silent") == []
    assert dataset.catalogue.title(3) is None and dataset.catalogue.categories_of(3) == ()
    assert (report.items_without_record, report.users_without_record) == (2, 1)
    assert (report.users_with_events, report.items_with_events) == (2, 3)
    assert any(
        "2 interactions are with items that the items file lacks" in w for w in report.warnings
    )


@pytest.mark.parametrize(
    "text",
    [
        "1997-12-04T15:55:49Z",
        "1997-12-04 15:55:49",
        "1997-12-04 15:55:49 UTC",
        "1997-12-04T16:55:49+01:00",
        "1997-12-04T15:55:49.75",
        "881250949",
        "881250949.0",
        " 8.81250949e8 ",
    ],
)
def test_every_spelling_of_a_moment_is_the_same_moment(text: str, tmp_path: Path) -> None:
    frame = events(("u", "a", text), ("u", "b", "881250950"))
    dataset, _ = load(write(tmp_path, interactions=frame, items=items("a", "b")))
    assert history(dataset, "u")[0][1] == 881250949


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_parquet_datetimes_are_moments_whatever_their_unit(
    unit: str, zone: str | None, tmp_path: Path
) -> None:
    moments = pl.from_epoch(pl.Series("timestamp", [881250949, 881250950]), "s")
    typed = moments.dt.cast_time_unit(unit).dt.replace_time_zone("UTC" if zone else None)
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]}).with_columns(
        typed.dt.convert_time_zone(zone) if zone else typed
    )
    write(tmp_path, "parquet", interactions=frame)
    dataset, _ = load(write(tmp_path, items=items("a", "b")))
    assert [time for _, time, _ in history(dataset, "u")] == [881250949, 881250950]


def test_weights_are_ratings_less_their_mean(tmp_path: Path) -> None:
    columns = "user_id item_id timestamp rating"
    frame = events(("u", "a", 900000001, 5), ("u", "b", 900000002, 2), columns=columns)
    dataset, _ = load(write(tmp_path, interactions=frame, items=items("a", "b")))
    assert dataset.mean_rating == 3.5
    assert [weight for _, _, weight in history(dataset, "u")] == [1.5, -1.5]


def test_an_unknown_event_counts_one_and_is_reported(tmp_path: Path) -> None:
    columns = "user_id item_id timestamp event"
    names = ["Purchase ", "view", "wave", None]
    rows = [("u", "a", 900000000 + i, name) for i, name in enumerate(names)]
    dataset, report = load(
        write(tmp_path, interactions=events(*rows, columns=columns), items=items("a"))
    )
    assert [weight for _, _, weight in history(dataset, "u")] == [4, 1, 1, 1]
    assert report.unknown_events == {"wave": 1}
    assert report.events == {"purchase": 1, "view": 1, "wave": 1}
    assert any("wave" in warning for warning in report.warnings)


def test_the_config_gives_events_their_weights(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[data.event_weights]\nwave = 7\n[training]\nepochs = 3\n")
    columns = "user_id item_id timestamp event"
    frame = events(("u", "a", 900000000, "wave"), ("u", "a", 900000001, "view"), columns=columns)
    folder = write(tmp_path / "data", interactions=frame, items=items("a"))
    dataset, report = load(folder, DataConfig.read(tmp_path / "c.toml"))
    assert [weight for _, _, weight in history(dataset, "u")] == [7, 1]
    assert report.unknown_events == {}


def test_a_badly_rated_return_stays_negative(tmp_path: Path) -> None:
    columns = "user_id item_id timestamp event rating"
    frame = events(
        ("u", "a", 900000000, "return", "1"),
        ("u", "b", 900000001, "purchase", "5"),
        ("u", "b", 900000002, "purchase", None),
        columns=columns,
    )
    dataset, _ = load(write(tmp_path, interactions=frame, items=items("a", "b")))
    assert [weight for _, _, weight in history(dataset, "u")] == [-4, 8, 4]


def test_recent_events_make_items_popular_and_old_ones_still_order_them(tmp_path: Path) -> None:
    now = 900000000
    ages = {"fresh": [0], "month": [30, 30], "three": [3000] * 3, "two": [3000] * 2, "none": []}
    rows = [
        (f"u{n}", item, now - days * DAY)
        for item, old in ages.items()
        for n, days in enumerate(old)
    ]
    frame = events(*rows)
    dataset, _ = load(write(tmp_path, interactions=frame, items=items(*reversed(ages))))
    popularity = dict(
        zip(dataset.catalogue.item_ids, dataset.catalogue.popularity.tolist(), strict=True)
    )
    assert popularity["fresh"] == pytest.approx(1, abs=0.001)
    assert popularity["month"] == pytest.approx(1, abs=0.001)  # two events, half each
    assert 0.001 > popularity["three"] > popularity["two"] > popularity["none"] == 0
    assert dataset.catalogue.popularity.dtype == np.float32


# The same content in any format


def random_folder(seed: int) -> dict[str, pl.DataFrame]:
    """A small shop: ties in time, empty fields, quotes and commas in names, repeated categories."""
    rng = random.Random(seed)
    goods = [f"{n:03d}" if n % 2 else f'it"em, {n}' for n in range(rng.randint(3, 12))]
    people = [f"user {n}" for n in range(rng.randint(2, 9))]
    count = rng.randint(20, 200)
    names = ["Red", "blue", "ünï", "x y"]
    return {
        "interactions": pl.DataFrame(
            {
                "user_id": [rng.choice(people) for _ in range(count)],
                "item_id": [rng.choice(goods) for _ in range(count)],
                "timestamp": [900000000 + rng.randint(0, 50) for _ in range(count)],
                "event": [rng.choice(["view", "purchase", "return", None]) for _ in range(count)],
                "rating": [rng.choice([1.0, 2.5, 5.0, None]) for _ in range(count)],
                "session": [rng.randint(0, 9) for _ in range(count)],
            }
        ),
        "items": pl.DataFrame(
            {
                "item_id": goods[1:],
                "title": [rng.choice([f"The, {g}", None]) for g in goods[1:]],
                "categories": [
                    "|".join(rng.choices(names, k=rng.randint(0, 3))) for _ in goods[1:]
                ],
                "price": [rng.random() * 100 for _ in goods[1:]],
            }
        ),
        "users": pl.DataFrame(
            {
                "user_id": people,
                "age": [rng.choice([rng.randint(10, 90), None]) for _ in people],
                "plan": [rng.choice(["free", "paid"]) for _ in people],
                "member": [rng.choice([True, False]) for _ in people],
            }
        ),
    }


@pytest.mark.parametrize("seed", range(12))
def test_a_folder_loads_to_what_was_written(seed: int, tmp_path: Path) -> None:
    frames = random_folder(seed)
    config = DataConfig(min_occurrences=1, burst_seconds=0)
    dataset, report = load(write(tmp_path, **frames), config)
    rows = list(dict.fromkeys(frames["interactions"].select(pl.exclude("session")).iter_rows()))
    mean = np.mean([rating for *_, rating in rows if rating is not None])
    strength = {"view": 1, "purchase": 4, "return": -2, None: 1}
    assert set(dataset.users.user_ids) == set(frames["users"]["user_id"])
    for user_id in dataset.users.user_ids:
        wanted = []
        for _, item, time, event, rating in sorted(
            (r for r in rows if r[0] == user_id), key=lambda r: r[2]
        ):
            centred = 1 if rating is None else rating - mean
            sign = -1 if event == "return" or centred < 0 else 1
            wanted.append((item, time, pytest.approx(sign * abs(strength[event] * centred))))
        assert history(dataset, user_id) == wanted
    assert report.interactions == len(rows)
    assert sum(d.count for d in report.dropped) == frames["interactions"].height - len(rows)
    assert report.ignored_columns == ("session",)
    for item_id, title, categories, _ in frames["items"].iter_rows():
        index = dataset.catalogue.index(item_id)
        assert dataset.catalogue.title(index) == title
        assert list(dataset.catalogue.categories_of(index)) == list(
            dict.fromkeys(c for c in categories.split("|") if c)
        )


@pytest.mark.parametrize("seed", range(12))
def test_csv_and_parquet_give_one_dataset(seed: int, tmp_path: Path) -> None:
    frames = random_folder(seed)
    lists = frames["items"].with_columns(pl.col("categories").str.split("|"))
    csv, _ = load(write(tmp_path / "csv", **frames))
    parquet, _ = load(write(tmp_path / "parquet", "parquet", **{**frames, "items": lists}))
    assert csv.digest == parquet.digest
    assert csv.catalogue.categories == parquet.catalogue.categories
    assert csv.user_features == parquet.user_features
    for name in ("features", "offsets", "items", "times", "weights"):
        assert np.array_equal(getattr(csv.users, name), getattr(parquet.users, name)), name
    assert np.array_equal(csv.catalogue.popularity, parquet.catalogue.popularity)


@pytest.mark.parametrize("column", ["item_id", "timestamp", "rating", "event"])
def test_the_digest_sees_a_change_in_one_row(column: str, tmp_path: Path) -> None:
    frames = random_folder(1)
    before, _ = load(write(tmp_path / "before", **frames))
    other = {"item_id": "another", "timestamp": 900000777, "rating": 4.75, "event": "cart"}[column]
    changed = frames["interactions"].with_columns(
        pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(other)).otherwise(column).alias(column)
    )
    after, _ = load(write(tmp_path / "after", **{**frames, "interactions": changed}))
    assert before.digest != after.digest


def test_users_survive_the_release_file(tmp_path: Path) -> None:
    dataset, _ = load(write(tmp_path, **random_folder(3)))
    dataset.users.write(tmp_path)
    again = Users.read(tmp_path)
    assert again.user_ids == dataset.users.user_ids
    assert np.array_equal(again.items, dataset.users.items)
    assert np.array_equal(again.features, dataset.users.features)
