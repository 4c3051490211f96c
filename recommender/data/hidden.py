"""Hide all that happened to a tenth of the items: then they are new, and who wants them is known.

    users ─> cold_items ─> Split: training rows of the other items, a query for each user who
                           touched hidden ones

Knows histories only. Whoever ranks for these queries ranks `hidden_items` alone.
"""

from __future__ import annotations

import numpy as np

from recommender.contract import Array
from recommender.data.split import Query, Split
from recommender.errors import DataError
from recommender.users import Users

SHARE = 0.1  # of the items that were ever touched


def cold_items(users: Users, *, repurchase: bool = False, seed: int = 0) -> Split:
    """Per user, by time then row order: what came before the first hidden item is the history,
    the hidden items are the targets. Users whose first event is hidden are not asked.

    The request comes at the time of the history's last event. There is no validation part:
    nothing may be chosen by these queries. `seed` draws the items.
    """
    touched = np.unique(users.items)
    count = round(SHARE * len(touched))
    if not count:
        raise DataError(
            f"only {len(touched)} items have events: a tenth of them is none",
            remedy="Bring interactions with 5 items or more.",
        )
    drawn = np.random.default_rng(seed).choice(touched, count, replace=False)
    hidden = np.isin(users.items, drawn)
    known = users.kept(~hidden)
    return Split(train=known, valid=(), train_valid=known, test=_queries(users, hidden, repurchase))


def hidden_items(users: Users, split: Split) -> Array:
    """[n] int64, ascending: the items of `users` that `split` hides from training."""
    return np.setdiff1d(users.items, split.train_valid.items)


def _queries(users: Users, hidden: Array, repurchase: bool) -> tuple[Query, ...]:
    queries, wanted = [], hidden & users.targets
    for row in range(len(users)):
        part = slice(int(users.offsets[row]), int(users.offsets[row + 1]))
        if not wanted[part].any() or hidden[part.start]:
            continue
        history = users.history(row)[: int(np.argmax(hidden[part]))]
        queries.append(
            Query(
                user=row,
                history=history,
                request_time=int(history.times[-1]),
                targets=np.unique(users.items[part][wanted[part]]),
                repurchase=repurchase,
            )
        )
    return tuple(queries)
