"""Splits hold out what they say, and let nothing of it into training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from histories import users

from recommender.contract import Array
from recommender.data.dataset import Dataset
from recommender.data.split import (
    Query,
    before,
    cuts,
    leave_one_out,
    newest,
    requests,
    strangers,
    temporal,
)
from recommender.errors import DataError
from recommender.users import Users


def wanted(queries: tuple[Query, ...]) -> list[list[int]]:
    return [query.targets.tolist() for query in queries]


def of(histories: Users, user: int) -> list[int]:
    return histories.history(user).items.tolist()


def returned(histories: Users, *rows: int) -> Users:
    """With these rows marked as returns."""
    negative = np.zeros(len(histories.items), bool)
    negative[list(rows)] = True
    return dataclasses.replace(histories, negative=negative)


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


def test_what_the_user_has_had_before_is_asked_for_only_with_repurchase() -> None:
    histories = users([(1, 10), (2, 20), (3, 30), (1, 40), (3, 50)])
    split = leave_one_out(histories)
    assert wanted(split.valid) + wanted(split.test) == [[2], [3]]
    split = leave_one_out(histories, repurchase=True)
    assert wanted(split.valid) + wanted(split.test) == [[1], [3]]
    assert split.test[0].history.items.tolist() == [1, 2, 3, 1]


def test_neither_a_return_nor_what_it_takes_back_is_asked_for() -> None:
    histories = returned(users([(1, 10), (2, 20), (3, 30), (4, 40), (4, 50)]), 4)
    split = leave_one_out(histories)
    assert wanted(split.valid) + wanted(split.test) == [[2], [3]]
    assert split.train_valid.negative is not None
    assert split.train_valid.negative.tolist() == [False, False]


def test_what_is_bought_again_after_its_return_is_asked_for_with_repurchase() -> None:
    histories = returned(users([(1, 10), (2, 20), (3, 30), (3, 40), (3, 50)]), 3)
    split = leave_one_out(histories, repurchase=True)
    assert wanted(split.valid) + wanted(split.test) == [[2], [3]]
    assert split.test[0].history.items.tolist() == [1, 2, 3, 3]


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


def test_temporal_asks_for_repeats_only_with_repurchase() -> None:
    histories = users([(i % 5 + 1, i) for i in range(20)])
    assert temporal(histories).test == ()
    assert wanted(temporal(histories, repurchase=True).test) == [[4, 5]]


# Held out to learn to mix by


def shares(rest: Users, whole: Users) -> Array:
    held_out: Array = whole.lengths - rest.lengths
    return held_out


def test_the_newest_of_each_user_are_held_out_up_to_a_cap_and_an_eighth_of_all() -> None:
    histories = users(
        [(i + 1, i) for i in range(100)],
        [(i + 1, i) for i in range(10)],
        [(1, 5), (2, 6)],
        [(9, 1)],
    )
    rest, queries = newest(histories, 3, seed=0)
    assert shares(rest, histories).tolist() == [3, 2, 1, 0]  # the cap, a fifth, one, none of one
    assert wanted(queries) == [[98], [99], [100], [9], [10], [2]]
    many = users(*([(i + 1, i) for i in range(5)] for _ in range(80)))
    rest, queries = newest(many, 3, seed=0)
    assert shares(rest, many).sum() == len(queries) == 50  # of 400
    assert shares(rest, many).tolist() != shares(newest(many, 3, seed=1)[0], many).tolist()


def test_each_event_held_out_is_asked_for_when_all_before_it_is_known() -> None:
    histories = users(*([(i + 1, i * 10) for i in range(15)] for _ in range(8)))
    rest, queries = newest(histories, 10, seed=0)
    assert wanted(queries) == [[13], [14], [15]] * 5
    assert of(rest, queries[0].user) == list(range(1, 13))
    for query in queries:
        known = len(query.history)
        assert query.history.items.tolist() == list(range(1, known + 1))
        assert query.targets.tolist() == [known + 1]
        assert query.request_time == (known - 1) * 10


def test_something_is_held_out_of_the_least_data() -> None:
    for one in (2, 5, 15, 40):
        rest, queries = newest(users([(i + 1, i) for i in range(one)]), 10, seed=0)
        assert rest.lengths[0] == one - len(queries) < one


def test_no_target_of_the_newest_is_known_or_trained_on(dataset: Dataset) -> None:
    rest, queries = newest(dataset.users, 10, seed=0)
    assert 0 < len(queries) <= len(dataset.users.items) // 8
    for query in queries:
        assert not np.isin(query.targets, query.history.items).any()
        assert not np.isin(query.targets, rest.history(query.user).items).any()
        assert query.history.items[: rest.lengths[query.user]].tolist() == of(rest, query.user)


def test_users_without_anything_to_ask_for_are_not_held_out() -> None:
    histories = users([(1, 1), (1, 2)], [(1, 1), (2, 2)], [(2, 1), (1, 2)], [(3, 1)] * 4)
    for seed in range(9):
        rest, queries = newest(histories, 3, seed)
        assert rest.lengths[0] == 2 and rest.lengths[3] == 4
        assert len(queries) == 1
    again = [q for seed in range(30) for q in newest(histories, 3, seed, repurchase=True)[1]]
    assert {query.user for query in again} == {0, 1, 2, 3}


def test_strangers_are_known_by_nothing_that_they_did(dataset: Dataset) -> None:
    rest, queries = newest(dataset.users, 10, seed=0)
    asked = strangers(dataset.users, rest, 1000)
    assert {query.user for query in asked} == {query.user for query in queries}
    for query in asked:
        later = dataset.users.history(query.user).items[rest.lengths[query.user] :]
        assert set(query.targets) == set(later) - set(of(rest, query.user)) != set()
        assert query.request_time > rest.times.max()
    (request, *_) = requests(asked, rest)
    assert (len(request.history), len(request.exclude)) == (0, 0)
    assert (request.user_features == dataset.users.features[asked[0].user]).all()
    few = strangers(dataset.users, rest, 7)
    assert len({query.user for query in few}) == len(few) == 7


# Cuts in time


def test_a_cut_knows_nothing_from_its_moment_on(dataset: Dataset) -> None:
    found = cuts(dataset.users, 5)
    assert len(found) == 5
    moments = [queries[0].request_time for _, queries in found]
    assert moments == sorted(set(moments))
    for moment, (known, queries) in zip(moments, found, strict=True):
        assert known.times.max() < moment
        assert {query.request_time for query in queries} == {moment}
        for query in queries:
            assert query.history.items.tolist() == of(known, query.user)
            after = dataset.users.history(query.user)[int(known.lengths[query.user]) :]
            assert set(query.targets) <= set(after.items) - set(query.history.items)
            assert len(query.targets)


def test_a_cut_asks_for_the_next_tenth_of_the_rows_only() -> None:
    histories = users([(i + 1, i) for i in range(100)])
    assert [wanted(queries) for _, queries in cuts(histories, 2)] == [
        [list(range(51, 61))],
        [list(range(91, 101))],
    ]
    (_, (query,)) = cuts(users([(i % 60 + 1, i) for i in range(100)]), 2)[0]
    assert query.targets.tolist() == list(range(51, 61))
    (_, queries) = cuts(users([(i % 60 + 1, i) for i in range(100)]), 2)[1]
    assert queries == ()
    (_, (query,)) = cuts(users([(i % 60 + 1, i) for i in range(100)]), 2, repurchase=True)[1]
    assert query.targets.tolist() == list(range(31, 41))


def test_constant_times_give_no_cuts() -> None:
    assert cuts(users([(i + 1, 5) for i in range(40)]), 5) == []


def test_before_keeps_every_user() -> None:
    known = before(users([(1, 10), (2, 20)], [(3, 20)]), 20)
    assert known.lengths.tolist() == [1, 0]


# Requests


def test_a_request_excludes_its_history_newest_first() -> None:
    split = leave_one_out(users([(1, 10), (2, 20), (3, 30)]))
    (request,) = requests(split.test, split.train_valid)
    assert request.exclude.tolist() == [2, 1]


def test_a_request_excludes_nothing_where_repurchase_is_allowed() -> None:
    split = leave_one_out(users([(1, 10), (2, 20), (3, 30)]), repurchase=True)
    (request,) = requests(split.test, split.train_valid)
    assert request.exclude.tolist() == []
    assert request.history.items.tolist() == [1, 2]
