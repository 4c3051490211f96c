"""Popularity and item-kNN as scorers: the yardsticks, trained, evaluated and exported alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recommender.models.signals import ItemToItem


class Popularity(nn.Module):
    """The same list for everybody: total counts. `popularity` is [N]."""

    def __init__(self, popularity: Tensor) -> None:
        super().__init__()
        self.register_buffer("popularity", popularity)
        self.popularity: Tensor

    def forward(
        self,
        history_BL: Tensor,
        history_time_BL: Tensor,
        history_weight_BL: Tensor,
        request_time_B1: Tensor,
        user_features_BU: Tensor,
    ) -> Tensor:
        return self.popularity.repeat(history_BL.shape[0], 1)


class ItemKNN(nn.Module):
    """Neighbours of the history, newer events more; popularity breaks ties and serves strangers."""

    def __init__(self, similar: ItemToItem, popularity: Tensor) -> None:
        super().__init__()
        self.similar = similar
        self.register_buffer("popularity", popularity * 1e-3)
        self.popularity: Tensor

    def forward(
        self,
        history_BL: Tensor,
        history_time_BL: Tensor,
        history_weight_BL: Tensor,
        request_time_B1: Tensor,
        user_features_BU: Tensor,
    ) -> Tensor:
        scores_BN = self.popularity.repeat(history_BL.shape[0], 1)
        mixed_BN: Tensor = self.similar(scores_BN, history_BL, torch.ones_like(history_weight_BL))
        return mixed_BN
