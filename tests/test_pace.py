"""How many may be under way: learned where somebody waits, kept where nobody does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bento.pace import LEAST, TELLING, Pace

MOST, WITHIN_S = 256, 0.15


def pace() -> Pace:
    return Pace(most=MOST, within_s=WITHIN_S)


def busy(one: Pace, *, rows: int, took_s: float, calls: int, at: float = 100.0) -> float:
    """Calls that end one after the other while others wait; when the last one ended."""
    for _ in range(calls):
        one.answered(rows, at - took_s / 2, at + took_s, waiting=True)  # two are under way
        at += took_s
    return at


@pytest.mark.parametrize(("rate", "limit"), [(1000, 150), (500, 75), (5000, MOST), (20, LEAST)])
def test_as_many_as_end_in_time_may_be_under_way(rate: float, limit: int) -> None:
    one = pace()
    busy(one, rows=32, took_s=32 / rate, calls=50)
    assert one.limit == pytest.approx(limit, abs=1)
    assert one.room(one.limit - 1) and not one.room(one.limit)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(1e-4, 1.0)), min_size=1, max_size=40))
def test_it_never_leaves_its_bounds(calls: list[tuple[int, float]]) -> None:
    one, at = pace(), 5.0
    for rows, took_s in calls:
        at = busy(one, rows=rows, took_s=took_s, calls=1, at=at)
        assert LEAST <= one.limit <= MOST


def test_a_burst_that_is_soon_over_says_nothing() -> None:
    one = pace()
    busy(one, rows=1, took_s=0.01, calls=3)  # 100 a second, but its calls were nearly empty
    assert one.limit == MOST


def test_a_triton_that_is_held_up_for_a_while_turns_nobody_away() -> None:
    one = pace()
    busy(one, rows=6, took_s=0.1, calls=30)  # 60 a second: what came, and not what it can
    assert one.limit == MOST


def test_what_large_calls_have_taught_small_ones_do_not_undo() -> None:
    one = pace()
    at = busy(one, rows=64, took_s=1.28, calls=5)
    learned = one.limit
    assert learned < TELLING
    busy(one, rows=learned // 2, took_s=0.08, calls=100, at=at)
    assert one.limit == learned


def test_a_server_that_has_become_slower_is_noticed_within_a_second_or_two() -> None:
    one = pace()
    at = busy(one, rows=32, took_s=0.032, calls=100)
    busy(one, rows=32, took_s=0.32, calls=7, at=at)
    assert one.limit == pytest.approx(15, abs=5)


def test_what_was_learned_stays_until_it_turns_somebody_away_without_need() -> None:
    one = pace()
    at = busy(one, rows=16, took_s=0.16, calls=20)
    learned = one.limit
    assert learned == pytest.approx(15, abs=1)
    for _ in range(100):  # calm, and nobody is turned away
        at += 1.0
        one.answered(1, at - 0.01, at, waiting=False)
    assert one.limit == learned
    for _ in range(40):
        at += 0.01
        assert not one.room(one.limit)
        one.answered(learned, at - 0.01, at, waiting=False)
    assert one.limit == MOST


def test_where_calls_are_slow_it_turns_away_for_as_long_as_it_must() -> None:
    one = pace()
    at = busy(one, rows=64, took_s=1.28, calls=5)  # 50 a second
    learned = one.limit
    for _ in range(100):
        at += 0.08
        assert not one.room(one.limit)
        one.answered(4, at - 0.16, at, waiting=False)  # all that is let in is under way
    assert one.limit == learned


def test_the_time_in_which_nothing_was_asked_is_not_the_models() -> None:
    one = pace()
    at = busy(one, rows=32, took_s=0.032, calls=50)
    busy(one, rows=32, took_s=0.032, calls=50, at=at + 3600)
    assert one.limit == pytest.approx(150, abs=1)
