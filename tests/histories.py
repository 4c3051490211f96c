"""Users with histories written out by hand, for tests of splits and what is made of them."""

from __future__ import annotations

import numpy as np

from recommender.users import Users


def users(*histories: list[tuple[int, int]]) -> Users:
    """Histories of (item, time)."""
    flat = np.array([event for history in histories for event in history], np.int64)
    return Users(
        user_ids=tuple(f"u{i}" for i in range(len(histories))),
        features=np.zeros((len(histories), 1), np.int64),
        offsets=np.cumsum([0, *map(len, histories)]).astype(np.int64),
        items=flat[:, 0],
        times=flat[:, 1],
        weights=np.ones(len(flat), np.float32),
    )
