"""Signals beside the encoder: item-to-item neighbours, trend, popularity.

`fit_*` count them from histories (numpy and scipy); the modules add them to scores
inside the graph. Memory: neighbours are [N, M], the trend [bins, N]; no dense
item-item matrix is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import SignalConfig
from recommender.contract import Array
from recommender.users import Users

_TREND_CELLS = 64_000_000  # bins x items: 256 MB of float32
_ROWS = 1024  # items whose neighbours are searched at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    item: Array  # [N, M] int64, most similar first, 0 where fewer
    similarity: Array  # [N, M] float32, 0 where fewer


def fit_neighbours(users: Users, items: int, config: SignalConfig) -> Neighbours:
    """The M items most often in the same histories, by shrunk cosine.

    similarity(i, j) = n_ij / (sqrt(n_i n_j) + shrink), of users with both (item-kNN as in
    Deshpande & Karypis, TOIS 2004). `items` counts padding.
    """
    rows = np.repeat(np.arange(len(users)), users.lengths)
    seen = sp.csr_array(
        (np.ones(len(rows), np.float32), (rows, users.items)), shape=(len(users), items)
    )
    seen.sum_duplicates()
    seen.data[:] = 1.0
    count = np.asarray(seen.sum(axis=0)).ravel()
    by_item = seen.T.tocsr()

    width = min(config.neighbours, max(1, items - 1))
    found = Neighbours(
        item=np.zeros((items, width), np.int64), similarity=np.zeros((items, width), np.float32)
    )
    for start in range(0, items, _ROWS):
        block = (by_item[start : start + _ROWS] @ seen).tocsr()
        for row in range(block.shape[0]):
            part = slice(block.indptr[row], block.indptr[row + 1])
            other, both, item = block.indices[part], block.data[part], start + row
            similarity = both / (np.sqrt(count[item] * count[other]) + config.shrink)
            similarity[other == item] = 0.0
            best = np.lexsort((other, -similarity))[:width]  # ties by index: the same every time
            best = best[similarity[best] > 0]
            found.item[item, : len(best)] = other[best]
            found.similarity[item, : len(best)] = similarity[best]
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Trend:
    score: Array  # [bins, N] float32: log of decayed counts up to each bin's start, centred
    start: int  # unix seconds of bin 0
    step: int  # seconds per bin


def fit_trend(users: Users, items: int, config: SignalConfig) -> Trend:
    """Popularity as it stood at each of `trend_bins` moments, halving every half-life.

    A request reads the last moment not after it, so an offline query never sees what came later.
    """
    start, end = int(users.times.min()), int(users.times.max()) + 1
    bins = max(1, min(config.trend_bins, _TREND_CELLS // items))
    step = max(1, -(-(end - start) // bins))
    half_life = config.half_life_days * 86400.0

    # Row b holds events of bins before b; the last row (a request after all data) holds them all.
    bins = (end - start) // step + 2
    event_bin = (users.times - start) // step + 1
    age = (start + event_bin * step - users.times) / half_life
    counts = np.zeros((bins, items), np.float32)
    np.add.at(counts, (event_bin, users.items), np.exp2(-age).astype(np.float32))
    fade = np.float32(2.0 ** (-step / half_life))
    for b in range(1, bins):
        counts[b] += counts[b - 1] * fade
    score = np.log(counts + np.float32(0.5))
    score -= score[:, 1:].mean(axis=1, keepdims=True)
    return Trend(score=score.astype(np.float32), start=start, step=step)


def fit_popularity(users: Users, items: int) -> Array:
    """[N] float32: log of total counts, centred."""
    score: Array = np.log(np.bincount(users.items, minlength=items) + 0.5)
    centred: Array = (score - score[1:].mean()).astype(np.float32)
    return centred


class ItemToItem(nn.Module):
    """Adds the neighbours of every event of the history, newer events more, to the scores."""

    def __init__(self, neighbours: Neighbours, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("item", torch.from_numpy(neighbours.item))
        self.register_buffer("similarity", torch.from_numpy(neighbours.similarity))
        self.item: Tensor
        self.similarity: Tensor

    def forward(self, scores_BN: Tensor, history_BL: Tensor, strength_BL: Tensor) -> Tensor:
        """In place (scatter_add_): a copy of [B, N] would cost more than the sum."""
        length = history_BL.shape[1]
        steps_L = torch.arange(length, device=history_BL.device) - (length - 1)
        strength_BL = strength_BL * (steps_L * self.decay).exp()
        item_BJ = F.embedding(history_BL, self.item).flatten(1)
        similarity_BLM = F.embedding(history_BL, self.similarity)
        added_BJ = (similarity_BLM * strength_BL[:, :, None]).flatten(1)
        return scores_BN.scatter_add_(1, item_BJ, added_BJ)


class TrendTable(nn.Module):
    """[B, N] trend at the request's time."""

    def __init__(self, trend: Trend) -> None:
        super().__init__()
        # Buffers, so that a state_dict carries them.
        self.register_buffer("start", torch.tensor(trend.start))
        self.register_buffer("step", torch.tensor(trend.step))
        self.register_buffer("score", torch.from_numpy(trend.score))
        self.start: Tensor
        self.step: Tensor
        self.score: Tensor

    def forward(self, request_time_B1: Tensor) -> Tensor:
        bins_B = torch.div(request_time_B1[:, 0] - self.start, self.step, rounding_mode="floor")
        return F.embedding(bins_B.clamp(0, self.score.shape[0] - 1), self.score)
