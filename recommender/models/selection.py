"""Scores of the whole catalogue -> the K best answers: exclude, filter, order.

Exact, and the same list on every backend and in every batch: ties are broken by
int64 keys (rounded score, then index), since neither float top-k nor the order
among equals is the same everywhere. Knows nothing of where scores come from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to what must not be shown. Finite, because inf - inf is NaN; turned into -inf at the end.
NEVER = -1e30
SCORE_STEPS = 65536.0  # scores are rounded to 1/65536 and clamped to ±500 ...
SCORE_LIMIT = 500.0
_INDEX_SPAN = 2**21  # ... so that score steps x 2^21 items fit an int64 key
_NO_KEY = -(2**62)


class Selection(nn.Module):
    """[B, N] scores, exclusions and category filters -> `item` [B, K] and `score` [B, K].

    `category_words` is the [N, W] int64 category mask of every item; row 0 is padding.
    """

    def __init__(self, category_words: Tensor, answers: int) -> None:
        super().__init__()
        if len(category_words) > _INDEX_SPAN:
            raise ValueError(f"{len(category_words)} items; the sort key holds {_INDEX_SPAN}")
        self.answers = answers
        self.missing = max(0, answers - len(category_words))  # catalogues smaller than K
        self.register_buffer("category_words", category_words)
        index = torch.arange(len(category_words))
        self.register_buffer("index", index)
        self.register_buffer("bias", torch.where(index == 0, NEVER, 0.0))
        self.category_words: Tensor
        self.index: Tensor
        self.bias: Tensor

    def forward(
        self, scores_BN: Tensor, exclude_BE: Tensor, category_filter_BW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`scores_BN` is written to: pass a tensor nobody else reads."""
        minus_BE = torch.full_like(exclude_BE, NEVER, dtype=scores_BN.dtype)
        scores_BN = (scores_BN + self.bias).scatter_add_(1, exclude_BE, minus_BE)

        rounded_BN = _rounded(scores_BN)
        shown_BN = (scores_BN > NEVER / 2) & self._wanted(category_filter_BW)
        keys_BN = torch.where(
            shown_BN, rounded_BN.to(torch.int64) * _INDEX_SPAN - self.index, _NO_KEY
        )
        if self.missing:
            keys_BN = F.pad(keys_BN, (0, self.missing), value=_NO_KEY)
        keys_BK, item_BK = keys_BN.topk(self.answers, dim=1)

        found_BK = keys_BK > _NO_KEY
        item_BK = torch.where(found_BK, item_BK, 0)
        score_BK = rounded_BN.gather(1, item_BK) / SCORE_STEPS
        return item_BK, torch.where(found_BK, score_BK, -torch.inf)

    def of(self, scores_BN: Tensor, item_BC: Tensor) -> Tensor:
        """[B, C]: the score with which forward() would show each item; -inf for padding, and for
        what no answer shows."""
        score_BC = (scores_BN + self.bias).gather(1, item_BC)
        return torch.where(score_BC > NEVER / 2, _rounded(score_BC) / SCORE_STEPS, -torch.inf)

    def _wanted(self, category_filter_BW: Tensor) -> Tensor:
        """[B, N]: the item has any of the wanted categories, or none is wanted."""
        wanted_BN = (category_filter_BW == 0).all(dim=1, keepdim=True)
        for word in range(self.category_words.shape[1]):  # W is a constant of the release
            both_BN = self.category_words[:, word] & category_filter_BW[:, word : word + 1]
            wanted_BN = wanted_BN | (both_BN != 0)
        return wanted_BN


def _rounded(scores: Tensor) -> Tensor:
    """In steps of 1/SCORE_STEPS."""
    return (scores.clamp(-SCORE_LIMIT, SCORE_LIMIT) * SCORE_STEPS).round()
