"""A split that lets the future in is found and refused; what a protocol cannot help is counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from histories import users

from recommender.data.dataset import Dataset
from recommender.data.split import Split, leave_one_out, temporal
from recommender.data.timing import ORDER
from recommender.errors import DataError
from recommender.protocols import PROTOCOLS
from recommender.report import leaks


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def split(dataset: Dataset, protocol: str) -> Split:
    return PROTOCOLS[protocol](dataset.users)


def verdicts(dataset: Dataset, split: Split, protocol: str) -> dict[str, str]:
    return {f.name: f.verdict for f in leaks.check(dataset, split, protocol)}


def test_our_own_splits_let_nothing_in(dataset: Dataset, split: Split, protocol: str) -> None:
    found = verdicts(dataset, split, protocol)
    assert len(found) >= 8
    assert leaks.FAILED not in found.values()


def test_training_on_everything_is_found_and_refused(
    dataset: Dataset, split: Split, protocol: str
) -> None:
    leaking = dataclasses.replace(split, train_valid=dataset.users)
    found = verdicts(dataset, leaking, protocol)
    assert found["test targets in the same user's training rows"] == leaks.FAILED
    assert found["validation targets in the same user's training rows"] == leaks.PASSED
    assert found["test rows that are training rows"] == leaks.NOTE
    with pytest.raises(DataError, match="lets the future in"):
        leaks.refuse(leaks.check(dataset, leaking, protocol))


def test_one_training_row_of_somebody_else_after_the_cut_is_found(dataset: Dataset) -> None:
    split = temporal(dataset.users)
    cut = split.test[0].request_time
    times = split.train_valid.times.copy()
    times[7] = cut
    late = dataclasses.replace(split.train_valid, times=times)
    found = verdicts(dataset, dataclasses.replace(split, train_valid=late), "temporal")
    assert found["training rows at or after the cut (test)"] == leaks.FAILED
    assert found["training rows at or after the cut (validation)"] == leaks.PASSED


def test_a_query_that_is_asked_before_its_own_history_ends_is_found(dataset: Dataset) -> None:
    split = leave_one_out(dataset.users)
    query = split.test[0]
    early = dataclasses.replace(query, request_time=int(query.history.times[0]) - 1)
    leaking = dataclasses.replace(split, test=(early, *split.test[1:]))
    found = verdicts(dataset, leaking, "leave-one-out")
    assert found["the asked user's own future (test)"] == leaks.FAILED


def test_a_repeat_that_the_history_shows_is_no_leak(dataset: Dataset) -> None:
    again = dataclasses.replace(dataset, users=users([(1, 10), (2, 20), (3, 25), (1, 30)]))
    split = leave_one_out(users([(1, 10), (2, 20), (3, 25), (4, 30)]))
    (query,) = split.test
    repeat = dataclasses.replace(query, targets=np.array([1]))
    found = verdicts(again, dataclasses.replace(split, test=(repeat,)), "leave-one-out")
    assert found["test targets in the same user's training rows"] == leaks.PASSED


def test_the_future_of_others_and_ties_are_counted(dataset: Dataset) -> None:
    first, second = [(1, 10), (2, 20), (3, 20)], [(1, 100), (2, 200), (3, 300)]
    third = [(4, 1000), (5, 2000), (6, 3000)]
    three = dataclasses.replace(dataset, users=users(first, second, third))
    found = {f.name: f for f in leaks.check(three, leave_one_out(three.users), "leave-one-out")}
    future = found["other users' future in training"]
    assert (future.verdict, future.count) == (leaks.NOTE, 2)
    assert "67% of 3 test queries" in future.text
    assert "on average 33% of all training rows" in future.text  # 4, 2 and 0 of 6
    tie = found["targets at the time of the last known event"]
    assert (tie.verdict, tie.count) == (leaks.NOTE, 1)


def test_made_up_timestamps_are_noted(dataset: Dataset) -> None:
    assert "made-up timestamps" not in verdicts(
        dataset, leave_one_out(dataset.users), "leave-one-out"
    )
    counted = dataclasses.replace(dataset, time_kind=ORDER)
    found = verdicts(counted, leave_one_out(counted.users), "leave-one-out")
    assert found["made-up timestamps"] == leaks.NOTE
