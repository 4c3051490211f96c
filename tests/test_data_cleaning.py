"""Broken rows are dropped and counted, by reason and row; the others are used as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folders import history

from recommender.data.dataset import load
from recommender.data.report import Dropped, Report
from recommender.errors import DataError

GOOD = [f"u{n},i{n % 3},90000000{n},4" for n in range(9)]


def folder(path: Path, lines: list[str], **others: str) -> Path:
    header = "user_id,item_id,timestamp,rating"
    (path / "interactions.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    (path / "items.csv").write_text(others.pop("items", "item_id\ni0\ni1\ni2\n"))
    for name, text in others.items():
        (path / f"{name}.csv").write_text(text)
    return path


def reasons(report: Report) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    return {d.reason: (d.column, d.count, d.rows) for d in report.dropped}


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        (",i1,900000001,4", "missing id", "user_id"),
        ("  ,i1,900000001,4", "missing id", "user_id"),
        ("u1,,900000001,4", "missing id", "item_id"),
        ('u1,"i1\ni2",900000001,4', "control character in id", "item_id"),
        ("u1,i1,,4", "missing timestamp", "timestamp"),
        ("u1", "missing id", "item_id"),
        ("", "missing id", "user_id"),
        ("u1,i1,noon,4", "unreadable timestamp", "timestamp"),
        ("u1,i1,nan,4", "unreadable timestamp", "timestamp"),
        ("u1,i1,inf,4", "unreadable timestamp", "timestamp"),
        ("u1,i1,1997-13-45,4", "unreadable timestamp", "timestamp"),
        ("u1,i1,-5,4", "timestamp out of range", "timestamp"),
        ("u1,i1,900000001000,4", "timestamp out of range", "timestamp"),
        ("u1,i1,900000001,inf", "unreadable rating", "rating"),
        ("u1,i1,900000001,nan", "unreadable rating", "rating"),
        ("u1,i1,900000001,1e300", "unreadable rating", "rating"),
        ("u1,i1,900000001,four", "unreadable rating", "rating"),
        ("u2,i2,900000002,4", "duplicate row", "user_id"),
        (" u2 ,i2,1998-07-09T16:00:02Z,4.0", "duplicate row", "user_id"),
    ],
)
def test_a_broken_row_is_dropped_with_reason_column_and_row(
    row: str, reason: str, column: str, tmp_path: Path
) -> None:
    dataset, report = load(folder(tmp_path, [*GOOD[:4], row, *GOOD[4:]]))
    # row 5 is the broken one, whatever stands below it
    assert reasons(report) == {reason: (column, 1, (5,))}
    assert report.interactions == len(GOOD)
    assert len(dataset.users) == len(GOOD)


@pytest.mark.parametrize("rating", ["", " ", '""'])
def test_an_event_without_a_rating_is_kept_as_a_plain_one(rating: str, tmp_path: Path) -> None:
    lines = [*GOOD, "v,i1,900000100,2", f"v,i2,900000200,{rating}"]
    dataset, report = load(folder(tmp_path, lines))
    assert report.dropped == ()
    assert history(dataset, "v")[1] == ("i2", 900000200, 1.0)


def test_rows_that_are_there_several_times_lose_nothing_and_refuse_nothing(tmp_path: Path) -> None:
    once, _ = load(folder(tmp_path, GOOD))
    dataset, report = load(folder(tmp_path, GOOD * 3))
    assert dataset.digest == once.digest
    assert [(d.reason, d.count) for d in report.dropped] == [("duplicate row", 2 * len(GOOD))]


def test_the_same_rating_everywhere_says_nothing_and_is_not_used(tmp_path: Path) -> None:
    dataset, report = load(folder(tmp_path, GOOD))
    assert dataset.mean_rating is None
    assert set(dataset.users.weights.tolist()) == {1.0}
    assert "all ratings are the same: they are not used" in report.warnings


def test_only_the_first_rows_of_a_reason_are_named(tmp_path: Path) -> None:
    _, report = load(folder(tmp_path, [*GOOD, *["u1,i1,soon,4"] * 5]))
    (dropped,) = report.dropped
    assert (dropped.count, dropped.rows, dropped.value) == (5, (10, 11, 12), "'soon'")
    assert "5 × unreadable timestamp (column timestamp, row 10, 11, 12, …: 'soon')" in str(dropped)


def test_half_of_the_rows_may_go_but_not_more(tmp_path: Path) -> None:
    broken = ["u1,i1,soon,4"] * len(GOOD)
    assert load(folder(tmp_path, [*GOOD, *broken]))[1].interactions == len(GOOD)
    with pytest.raises(DataError, match=r"10 of 19 rows cannot be used"):
        load(folder(tmp_path, [*GOOD, *broken, "u1,i1,soon,4"]))


def test_the_first_record_of_an_item_and_of_a_user_counts(tmp_path: Path) -> None:
    items = "item_id,title\ni0,First\ni1,B\ni2,C\ni0,Second\n,Nameless\n"
    users = "user_id,plan\n" + "".join(f"u{n},a\n" for n in range(9)) + "u0,b\n"
    dataset, report = load(folder(tmp_path, GOOD, items=items, users=users))
    assert dataset.catalogue.title(1) == "First"
    assert [(d.file, d.reason, d.rows) for d in report.dropped] == [
        ("items.csv", "missing id", (5,)),
        ("items.csv", "duplicate id", (4,)),
        ("users.csv", "duplicate id", (10,)),
    ]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    plain = load(folder(tmp_path, GOOD))[0].digest
    raw = (tmp_path / "interactions.csv").read_bytes()
    (tmp_path / "interactions.csv").write_bytes(b"\xef\xbb\xbf" + raw.replace(b"\n", b"\r\n"))
    assert load(tmp_path)[0].digest == plain


def test_fractions_of_a_second_order_the_events(tmp_path: Path) -> None:
    lines = [*GOOD, "v,i2,900000100.75,4", "v,i1,900000100.25,4"]
    dataset, _ = load(folder(tmp_path, lines))
    assert [(item, time) for item, time, _ in history(dataset, "v")] == [
        ("i1", 900000100),
        ("i2", 900000100),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"u{n},i1,900000000,4" for n in range(5)], "all timestamps are 900000000"),
        ([f"u{n},i1,{n},4" for n in range(5)], "1970 to 1973"),
        ([f"u{n},i1,2024010{n + 1},4" for n in range(5)], "dates such as 20240131"),
        ([*GOOD, "u1,i1,9000000000,4"], "lies in the future"),
        (GOOD, "no user has three events"),
        ([*GOOD, *(f"v,i1,{900000000 + n},4" for n in range(99))], "set repurchase = true"),
    ],
)
def test_what_looks_wrong_but_can_be_used_is_warned_of(
    lines: list[str], said: str, tmp_path: Path
) -> None:
    _, report = load(folder(tmp_path, lines))
    assert any(said in warning for warning in report.warnings)


def test_categories_with_another_separator_are_warned_of(tmp_path: Path) -> None:
    items = "item_id,categories\n" + "".join(f"i{n},a;b{n};c\n" for n in range(30))
    _, report = load(folder(tmp_path, GOOD, items=items))
    assert any("separate categories by |" in warning for warning in report.warnings)


def test_categories_are_trimmed_and_counted_once(tmp_path: Path) -> None:
    items = "item_id,categories\ni0, Drama |Comedy||Drama\ni1,\ni2,|\n"
    dataset, _ = load(folder(tmp_path, GOOD, items=items))
    assert dataset.catalogue.categories == (("Drama", "Comedy"), (), ())


def test_a_reason_reads_as_one_line() -> None:
    dropped = Dropped(
        file="f.csv", column="c", reason="duplicate row", count=1, rows=(3,), value="'a'"
    )
    assert str(dropped) == "f.csv: 1 × duplicate row (column c, row 3: 'a')"
