"""Popularity and item-kNN as scorers: the yardsticks, trained, evaluated and exported alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recommender.models.scorer import UserInputs
from recommender.models.signals import ItemToItem


class Popularity(nn.Module):
    """The same list for everybody: total counts. `popularity` is [N]."""

    def __init__(self, popularity: Tensor) -> None:
        super().__init__()
        self.register_buffer("popularity", popularity)
        self.popularity: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        return self.popularity.repeat(user.history_BL.shape[0], 1)


class ItemKNN(nn.Module):
    """Neighbours of the history, newer events more; popularity breaks ties and serves strangers."""

    def __init__(self, similar: ItemToItem, popularity: Tensor) -> None:
        super().__init__()
        self.similar = similar
        self.register_buffer("popularity", popularity * 1e-3)
        self.popularity: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        scores_BN = self.popularity.repeat(user.history_BL.shape[0], 1)
        plain_BL = torch.ones_like(user.weight_BL)
        mixed_BN: Tensor = self.similar(scores_BN, user.history_BL, plain_BL)
        return mixed_BN
