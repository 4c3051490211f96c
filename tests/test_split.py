"""Splits hold out what they say, and let nothing of it into training."""

from __future__ import annotations

import numpy as np
import pytest

from recommender.data.dataset import Dataset
from recommender.data.split import last_event, leave_one_out, requests, temporal
from recommender.errors import DataError
from recommender.users import Users


def users(*histories: list[tuple[int, int]]) -> Users:
    """Histories of (item, time)."""
    flat = [event for history in histories for event in history]
    return Users(
        user_ids=tuple(f"u{i}" for i in range(len(histories))),
        features=np.zeros((len(histories), 1), np.int64),
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        items=np.array([item for item, _ in flat], np.int64),
        times=np.array([time for _, time in flat], np.int64),
        weights=np.ones(len(flat), np.float32),
    )


def test_leave_one_out_holds_out_the_last_and_the_one_before() -> None:
    split = leave_one_out(users([(1, 10), (2, 20), (3, 30), (4, 40)], [(5, 1), (6, 2)]))
    assert split.train.history(0).items.tolist() == [1, 2]
    assert split.train_valid.history(0).items.tolist() == [1, 2, 3]
    assert [q.targets.tolist() for q in split.valid] == [[3]]
    assert [q.targets.tolist() for q in split.test] == [[4]]
    assert split.train.history(1).items.tolist() == [5, 6]  # too short: stays in training whole


def test_the_request_comes_at_the_last_known_event_not_at_the_target() -> None:
    (query,) = leave_one_out(users([(1, 10), (2, 20), (3, 99)])).test
    assert query.request_time == 20


def test_a_target_the_user_has_had_before_is_no_query() -> None:
    assert leave_one_out(users([(1, 10), (2, 20), (1, 30)])).test == ()


def test_leave_one_out_refuses_data_without_long_histories() -> None:
    with pytest.raises(DataError, match="three events"):
        leave_one_out(users([(1, 10), (2, 20)]))


def test_temporal_never_cuts_an_instant_in_two() -> None:
    split = temporal(users([(i + 1, i // 4) for i in range(40)]))
    assert split.train.times.max() < split.train_valid.times[len(split.train.times) :].min()
    assert split.train.times.max() == 7
    assert split.train_valid.times.max() == 8
    (test,) = split.test
    assert test.request_time == 9
    assert test.targets.tolist() == [37, 38, 39, 40]


def test_temporal_asks_users_without_a_history_too() -> None:
    split = temporal(users([(i + 1, i) for i in range(18)], [(50, 18), (51, 19)]))
    assert {q.user: len(q.history) for q in split.test}[1] == 0


def test_constant_timestamps_are_refused_by_temporal() -> None:
    with pytest.raises(DataError, match="timestamps"):
        temporal(users([(i + 1, 5) for i in range(20)]))


def test_last_event_holds_out_at_most_as_many_users_as_asked(dataset: Dataset) -> None:
    rest, queries = last_event(dataset.users, 40, seed=0)
    assert dataset.users.lengths.sum() - rest.lengths.sum() == 40
    assert 0 < len(queries) <= 40
    for query in queries:
        assert rest.history(query.user).items.tolist() == query.history.items.tolist()


def test_a_request_excludes_its_history_newest_first() -> None:
    split = leave_one_out(users([(1, 10), (2, 20), (3, 30)]))
    (request,) = requests(split.test, split.train_valid)
    assert request.exclude.tolist() == [2, 1]
