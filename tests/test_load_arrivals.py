"""When requests are due and who asks: the statistics of schedules and of users."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from client.load.arrivals import Arrivals, at_first, instants, offered_rate
from client.load.population import arriving, shares
from recommender.errors import BadInput


def test_constant_arrivals_are_evenly_spaced() -> None:
    times = instants(Arrivals(kind="constant", rate=50, duration_s=10), seed=0)
    assert len(times) == 500
    assert np.diff(times) == pytest.approx(0.02)
    assert (times[0], times[-1]) == pytest.approx((0, 9.98))


def test_poisson_arrivals_have_independent_exponential_gaps() -> None:
    times = instants(Arrivals(kind="poisson", rate=100, duration_s=400), seed=3)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(40_000, abs=5 * 200)  # 5 standard deviations
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # as of no other distribution
    for share in (0.5, 0.9, 0.99):
        assert np.quantile(gaps, share) == pytest.approx(-np.log(1 - share) / 100, rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.03
    counts = np.bincount(times.astype(int), minlength=400)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.35)


def test_a_ramp_rises_from_nothing_to_the_rate() -> None:
    times = instants(Arrivals(kind="ramp", rate=200, duration_s=100), seed=1)
    assert len(times) == pytest.approx(10_000, abs=500)
    tenths = np.histogram(times, bins=10, range=(0, 100))[0]
    assert tenths == pytest.approx(np.arange(100, 2000, 200), rel=0.25, abs=50)


def test_a_flash_crowd_comes_in_the_middle_and_goes() -> None:
    times = instants(Arrivals(kind="flash", rate=100, duration_s=100, peak=8), seed=1)
    fifths = np.histogram(times, bins=5, range=(0, 100))[0]
    assert fifths == pytest.approx([2000, 2000, 16_000, 2000, 2000], rel=0.12)


def test_a_trace_is_replayed_as_it_was_or_faster(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text("1700000003.5\n1700000001\n1700000001.25\n")
    assert instants(Arrivals(kind="trace", trace=path), seed=0).tolist() == [0, 0.25, 2.5]
    cut = Arrivals(kind="trace", trace=path, duration_s=1)
    assert instants(cut, seed=0).tolist() == [0, 0.25]
    fast = instants(Arrivals(kind="trace", trace=path, rate=12), seed=0)
    assert offered_rate(fast) == pytest.approx(12)
    for wrong in ("", "soon\n", "nan\n"):
        path.write_text(wrong)
        with pytest.raises(BadInput, match="trace"):
            instants(Arrivals(kind="trace", trace=path), seed=0)
    with pytest.raises(BadInput, match="No such file"):
        instants(Arrivals(kind="trace", trace=tmp_path / "none"), seed=0)


def test_the_same_seed_gives_the_same_schedule_and_another_one_another() -> None:
    plan = Arrivals(kind="poisson", rate=10, duration_s=10)
    first, second = instants(plan, seed=1), instants(plan, seed=1)
    assert np.array_equal(first, second)
    assert not np.array_equal(first[:20], instants(plan, seed=2)[:20])


def test_a_warm_up_ends_where_the_schedule_begins() -> None:
    before = at_first(Arrivals(kind="constant", rate=10, duration_s=5), 2, seed=0)
    assert before == pytest.approx(np.arange(-2, 0, 0.1))
    flash = Arrivals(kind="flash", rate=100, duration_s=5, peak=10)
    assert len(at_first(flash, 5, seed=0)) == pytest.approx(500, abs=120)  # without the crowd
    assert not len(at_first(flash, 0, seed=0))


def test_arrivals_without_a_rate_are_refused() -> None:
    with pytest.raises(BadInput, match="without a rate"):
        Arrivals(kind="poisson", duration_s=5)


def test_users_come_by_zipfs_law() -> None:
    count, drawn = 50, 200_000
    rows = np.fromiter(islice(arriving(count, 1.0, seed=2), drawn), np.int64)
    counts = np.sort(np.bincount(rows, minlength=count))[::-1]
    expected = drawn / np.arange(1, count + 1) / (1 / np.arange(1, count + 1)).sum()
    assert counts == pytest.approx(expected, rel=0.1)
    assert shares(count, 1.0) * drawn == pytest.approx(expected)


def test_zipfs_first_is_the_same_for_every_process_and_another_by_another_seed() -> None:
    def first(seed: int, stream: int) -> int:
        rows = np.fromiter(islice(arriving(1000, 1.2, seed, stream), 5000), np.int64)
        return int(np.bincount(rows).argmax())

    assert first(0, 0) == first(0, 1) == first(0, 7)
    assert len({first(seed, 0) for seed in range(5)}) > 1
    # ... but they do not ask in the same order
    alike = [list(islice(arriving(1000, 1.2, 0, stream), 20)) for stream in (0, 1)]
    assert alike[0] != alike[1]


def test_without_zipf_each_user_comes_as_often_as_the_others() -> None:
    rows = list(islice(arriving(30, None, seed=0), 90))
    assert [rows.count(row) for row in range(30)] == [3] * 30
    assert rows[:30] != rows[30:60]
