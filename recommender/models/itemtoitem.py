"""Item-to-item tables, counted from histories: what each item says about every other.

    ease         ridge regression of every item on the others (EASE, arXiv 1905.03375)
    ease_recent  the same, newer events weighing more
    basket       items of the same baskets       \\
    following    what comes soon after            }  shrunk cosine of counts
    similar      items of the same histories     /

How much an event counts in each, `strengths` says. Each is a matrix [N, N], row = the item that
speaks, of which a block of rows is held at a time, and becomes a table of the M strongest items per
item: `strongest`, or rest.py. EASE holds a dense one, of the most popular items only
(`SignalConfig.ease_items`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
Block = Callable[[slice], Array]  # rows [from:to] of a matrix [N, N], to be changed


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
    strength: Array  # float32, see `strengths`


def _events(users: Users, gap: int) -> _Events:
    user = np.repeat(np.arange(len(users)), users.lengths)
    basket = basket_of(users, gap)
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(basket, prepend=-1) != 0)
    kept = users.targets
    return _Events(
        user=user[kept], basket=np.cumsum(begins)[kept], item=users.items[kept],
        time=users.times[kept], strength=strengths(users.weights[kept]),
    )  # fmt: skip


def strengths(weight: Array) -> Array:
    """[n] float32: how much events of these weights count in a table. An act of weight 4 counts as
    four of weight 1: the root, since a count is a product of two events. In the mean of the squares
    they are 1, so shrinkage and ridge mean what they do where all acts are alike.

    Ones there, and where a weight is not above 0: among acts that count only ratings have such,
    being less their mean, and say how an act was liked, not how much of an act it was.
    """
    if not len(weight) or weight.min() <= 0 or weight.min() == weight.max():
        return np.ones(len(weight), np.float32)
    found: Array = np.sqrt(weight / weight.mean(dtype=np.float64)).astype(np.float32)
    return found


def _seen(events: _Events, group: Array, items: int, share: Array) -> sp.csr_array:
    """[groups, items]: `share` of each event, as strong as it is. What a group did several times
    with an item counts once, as the strongest of it."""
    shape = (int(group.max(initial=0)) + 1, items)
    value = (share * events.strength).astype(np.float32)
    seen = sp.coo_array((value, (group, events.item)), shape=shape).tocsr()
    seen.sum_duplicates()
    most = np.ones(len(seen.data), np.float32)
    if not (events.strength == 1.0).all():
        pair = np.unique(group * items + events.item, return_inverse=True)[1]  # as seen.data lies
        most[:] = 0.0
        np.maximum.at(most, pair, events.strength)
    seen.data = np.minimum(seen.data, most)
    return seen


def fit_similar(users: Users, items: int, config: SignalConfig) -> Block:
    """similarity(i, j) = n_ij / (sqrt(n_i n_j) + shrink), of users with both (item-kNN as in
    Deshpande & Karypis, TOIS 2004). `items` counts padding."""
    events = _events(users, 0)
    return _together(events.user, events, items, config)


def fit_basket(users: Users, items: int, config: SignalConfig, gap: int) -> Block:
    """The same of baskets. Nothing where no basket holds two items."""
    events = _events(users, gap)
    return _together(events.basket, events, items, config)


def _together(group: Array, events: _Events, items: int, config: SignalConfig) -> Block:
    seen = _seen(events, group, items, np.ones(len(group)))
    count = np.asarray(seen.power(2).sum(axis=0)).ravel()
    by_item = seen.T.tocsr()

    def block(rows: slice) -> Array:
        both = (by_item[rows] @ seen).toarray()
        return _cosine(both, count[rows], count, config.shrink)

    return block


def fit_following(users: Users, items: int, config: SignalConfig, gap: int) -> Block:
    """How often j comes within a few steps after i, in a later basket; nearer counts more."""
    events = _events(users, gap)
    counts = sp.csr_array((items, items), dtype=np.float32)
    for step in range(1, _STEPS + 1):
        before, after = slice(None, -step), slice(step, None)
        pair = (events.user[before] == events.user[after]) & (
            events.basket[before] != events.basket[after]
        )
        both = events.strength[before][pair] * events.strength[after][pair]
        share = (both / step).astype(np.float32)
        cells = (share, (events.item[before][pair], events.item[after][pair]))
        counts = counts + sp.csr_array(cells, shape=(items, items))
    leaving, coming = (np.asarray(counts.sum(axis=axis)).ravel() for axis in (1, 0))

    def block(rows: slice) -> Array:
        return _cosine(counts[rows].toarray(), leaving[rows], coming, config.shrink)

    return block


def _cosine(both: Array, left: Array, right: Array, shrink: float) -> Array:
    norm = np.sqrt(left[:, None] * right[None, :]).astype(np.float32) + np.float32(shrink)
    found: Array = np.divide(both, norm, out=np.zeros_like(norm), where=norm > 0)
    return found


def fit_ease(users: Users, items: int, config: SignalConfig, *, recent: bool) -> Block:
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

    share = _recency(events.time, config.recent_share) if recent else np.ones(len(events.time))
    seen = _seen(events, events.user, items, share)[:, chosen]
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

    return block


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


def strongest(block: Block, items: int, width: int) -> Neighbours:
    """The table of a matrix; ties by index, the diagonal left out."""
    width = min(width, max(1, items - 1))
    found = Neighbours(
        item=np.zeros((items, width), np.int64), weight=np.zeros((items, width), np.float32)
    )
    for rows, values in without_itself(block, items):
        best = _strongest(values, width)
        weight = np.take_along_axis(values, best, axis=1)
        found.weight[rows] = weight
        found.item[rows] = np.where(weight != 0, best, 0)
    return found


def without_itself(block: Block, items: int) -> Iterator[tuple[slice, Array]]:
    """The rows of a matrix, some at a time; what an item says of itself, and padding, is 0."""
    step = max(1, _CELLS // items)
    for start in range(0, items, step):
        rows = slice(start, min(items, start + step))
        values = np.asarray(block(rows), np.float32)
        own = np.arange(rows.start, rows.stop)
        values[own - start, own] = 0.0
        values[:, 0] = 0.0
        if rows.start == 0:
            values[0] = 0.0
        yield rows, values


def _strongest(values: Array, width: int) -> Array:
    """[rows, M]: where each row of [rows, N] is furthest from 0, the furthest first."""
    size = np.abs(values)
    if width < size.shape[1]:
        best = np.argpartition(-size, width - 1, axis=1)[:, :width]
    else:
        best = np.broadcast_to(np.arange(size.shape[1]), size.shape)
    best = np.sort(best, axis=1)
    order = np.argsort(-np.take_along_axis(size, best, 1), axis=1, kind="stable")
    return np.take_along_axis(best, order, 1)
