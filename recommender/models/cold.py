"""An item that nobody has touched gets its place from its content: what the touched items most
like it say, and what is said of them, is said of it too.

Works on fitted tables, at training and when items are added to a finished run.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recommender.contract import Array
from recommender.data.content import similar_by_content
from recommender.models.itemtoitem import Neighbours

LIKE = 20  # touched items that an untouched one takes after


def likeness(content: sp.csr_array, touched: Array) -> sp.csr_array:
    """[N, N]: row of each untouched item (`touched` is [N] bool), its weights over touched items
    summing to 1, or to 0 where its content says nothing. Rows of touched items are empty."""
    items = len(touched)
    cold = np.flatnonzero(~touched)
    cold = cold[cold > 0]
    if not len(cold) or not content.nnz:
        return sp.csr_array((items, items), dtype=np.float32)
    mask = sp.diags_array(touched.astype(np.float32)).tocsr()
    near = sp.csr_array(mask @ content)
    stacked = sp.csr_array(sp.vstack([near, content[cold]]))
    item, weight = similar_by_content(stacked, rows=np.arange(items, items + len(cold)), most=LIKE)
    weight = np.where(item < items, weight, 0.0)  # other cold items say nothing
    total = weight.sum(axis=1, keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    kept = share > 0
    row = np.repeat(cold, kept.sum(axis=1))
    return sp.csr_array((share[kept], (row, item[kept])), shape=(items, items))


def place_in_table(table: Neighbours, like: sp.csr_array) -> Neighbours:
    """The table with untouched items in it, as speakers and as spoken of."""
    if not like.nnz:
        return table
    said = table.sparse()
    speaks = sp.csr_array(like @ said)
    spoken = sp.csr_array((said + speaks) @ like.T)
    whole = sp.csr_array(said + speaks + spoken)
    return _strongest(whole, table.item.shape[1])


def place_in_vectors(vectors: Array, like: sp.csr_array) -> Array:
    """[N, d] with the untouched items' rows averaged from those they take after."""
    placed: Array = vectors.copy()
    rows = np.flatnonzero(np.diff(like.indptr))
    placed[rows] = (like[rows] @ vectors).astype(vectors.dtype)
    return placed


def _strongest(matrix: sp.csr_array, width: int) -> Neighbours:
    items = matrix.shape[0]
    found = Neighbours(
        item=np.zeros((items, width), np.int64), weight=np.zeros((items, width), np.float32)
    )
    for row in range(1, items):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        other, weight = matrix.indices[part], matrix.data[part]
        other, weight = other[other != row], weight[other != row]
        best = np.lexsort((other, -np.abs(weight)))[:width]
        found.item[row, : len(best)], found.weight[row, : len(best)] = other[best], weight[best]
    return found
