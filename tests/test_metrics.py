"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recommender.metrics import METRICS, coverage, estimate, paired_bootstrap, per_query

ITEMS = np.array([[5, 3, 9, 1], [2, 4, 0, 0]])


def test_one_hit_at_rank_two_of_one_target() -> None:
    values = {name: v[0] for name, v in per_query(ITEMS, [np.array([3]), np.array([7])], 4).items()}
    assert values == pytest.approx(
        {"hr": 1, "ndcg": 1 / math.log2(3), "recall": 1, "precision": 0.25, "f1": 0.4, "mrr": 0.5}
    )


def test_no_hit_is_zero_in_every_metric() -> None:
    values = per_query(ITEMS, [np.array([8]), np.array([7])], 4)
    assert all((values[name] == 0).all() for name in METRICS)


def test_ndcg_is_divided_by_the_ideal_over_min_k_and_targets() -> None:
    values = per_query(ITEMS[:1], [np.array([5, 3, 9, 77, 78])], 2)
    assert values["ndcg"][0] == pytest.approx(1.0)  # two places, both right
    assert values["recall"][0] == pytest.approx(2 / 5)


def test_padding_is_never_a_hit() -> None:
    assert per_query(ITEMS[1:], [np.array([0])], 4)["hr"][0] == 0


def test_coverage_counts_items_shown_to_anybody_once() -> None:
    assert coverage(ITEMS, 2, 10) == pytest.approx(4 / 10)
    assert coverage(np.array([[1, 0], [1, 0]]), 2, 10) == pytest.approx(1 / 10)


def test_interval_holds_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    estimates = [estimate(rng.normal(1.0, 2.0, 200)) for _ in range(500)]
    held = np.mean([abs(e.mean - 1.0) <= e.half for e in estimates])
    assert 0.92 < held < 0.98


def test_paired_bootstrap_sees_a_small_constant_gain_that_single_intervals_hide() -> None:
    base = np.random.default_rng(0).normal(0, 1, 300)
    gain = paired_bootstrap(base + 0.02, base)
    assert gain.mean == pytest.approx(0.02)
    assert gain.half < 0.001
