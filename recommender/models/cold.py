"""An item that nobody has touched gets its place from its content: what the touched items most
like it say, and what is said of them, is said of it too.

    content ─> likeness ─┬─> place_in_table      who speaks, and who is spoken of
                         └─> place_in_vectors    the encoder's items

Works on fitted tables, of a training or of a finished run that is given new items. docs/quality.md
has the figures that LIKE, SHARP and LOUD were chosen by.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recommender.contract import Array
from recommender.models.itemtoitem import Neighbours

LIKE = 50  # touched items that an untouched one takes after, at most
SHARP = 4  # power of the cosine: the nearest count most
# An average of many is quieter than each: what is said of an untouched item would never come
# first. Raised by this power of the number that it averages; 0.5 would make it as loud as they.
LOUD = 0.25
_CELLS = 16_000_000  # of what is held at once


def likeness(content: sp.csr_array, touched: Array) -> sp.csr_array:
    """[N, N]: row of each untouched item (`touched` is [N] bool), its weights over touched items
    summing to 1, or to 0 where its content says nothing. Rows of touched items are empty."""
    items = len(touched)
    cold, warm = (np.flatnonzero(known[1:]) + 1 for known in (~touched, touched))
    if not len(cold) or not len(warm) or not content.nnz:
        return sp.csr_array((items, items), dtype=np.float32)
    of_warm, most = content[warm].T.tocsr(), min(LIKE, len(warm))
    rows, columns, shares = [], [], []
    step = max(1, _CELLS // len(warm))
    for start in range(0, len(cold), step):
        asked = cold[start : start + step]
        cosine = np.round((content[asked] @ of_warm).toarray(), 6)
        near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
        weight = np.take_along_axis(cosine, near, axis=1).clip(0) ** SHARP
        total = weight.sum(axis=1, keepdims=True)
        share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
        row, place = np.nonzero(share)
        rows.append(asked[row])
        columns.append(warm[near[row, place]])
        shares.append(share[row, place].astype(np.float32))
    cells = (np.concatenate(shares), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(cells, shape=(items, items))


def place_in_table(table: Neighbours, like: sp.csr_array) -> Neighbours:
    """The table with untouched items in it, as speakers and as spoken of: each row keeps the
    strongest of what it says of old and new."""
    if not like.nnz:
        return table
    said = table.sparse()
    said = sp.csr_array(said + like @ said)
    of_like = _spoken_of(like)
    items, width = table.item.shape
    found = Neighbours(
        item=np.zeros((items, width), np.int64), weight=np.zeros((items, width), np.float32)
    )
    step = max(1, _CELLS // items)
    for start in range(0, items, step):
        part = said[start : start + step]
        _keep_strongest(sp.csr_array(part + part @ of_like), start, found)
    return found


def place_in_matrix(matrix: Array, like: sp.csr_array) -> Array:
    """The same of a dense matrix [N, N], of which nothing is left out."""
    if not like.nnz:
        return matrix
    said = matrix + like @ matrix
    placed: Array = (said + said @ _spoken_of(like)).astype(np.float32)
    np.fill_diagonal(placed, 0.0)
    return placed


def _spoken_of(like: sp.csr_array) -> sp.csr_array:
    """[N, N]: how much of what is said of touched items is said of those that take after them."""
    averaged = sp.csr_array(like.multiply(like)).sum(axis=1)  # 1 / number of items, if all equal
    loud = np.divide(1.0, averaged**LOUD, out=np.zeros(len(averaged)), where=averaged > 0)
    return sp.csr_array((sp.diags_array(loud.astype(np.float32)) @ like).T)


def place_in_vectors(vectors: Array, like: sp.csr_array) -> Array:
    """[N, d] or [N] with the untouched items' rows averaged from those they take after."""
    placed: Array = vectors.copy()
    rows = np.flatnonzero(np.diff(like.indptr))
    placed[rows] = (like[rows] @ vectors).astype(vectors.dtype)
    return placed


def _keep_strongest(matrix: sp.csr_array, start: int, found: Neighbours) -> None:
    """Row r of `matrix` [rows, N] into row `start` + r of `found`; ties by index, the diagonal
    left out."""
    width = found.item.shape[1]
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        other, weight = matrix.indices[part], matrix.data[part]
        kept = (other != start + row) & (weight != 0)
        other, weight = other[kept], weight[kept]
        best = np.lexsort((other, -np.abs(weight)))[:width]
        found.item[start + row, : len(best)] = other[best]
        found.weight[start + row, : len(best)] = weight[best]
