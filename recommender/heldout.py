"""NDCG@10 of each user's held-out question, beside a run's weights and in its releases.

    held_out.parquet     user_id, ndcg@10; absent where nothing was held out

What two releases of the same data were asked is the same, so they can be compared in
pairs (a promotion does: `gate`). Files and figures only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from recommender.metrics import Estimate, estimate, paired_bootstrap

FILE = "held_out.parquet"
Values = Mapping[str, float]  # user id -> NDCG@10


def write(values: Values, folder: Path) -> None:
    if values:
        frame = pl.DataFrame({"user_id": list(values), "ndcg@10": list(values.values())})
        frame.write_parquet(folder / FILE)


def read(folder: Path) -> Values:
    if not (folder / FILE).is_file():
        return {}
    frame = pl.read_parquet(folder / FILE)
    return dict(zip(frame["user_id"], frame["ndcg@10"], strict=True))


def difference(new: Values, old: Values, *, same_questions: bool) -> Estimate | None:
    """Mean NDCG@10 of `new` less `old`, with half its 95% interval; None where either is unknown.

    Of the same questions it is paired by user (bootstrap); of others both are independent means,
    whose interval is the wider for it.
    """
    both = [user for user in new if user in old]
    if same_questions and both:
        one, other = (np.array([values[user] for user in both]) for values in (new, old))
        return paired_bootstrap(one, other)
    if not new or not old:
        return None
    a, b = (estimate(np.array(list(values.values()))) for values in (new, old))
    return Estimate(mean=a.mean - b.mean, half=(a.half**2 + b.half**2) ** 0.5)
