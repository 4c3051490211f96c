"""What the neighbours of an item-to-item table leave out: many weak words, in a low-rank form.

    N x N matrix less its M strongest of each row  ~=  left [N, R] @ right [R, N]

On MovieLens each of them is next to nothing, and their sum tells apart what is wanted in the long
run (docs/quality.md): as R numbers an item it costs a small part of the dense product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recommender.contract import Array
from recommender.models.itemtoitem import Neighbours, strongest

_MORE, _PASSES = 16, 3  # directions beyond the rank, and passes: the spectrum is flat


@dataclass(frozen=True, kw_only=True, eq=False)
class Rest:
    """[N, R] and [R, N] float32, row of `left` = the item that speaks."""

    left: Array
    right: Array


def taken_apart(matrix: Array, heard: Array, *, width: int, rank: int) -> tuple[Neighbours, Rest]:
    """The M strongest of each row of `matrix` [N, N] float32, and of all others `low_rank`."""
    table = strongest(lambda rows: matrix[rows].copy(), len(matrix), width)
    others = matrix - table.sparse().toarray()
    return table, low_rank(others, rank, heard)


def low_rank(matrix: Array, rank: int, heard: Array) -> Rest:
    """Of that rank (or N, if less) what is nearest to `matrix`, the same of the same. A row counts
    by how often its item is heard in histories, `heard` [N]: their sums are to be near.

    By randomised singular value decomposition (Halko, Martinsson and Tropp, SIAM Review 2011).
    """
    loud_N = torch.from_numpy(np.sqrt(1.0 + heard).astype(np.float32))[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, size, right = torch.svd_lowrank(
            loud_N * torch.from_numpy(matrix), min(rank + _MORE, len(matrix)), niter=_PASSES
        )
    left, right = (left * size / loud_N)[:, :rank].contiguous(), right[:, :rank].T.contiguous()
    found = Rest(left=left.numpy(), right=right.numpy())
    # Not almost: a reading that says nothing is brought to standard deviations, too.
    found.left[~matrix.any(axis=1)] = 0.0
    found.right[:, ~matrix.any(axis=0)] = 0.0
    return found
