"""What timestamps are worth, and which events make one basket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_folders import events, history, items, write

from recommender.contract import Array
from recommender.data.baskets import basket_of, guess_gap
from recommender.data.config import DataConfig
from recommender.data.dataset import Dataset, load
from recommender.data.report import Report
from recommender.data.timing import kind_of_time
from recommender.errors import DataError
from recommender.protocols import split_of
from recommender.users import Users

T = 1_700_000_000
HOUR, DAY = 3_600, 86_400


def kind(users: object, times: object) -> str:
    owner, moments = np.asarray(users), np.asarray(times, float)
    order = np.lexsort((moments, owner))
    return kind_of_time(owner[order], moments[order])[0]


# 40 users with 5 events each, mixed, as the rows of a file
OWNER = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 5))
ROWS = np.arange(200)
PLACE = np.array([(OWNER[:row] == OWNER[row]).sum() for row in ROWS])  # 0 to 4 within its user
SOME_DAYS = np.random.default_rng(1).integers(0, 90, 200)


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (np.full(200, T), "none"),
        (np.zeros(200), "none"),
        (ROWS, "order"),
        (ROWS + 1, "order"),
        (20_240_101 + SOME_DAYS, "order"),
        (T + ROWS, "order"),
        (T + ROWS * DAY, "order"),
        (T + PLACE, "order"),
        (T + PLACE * DAY, "order"),
        (T + OWNER * 997 + PLACE, "order"),
        (T + SOME_DAYS * DAY, "real"),  # dates only, every day of the three months
        (T + SOME_DAYS * DAY + ROWS, "real"),
        (T + ROWS // 3 * 60, "real"),  # one a minute in threes: not enough to call it made up
        (np.delete(T + ROWS, [5, 50, 51, 150]), "order"),  # rows are missing
        (np.delete(T + PLACE * 60, [5, 50, 51, 150]), "order"),
        (T + OWNER, "real"),  # a moment for each, of five events: a basket
    ],
    ids=["constant", "zero", "rows from 0", "rows from 1", "dates as numbers", "rows in seconds",
         "rows in days", "places in seconds", "places in days",
         "places after a start", "dates", "moments", "threes",
         "rows with holes", "places with holes", "a basket each"],
)  # fmt: skip
def test_made_up_times_are_told_from_real_ones(times: Array, wanted: str) -> None:
    left = np.delete(OWNER, [5, 50, 51, 150]) if len(times) < len(OWNER) else OWNER
    assert kind(left, times) == wanted


def test_one_timestamp_for_a_long_history_is_none(tmp_path: Path) -> None:
    owner = np.repeat(np.arange(30), 25)
    assert kind(owner, T + owner * 1_000) == "none"
    some = np.random.default_rng(3).integers(0, 900, len(owner))
    assert kind(owner, T + owner * 1_000 + some) == "real"
    rows = [(f"u{n // 25}", "abcdef"[n % 6], T + n // 25) for n in range(750)]
    dataset, report = folder(tmp_path, rows)
    assert dataset.time_kind == "none" and report.interactions == 750
    assert "25 in the mean, all have one timestamp" in report.time_why


def test_who_comes_every_day_has_real_dates() -> None:
    days = np.sort(np.random.default_rng(2).choice(60, (40, 50)), axis=1)  # few days are missed
    assert kind(np.repeat(np.arange(40), 50), T + days.ravel() * DAY) == "real"


def test_few_events_are_not_called_made_up() -> None:
    assert kind([0, 0, 0, 1, 1], [T, T + 1, T + 2, T + 3, T + 4]) == "real"


def test_a_thousand_events_within_one_hour_are_an_order_only() -> None:
    rng = np.random.default_rng(0)
    owner, moments = rng.integers(0, 100, 2_000), T + rng.integers(0, HOUR, 2_000)
    assert kind(owner, moments) == "order"
    assert kind(owner, T + rng.integers(0, DAY, 2_000)) == "real"


def folder(
    path: Path, rows: list[tuple[str, str, int]], **choices: object
) -> tuple[Dataset, Report]:
    config = DataConfig.from_table(choices)
    return load(write(path, interactions=events(*rows), items=items(*"abcdef")), config)


def test_the_dataset_says_what_its_times_are_worth_and_the_report_why(tmp_path: Path) -> None:
    rows = [(f"u{n % 30}", "abcdef"[n % 6], 1_000 + n) for n in range(300)]
    dataset, report = folder(tmp_path, rows)
    assert (dataset.time_kind, dataset.session_gap) == ("order", 0)
    assert "an order only: timestamps lie around 1149" in "\n".join(report.lines())
    assert any("only their order is used" in warning for warning in report.warnings)


def moments(dataset: Dataset, user_id: str) -> list[tuple[str, int]]:
    return [(item, time) for item, time, _ in history(dataset, user_id)]


def test_constant_times_become_places_in_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [("u", "b", T), ("v", "c", T), ("u", "a", T), ("u", "c", T), ("v", "a", T)]
    dataset, report = folder(tmp_path, rows)
    assert dataset.time_kind == "none"
    assert moments(dataset, "u") == [("b", T), ("a", T + 1), ("c", T + 2)]
    assert moments(dataset, "v") == [("c", T), ("a", T + 1)]
    assert dataset.catalogue.popularity == pytest.approx([2, 1, 2, 0, 0, 0], abs=1e-3)
    assert dataset.end == T + 2
    assert (report.first, report.last, report.simultaneous) == (T, T, 1.0)


def test_constant_times_tell_no_row_from_another_so_all_are_events(tmp_path: Path) -> None:
    rows = [("u", "b", T), ("u", "a", T), ("u", "b", T), ("u", "b", T), ("v", "a", T)]
    dataset, report = folder(tmp_path, rows, repurchase=True)
    assert [item for item, _ in moments(dataset, "u")] == ["b", "a", "b", "b"]
    assert report.dropped == () and report.repeated == 2


def test_a_counter_stays_one_when_rows_are_left_out(tmp_path: Path) -> None:
    rows = [(f"u{n % 30}", "abcdef"[n % 6], T + n, "ad" if n % 9 else "buy") for n in range(300)]
    frame = events(*rows, columns="user_id item_id timestamp event")
    config = DataConfig.from_table({"event_weights": {"ad": 0, "buy": 1}})
    dataset, _ = load(write(tmp_path, interactions=frame, items=items(*"abcdef")), config)
    assert dataset.time_kind == "order" and dataset.users.lengths.sum() == 34


def test_made_up_times_keep_their_order_and_their_ties_a_second_apart(tmp_path: Path) -> None:
    rows = [("u", "b", 20_240_201), ("u", "a", 20_240_131), ("v", "c", 20_240_201),
            ("u", "c", 20_240_201), ("v", "a", 20_250_101)]  # fmt: skip
    dataset, report = folder(tmp_path, rows)
    assert dataset.time_kind == "order"
    first = 20_240_131
    assert moments(dataset, "u") == [("a", first), ("b", first + 1), ("c", first + 1)]
    assert moments(dataset, "v") == [("c", first + 1), ("a", first + 2)]
    assert (report.first, report.last) == (first, 20_250_101)


def test_real_times_stay(tmp_path: Path) -> None:
    dataset, _ = folder(tmp_path, [("u", "b", T), ("u", "a", T + 5_000), ("v", "c", T + 7)])
    assert dataset.time_kind == "real"
    assert moments(dataset, "u") == [("b", T), ("a", T + 5_000)]


def test_the_temporal_protocol_refuses_constant_times_only(tmp_path: Path) -> None:
    rows = [(f"u{n % 30}", "abcdef"[n // 30 % 6], T) for n in range(180)]
    dataset, _ = folder(tmp_path, rows)
    with pytest.raises(DataError, match=r"timestamps are worth nothing.*leave-one-out"):
        split_of(dataset, "temporal")
    assert len(split_of(dataset, "leave-one-out").test) == 30
    counted, _ = folder(tmp_path, [(user, item, n) for n, (user, item, _) in enumerate(rows)])
    assert counted.time_kind == "order"
    assert len(split_of(counted, "temporal").test) == 18  # of the last 18 rows


def test_counters_are_never_taken_for_repetitions_within_a_minute(tmp_path: Path) -> None:
    rows = [("u", "a", n) for n in range(30)]
    _, report = folder(tmp_path, rows)
    assert report.interactions == 30


# Baskets


def users_of(*times: list[int]) -> Users:
    flat = [t for one in times for t in one]
    return Users(
        user_ids=tuple(f"u{n}" for n in range(len(times))),
        features=np.zeros((len(times), 0), np.int64),
        offsets=np.cumsum([0, *map(len, times)]),
        items=np.ones(len(flat), np.int64),
        times=np.asarray(flat, np.int64),
        weights=np.ones(len(flat), np.float32),
    )


def test_without_a_gap_events_of_one_moment_are_one_basket() -> None:
    users = users_of([T, T, T + 1, T + 1], [], [T + 1], [T + 1, T + 9])
    assert basket_of(users, 0).tolist() == [0, 0, 1, 1, 0, 0, 1]


def test_a_gap_chains_events_into_one_visit() -> None:
    users = users_of([T, T + 60, T + 120, T + 181], [T + 182, T + 183])
    assert basket_of(users, 60).tolist() == [0, 0, 0, 1, 0, 0]


def test_nobody_has_baskets_where_nobody_has_events() -> None:
    assert basket_of(users_of([], []), 60).tolist() == []


def test_a_basket_number_is_what_counting_by_hand_gives() -> None:
    rng = np.random.default_rng(3)
    histories = [sorted(rng.integers(0, 4_000, n).tolist()) for n in rng.integers(0, 30, 50)]
    wanted = []
    for times in histories:
        number = 0
        for before, time in zip([*times[:1], *times], times, strict=False):
            number += time - before > 100
            wanted.append(number)
    assert basket_of(users_of(*histories), 100).tolist() == wanted


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        ([T, T, T, T + DAY, T + DAY], 0),  # receipts: a moment is a basket
        ([T, T + 30, T + 300, T + DAY, T + DAY + 9], 1_800),  # visits
        ([T + n * DAY for n in range(9)], 0),  # single acts
    ],
)
def test_the_gap_is_guessed_from_how_events_follow_each_other(times: list[int], gap: int) -> None:
    users = users_of(times, times[:2], times[:2], times[:2])
    assert guess_gap(users, "real")[0] == gap
    assert guess_gap(users, "order")[0] == 0


def test_the_config_sets_the_gap_and_the_report_counts_the_baskets(tmp_path: Path) -> None:
    rows = [("u", "a", T), ("u", "b", T + 100), ("u", "c", T + 250)]
    dataset, report = folder(tmp_path, rows, session_gap=100)
    assert (dataset.session_gap, report.baskets) == (100, 2)
    guessed, report = folder(tmp_path, rows)
    assert (guessed.session_gap, report.baskets) == (1_800, 1)
    assert guessed.digest != dataset.digest
