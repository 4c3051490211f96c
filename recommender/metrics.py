"""Ranking metrics at k, per query, with 95% intervals. Knows arrays of item indexes only.

Definitions (docs/quality.md): rank over all items not yet seen, no sampled negatives;
NDCG@k is divided by the ideal over min(k, number of targets).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recommender.contract import Array

METRICS = ("hr", "ndcg", "recall", "precision", "f1", "mrr")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over queries and half its 95% interval (1.96 standard errors)."""

    mean: float
    half: float


def per_query(items: Array, targets: Sequence[Array], k: int) -> dict[str, Array]:
    """Each metric of METRICS for each query: [Q] float64.

    `items` is [Q, >= k] int64, best first, 0 where fewer; `targets` holds Q arrays of
    distinct indexes, none of them empty.
    """
    found = np.zeros((len(targets), k))
    for row, wanted in enumerate(targets):
        found[row] = np.isin(items[row, :k], wanted) & (items[row, :k] > 0)
    size = np.fromiter((len(t) for t in targets), np.int64, len(targets))
    hits = found.sum(axis=1)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)[np.minimum(size, k) - 1]
    recall, precision = hits / size, hits / k
    total = recall + precision
    first = np.where(hits > 0, found.argmax(axis=1) + 1, 1)
    return {
        "hr": (hits > 0).astype(float),
        "ndcg": found @ discount / ideal,
        "recall": recall,
        "precision": precision,
        "f1": np.divide(2 * recall * precision, total, out=np.zeros(len(size)), where=total > 0),
        "mrr": (hits > 0) / first,
    }


def estimate(values: Array) -> Estimate:
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return Estimate(mean=float(values.mean()), half=half)


def with_half(figure: Mapping[str, float]) -> str:
    """An Estimate's JSON in words: its mean, and half its interval where it has one."""
    half = f" ± {figure['half']:.4f}" if "half" in figure else ""
    return f"{figure['mean']:.4f}{half}"


def coverage(items: Array, k: int, catalogue_size: int) -> float:
    """Share of the catalogue that stands in anybody's first k."""
    return np.count_nonzero(np.unique(items[:, :k])) / catalogue_size


def resampled(a: Array, b: Array, *, samples: int = 2000, seed: int = 0) -> Array:
    """[samples] means of a - b, each over as many queries, drawn anew with replacement."""
    difference = a - b
    rng = np.random.default_rng(seed)
    n = len(difference)
    return np.array([difference[rng.integers(0, n, n)].mean() for _ in range(samples)])


def paired_bootstrap(a: Array, b: Array, *, samples: int = 2000, seed: int = 0) -> Estimate:
    """Mean of a - b over the same queries, with half its 95% interval over resampled queries."""
    low, high = np.quantile(resampled(a, b, samples=samples, seed=seed), [0.025, 0.975])
    return Estimate(mean=float((a - b).mean()), half=float(high - low) / 2)
