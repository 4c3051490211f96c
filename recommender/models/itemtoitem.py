"""Item-to-item tables, counted from histories: what each item says about every other.

    ease         ridge regression of every item on the others (EASE, arXiv 1905.03375)
    ease_recent  the same, newer events weighing more
    basket       items of the same baskets       \\
    following    what comes soon after            }  shrunk cosine of counts
    similar      items of the same histories     /

Each becomes a table of the M strongest items per item. Nothing here holds N x N but EASE,
which is fitted on the most popular items only (`SignalConfig.ease_items`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from recommender.config import SignalConfig
from recommender.contract import Array
from recommender.data.baskets import basket_of
from recommender.users import Users

_CELLS = 16_000_000  # of a dense block of rows: 64 MB
_STEPS = 10  # how far `following` looks ahead


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The M items that each item says most about, strongest first; 0 where there are fewer."""

    item: Array  # [N, M] int64
    weight: Array  # [N, M] float32

    def sparse(self) -> sp.csr_array:
        """[N, N], row = the item that speaks."""
        items, width = self.item.shape
        row = np.repeat(np.arange(items), width)
        found = self.weight.ravel() != 0
        cells = (self.weight.ravel()[found], (row[found], self.item.ravel()[found]))
        return sp.csr_array(cells, shape=(items, items))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Events:
    """Positive events of all users, in order."""

    user: Array
    basket: Array  # numbered over all users
    item: Array
    time: Array


def _events(users: Users, gap: int) -> _Events:
    user = np.repeat(np.arange(len(users)), users.lengths)
    basket = basket_of(users, gap)
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(basket, prepend=-1) != 0)
    kept = users.targets
    return _Events(
        user=user[kept], basket=np.cumsum(begins)[kept], item=users.items[kept],
        time=users.times[kept],
    )  # fmt: skip


def fit_similar(users: Users, items: int, config: SignalConfig) -> Neighbours:
    """similarity(i, j) = n_ij / (sqrt(n_i n_j) + shrink), of users with both (item-kNN as in
    Deshpande & Karypis, TOIS 2004). `items` counts padding."""
    events = _events(users, 0)
    return _together(events.user, events.item, items, config)


def fit_basket(users: Users, items: int, config: SignalConfig, gap: int) -> Neighbours:
    """The same of baskets. Nothing where no basket holds two items."""
    events = _events(users, gap)
    return _together(events.basket, events.item, items, config)


def _together(group: Array, item: Array, items: int, config: SignalConfig) -> Neighbours:
    ones = np.ones(len(item), np.float32)
    shape = (int(group.max(initial=0)) + 1, items)
    seen = sp.csr_array((ones, (group, item)), shape=shape)
    seen.sum_duplicates()
    seen.data[:] = 1.0
    count = np.asarray(seen.sum(axis=0)).ravel()
    by_item = seen.T.tocsr()

    def block(rows: slice) -> Array:
        both = (by_item[rows] @ seen).toarray()
        return _cosine(both, count[rows], count, config.shrink)

    return strongest(block, items, config.neighbours)


def fit_following(users: Users, items: int, config: SignalConfig, gap: int) -> Neighbours:
    """How often j comes within a few steps after i, in a later basket; nearer counts more."""
    events = _events(users, gap)
    counts = sp.csr_array((items, items), dtype=np.float32)
    for step in range(1, _STEPS + 1):
        before, after = slice(None, -step), slice(step, None)
        pair = (events.user[before] == events.user[after]) & (
            events.basket[before] != events.basket[after]
        )
        share = np.full(int(pair.sum()), 1.0 / step, np.float32)
        cells = (share, (events.item[before][pair], events.item[after][pair]))
        counts = counts + sp.csr_array(cells, shape=(items, items))
    leaving, coming = (np.asarray(counts.sum(axis=axis)).ravel() for axis in (1, 0))

    def block(rows: slice) -> Array:
        return _cosine(counts[rows].toarray(), leaving[rows], coming, config.shrink)

    return strongest(block, items, config.neighbours)


def _cosine(both: Array, left: Array, right: Array, shrink: float) -> Array:
    norm = np.sqrt(left[:, None] * right[None, :]).astype(np.float32) + np.float32(shrink)
    found: Array = both / norm
    return found


def fit_ease(users: Users, items: int, config: SignalConfig, *, recent: bool) -> Neighbours:
    """B = I - P diag(1 / diag P), P = (X'X + ridge I)^-1, of the most popular items.

    With `recent`, an event weighs half as much for every `recent_share` of the events
    that came after it, in time: the half-life fits the data's own pace.
    """
    events = _events(users, 0)
    count = np.bincount(events.item, minlength=items)
    chosen = np.sort(np.argsort(-count, kind="stable")[: config.ease_items])
    chosen = chosen[count[chosen] > 0]
    place = np.full(items, -1)
    place[chosen] = np.arange(len(chosen))

    kept = place[events.item] >= 0
    strength = _recency(events.time, config.recent_share) if recent else np.ones(len(kept))
    cells = (strength[kept].astype(np.float32), (events.user[kept], place[events.item[kept]]))
    seen = sp.coo_array(cells, shape=(len(users), len(chosen))).tocsr()
    seen.data = np.minimum(seen.data, 1.0)  # what was done twice counts once
    gram = (seen.T @ seen).toarray()
    gram[np.diag_indices(len(chosen))] += config.ridge * float(count[chosen].mean())
    weight = _ease(gram)

    def block(rows: slice) -> Array:
        full = np.zeros((rows.stop - rows.start, items), np.float32)
        here = place[rows] >= 0
        inside = np.zeros((int(here.sum()), items), np.float32)
        inside[:, chosen] = weight[place[rows][here]]
        full[here] = inside
        return full

    return strongest(block, items, config.neighbours)


def _recency(time: Array, share: float) -> Array:
    """The square root of a halving in time, since the Gram matrix multiplies two of them."""
    end = time.max()
    half_life = max(1.0, float(end - np.quantile(time, 1.0 - share)))
    decayed: Array = np.exp2(-(end - time) / half_life / 2.0)
    return decayed


def _ease(gram: Array) -> Array:
    """In place: LAPACK's Cholesky inverse, half the work of a general one."""
    factor, failed = lapack.spotrf(gram.astype(np.float32), lower=0, overwrite_a=1)
    inverse, wrong = lapack.spotri(factor, lower=0, overwrite_c=1)
    assert not failed and not wrong, "X'X + ridge I is positive definite"
    inverse = np.triu(inverse)
    inverse += np.triu(inverse, 1).T
    weight: Array = -inverse / np.diag(inverse)[None, :]
    return weight


def strongest(block, items: int, width: int) -> Neighbours:  # type: ignore[no-untyped-def]
    """The table of a matrix given by blocks of rows; ties by index, the diagonal left out."""
    width = min(width, max(1, items - 1))
    found = Neighbours(
        item=np.zeros((items, width), np.int64), weight=np.zeros((items, width), np.float32)
    )
    step = max(1, _CELLS // items)
    for start in range(0, items, step):
        rows = slice(start, min(items, start + step))
        values = np.asarray(block(rows), np.float32)
        own = np.arange(rows.start, rows.stop)
        values[own - start, own] = 0.0
        values[:, 0] = 0.0
        if rows.start == 0:
            values[0] = 0.0
        size = np.abs(values)
        if width < items:
            best = np.argpartition(-size, width - 1, axis=1)[:, :width]
        else:
            best = np.broadcast_to(np.arange(items), size.shape)
        best = np.sort(best, axis=1)
        order = np.argsort(-np.take_along_axis(size, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        weight = np.take_along_axis(values, best, 1)
        found.weight[rows] = weight
        found.item[rows] = np.where(weight != 0, best, 0)
    return found
