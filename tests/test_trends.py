"""Trends and affinities: what counts how much for what everybody wants."""

from __future__ import annotations

import numpy as np
import pytest

from recommender.config import SignalConfig
from recommender.data.baskets import place_in_basket
from recommender.models.trends import (
    equal_votes,
    fit_affinity,
    fit_popularity,
    fit_trend,
    votes,
)
from recommender.users import Users

HOUR = 3_600


def users_of(*histories: list[tuple[int, int]], features: list[int] | None = None) -> Users:
    """Histories of (item, time)."""
    lengths = [len(history) for history in histories]
    events = np.array([event for history in histories for event in history]).reshape(-1, 2)
    return Users(
        user_ids=tuple(f"u{row}" for row in range(len(histories))),
        features=np.array(features or [0] * len(histories)).reshape(-1, 1),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=events[:, 0],
        times=events[:, 1],
        weights=np.ones(len(events), np.float32),
    )


def test_a_visit_ends_after_half_an_hour_and_its_late_events_count_less() -> None:
    visit = [(item, 60 * item) for item in range(1, 17)]
    users = users_of([*visit, (17, 5 * HOUR)], [], [(1, 0)])
    assert place_in_basket(users, 1_800).tolist() == [*range(16), 0, 0]
    vote = votes(users)
    assert vote[[0, 16, 17]].tolist() == [1, 1, 1]
    assert vote[15] == pytest.approx(0.5)  # the sixteenth: 16 ** -1/4
    assert (np.diff(vote[:16]) < 0).all()


def test_one_who_stays_for_long_does_not_outweigh_many_who_come_for_one_item() -> None:
    long = [(1 + i % 2, i) for i in range(12)]  # six times item 1 in a visit
    users = users_of(long, *[[(3, 0)]] * 5)
    assert fit_popularity(users, 4, equal_votes(users)).argmax() == 1
    assert fit_popularity(users, 4, votes(users)).argmax() == 3


def test_trends_count_votes_and_nothing_of_the_moment_itself() -> None:
    users = users_of([(1, 0), (2, 0)], [(2, 10 * HOUR)])
    config = SignalConfig(half_life_days=(1.0,))
    trend = fit_trend(users, 3, config, votes(users))
    halved, everything = trend.score[:, -1].astype(float)
    assert trend.score[0, 0, 1] == trend.score[0, 0, 2]  # before the first event all are alike
    second = 2**-0.25
    assert everything[2] - everything[1] == pytest.approx(np.log(1.5 + second) - np.log(1.5), 1e-2)
    assert halved[2] - halved[1] > everything[2] - everything[1]  # item 2 is the newer one


def test_affinity_is_taste_and_nothing_where_nothing_is_known() -> None:
    fans = [[(1, 0)]] * 40
    others = [[(2, 0)]] * 40
    users = users_of(*fans, *others, features=[1] * 40 + [2] * 40)
    affinity = fit_affinity(users, 4, 0, 4)
    assert affinity[1, 1] > 0.3 > -0.3 > affinity[1, 2]
    assert affinity[2, 2] == pytest.approx(affinity[1, 1])
    assert not affinity[:, 3].any()  # an item without events
    assert not affinity[0].any() and not affinity[3].any()  # unknown, and a value nobody has
