"""Folders that cannot be used: each is refused in one line that names file, column, row, remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest

from recommender.data.config import DataConfig
from recommender.data.dataset import load
from recommender.errors import BadInput, DataError

HEADER = "user_id,item_id,timestamp\n"
GOOD = HEADER + "u1,i1,900000001\nu1,i2,900000002\nu2,i1,900000003\n"
ITEMS = "item_id,title\ni1,One\ni2,Two\n"


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw)
    return folder


def rows(*lines: str, header: str = HEADER) -> str:
    return header + "".join(f"{line}\n" for line in lines)


# what is wrong -> the files beside a good items.csv, and what the refusal must say
BROKEN: dict[str, tuple[dict[str, str | bytes], tuple[str, ...]]] = {
    "no interactions": ({"ratings.csv": GOOD}, ("interactions.csv", "ratings.csv", "user_id")),
    "an empty file": ({"interactions.csv": ""}, ("interactions.csv", "empty", "header row")),
    "a header alone": ({"interactions.csv": HEADER}, ("below the header row", "user_id")),
    "a missing column": (
        {"interactions.csv": "user_id,item,timestamp\nu1,i1,900000001\n"},
        ("no column item_id", "header row", "user_id, item, timestamp"),
    ),
    "no header": (
        {"interactions.csv": "u1,i1,900000001\nu1,i2,900000002\n"},
        ("no column user_id", "u1, i1, 900000001", "first row"),
    ),
    "a column twice": (
        {"interactions.csv": "user_id,item_id,timestamp,item_id\nu1,i1,1,i1\n"},
        ("'item_id'", "header row", "Rename"),
    ),
    "semicolons": (
        {"interactions.csv": GOOD.replace(",", ";")},
        ("';'", "header row", "separated by commas"),
    ),
    "tabs": (
        {"interactions.csv": GOOD.replace(",", "\t")},
        ("'\\t'", "header row", "separated by commas"),
    ),
    "UTF-16": ({"interactions.csv": GOOD.encode("utf-16")}, ("not UTF-8", "header row", "UTF-8")),
    "a zero byte": (
        {"interactions.csv": rows("u1,i1,900000001", "u1,i\0,900000002")},
        ("zero byte in row 2", "UTF-8"),
    ),
    "a blank first line": ({"interactions.csv": "\n" + GOOD}, ("header row is blank", "names")),
    "Latin-1": (
        {"interactions.csv": rows("u1,i1,900000001", "u1,caf\xe9,900000002").encode("latin-1")},
        ("not UTF-8 at row 2", "column item_id", "\\xe9", "Save it as CSV in UTF-8"),
    ),
    "a row too long": (
        {"interactions.csv": rows("u1,i1,900000001", "u1,i2,900000002,7,8")},
        ("not CSV at row 2", "5 fields where the header has 3", "column timestamp", "quotes"),
    ),
    "a row too long after one of two lines": (
        {"interactions.csv": rows('u1,"i\n1",900000001', "u1,i2,900000002,7")},
        ("not CSV at row 2", "4 fields", "quotes"),
    ),
    "an open quote": (
        {"interactions.csv": rows("u1,i1,900000001", 'u1,"i2,900000002', "u2,i1,900000003")},
        ("not CSV at row 2", "column item_id", "not closed", "quote"),
    ),
    "a quote within": (
        {"interactions.csv": rows("u1,i1,900000001", 'u1,i"2,900000002', "u2,i1,900000003")},
        ("not CSV at row 2", "column item_id", "quote inside", "double"),
    ),
    "carriage returns alone": (
        {"interactions.csv": GOOD.replace("\n", "\r")},
        ("not CSV", "header row", "one row a line"),
    ),
    "Parquet that is none": (
        {"interactions.parquet": GOOD},
        ("interactions.parquet is not Parquet", "ending .csv"),
    ),
    "both formats": (
        {"interactions.csv": GOOD, "interactions.parquet": b"PAR1"},
        ("both interactions.parquet and interactions.csv", "Remove"),
    ),
    "no readable timestamp": (
        {"interactions.csv": rows("u1,i1,900000001", "u1,i2,yesterday", "u2,i1,soon")},
        ("2 of 3 rows", "column timestamp", "row 2", "'yesterday'", "ISO 8601"),
    ),
    "milliseconds": (
        {"interactions.csv": rows("u1,i1,900000001000", "u1,i2,900000002000")},
        ("column timestamp", "milliseconds", "row 1", "900000001000", "Divide it by 1,000"),
    ),
    "nanoseconds": (
        {"interactions.csv": rows("u1,i1,900000001000000000", "u1,i2,900000002000000000")},
        ("column timestamp", "nanoseconds", "row 1", "Divide it by 1,000,000,000"),
    ),
    "no user ids": (
        {"interactions.csv": rows(",i1,900000001", " ,i2,900000002", "u2,i1,900000003")},
        ("2 of 3 rows", "missing id in column user_id", "row 1", "Give every row an id"),
    ),
    "timestamps before 1970": (
        {"interactions.csv": rows("u1,i1,-1", "u1,i2,1931-01-01")},
        ("2 of 2 rows", "out of range", "column timestamp", "row 1", "from 1970"),
    ),
    "ratings that are no numbers": (
        {
            "interactions.csv": rows(
                "u1,i1,900000001,good",
                "u1,i2,900000002,nan",
                "u2,i1,900000003,5",
                header="user_id,item_id,timestamp,rating\n",
            )
        },
        ("2 of 3 rows", "column rating", "row 1", "'good'", "finite numbers"),
    ),
    "ids written two ways": (
        {"interactions.csv": rows("u1,1.0,900000001", "u1,2.0,900000002")},
        ("item_id", "'1.0' in row 1 of interactions", "'i1' in row 1 of items", "same way"),
    ),
    "a users file without ids": (
        {"interactions.csv": GOOD, "users.csv": "id,age\nu1,3\n"},
        ("users.csv", "no column user_id", "header row", "Name the columns"),
    ),
    "an items file twice the same": (
        {"interactions.csv": GOOD, "items.csv": "item_id\ni1\ni1\ni1\n"},
        ("items.csv", "duplicate id", "column item_id", "row 2", "each id once"),
    ),
}


@pytest.mark.parametrize("wrong", BROKEN)
def test_a_broken_folder_is_refused_with_column_row_and_remedy(wrong: str, tmp_path: Path) -> None:
    files, wanted = BROKEN[wrong]
    folder = write(tmp_path, {"items.csv": ITEMS, **files})
    with pytest.raises(DataError) as refusal:
        load(folder)
    message = str(refusal.value)
    assert [part for part in wanted if part not in message] == [], message
    assert "\n" not in message
    assert refusal.value.remedy


def test_the_unbroken_folder_of_these_tests_loads(tmp_path: Path) -> None:
    _, report = load(write(tmp_path, {"interactions.csv": GOOD, "items.csv": ITEMS}))
    assert (report.interactions, report.users, report.items) == (3, 2, 2)


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no items\.csv or items\.parquet.*item_id"):
        load(write(tmp_path, {"interactions.csv": GOOD}))


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*Name a data folder"):
        load(tmp_path / "nothing")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(GOOD)
    with pytest.raises(DataError, match="is not a folder"):
        load(tmp_path / "file")


def test_a_parquet_id_that_is_no_text_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [["a"], ["b"]], "item_id": ["i1", "i2"], "timestamp": [1, 2]})
    frame.with_columns(pl.struct("user_id").alias("user_id")).write_parquet(
        tmp_path / "interactions.parquet"
    )
    write(tmp_path, {"items.csv": ITEMS})
    with pytest.raises(DataError, match=r"column user_id is of type Struct.*row 1.*as text"):
        load(tmp_path)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_more_rows_than_memory_allows_are_refused(format: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["u"] * 30, "item_id": ["i1"] * 30, "timestamp": range(30)})
    getattr(frame, f"write_{format}")(tmp_path / f"interactions.{format}")
    write(tmp_path, {"items.csv": ITEMS})
    with pytest.raises(DataError, match=r"has 30 rows; up to 10.*max_interactions"):
        load(tmp_path, DataConfig(max_interactions=10))


def test_a_config_for_a_column_that_nobody_has_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path, {"interactions.csv": GOOD, "items.csv": ITEMS, "users.csv": "user_id,age\nu1,3"}
    )
    with pytest.raises(DataError, match=r"'agee'.*age"):
        load(tmp_path, DataConfig(columns={"agee": "numeric"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[data]\nbins = 'many'", "data.bins is 'many'. Give a whole number"),
        ("[data]\ncolours = 3", "data.colours does not exist"),
        ("[data.columns]\nage = 'big'", "data.columns.age is 'big'. Choose categorical"),
        ("[data.event_weights]\nview = 'a'", "data.event_weights.view is 'a'. Give a number"),
        ("data = 3", "data is 3. Make data a table"),
        ("[data", "is not TOML"),
    ],
)
def test_a_wrong_config_names_the_setting(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(BadInput) as refusal:
        DataConfig.read(tmp_path / "config.toml")
    assert said in str(refusal.value)
