"""Single methods of the field as scorers: the yardsticks, trained, evaluated and exported alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recommender.models.scorer import UserInputs
from recommender.models.signals import Tables

# The one reading of the history (a name of config.HEADS) that each makes do with.
READERS = {"item-knn": "similar", "ease": "ease", "content": "content"}
TIE = 1e-3  # what popularity counts beside a table


class Popularity(nn.Module):
    """The same list for everybody: total counts. `popularity` is [N]."""

    def __init__(self, popularity: Tensor) -> None:
        super().__init__()
        self.register_buffer("popularity", popularity)
        self.popularity: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        return self.popularity.repeat(user.history_BL.shape[0], 1)


class OneTable(nn.Module):
    """One item-to-item table read by the history; popularity breaks ties and serves strangers.
    `decay` is per step back: newer events say more."""

    def __init__(self, tables: Tables, source: str, decay: float) -> None:
        super().__init__()
        self.tables, self.source, self.decay = tables, source, decay

    def forward(self, user: UserInputs) -> Tensor:
        said_BN = self.tables.say(self.source, user.history_BL, self.strength(user))
        return said_BN + self.tables.popularity * TIE

    def strength(self, user: UserInputs) -> Tensor:
        """[B, L, 1]: how much each event counts."""
        batch, length = user.history_BL.shape
        steps_L = torch.arange(length, device=user.history_BL.device) - (length - 1)
        return (steps_L * self.decay).exp().expand(batch, -1)[:, :, None]
