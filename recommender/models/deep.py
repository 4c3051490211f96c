"""The deep recommender: one encoder and the signals, mixed by a small combiner.

    score(item) =   w_encoder    x  query · item + bias        (encoder)
                  + w_similar    x  neighbours of the history  (item-to-item)
                  + w_rated      x  the same, weighted by the strength of each event
                  + w_trend      x  trend at request_time
                  + w_popularity x  log of total counts

The weights depend on one bit of context, whether there is a history at all: a
stranger is served by trends, a regular by taste.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.models.encoder import Encoder
from recommender.models.scorer import UserInputs
from recommender.models.signals import ItemToItem, TrendTable

SIGNALS = ("encoder", "similar", "rated", "trend", "popularity")


class Deep(nn.Module):
    """A scorer (see scorer.py). `table` is the encoder's item table, computed once after training;
    row 0 of `weights` holds without a history, row 1 with one."""

    def __init__(
        self, encoder: Encoder, similar: ItemToItem, trend: TrendTable, popularity: Tensor
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.similar = similar
        self.trend = trend
        self.register_buffer("popularity", popularity)
        self.register_buffer("table", encoder.item_table().detach().clone())
        self.weights = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]] * 2))
        self.popularity: Tensor
        self.table: Tensor

    def forward(self, user: UserInputs) -> Tensor:
        context_B = (user.history_BL[:, -1] > 0).to(torch.int64)  # right-aligned: the last tells
        weights_BS = F.embedding(context_B, self.weights)
        encoder_B1, similar_B1, rated_B1, trend_B1, popularity_B1 = weights_BS.hsplit(len(SIGNALS))

        query_BD = self.encoder(user, self.table, last_only=True)
        scores_BN = F.linear(query_BD * encoder_B1, self.table) + encoder_B1 * self.encoder.bias
        scores_BN = scores_BN + trend_B1 * self.trend(user.request_time_B1)
        scores_BN = scores_BN + popularity_B1 * self.popularity
        strength_BL = similar_B1 + rated_B1 * user.weight_BL
        mixed_BN: Tensor = self.similar(scores_BN, user.history_BL, strength_BL)
        return mixed_BN

    @torch.no_grad()
    def each_signal(self, user: UserInputs) -> Tensor:
        """[B, N, S]: every signal by itself, for training the combiner on them."""
        query_BD = self.encoder(user, self.table, last_only=True)
        none_BN = torch.zeros(len(user.history_BL), len(self.table))
        plain_BL = torch.ones_like(user.weight_BL)
        signals = (
            F.linear(query_BD, self.table, self.encoder.bias),
            self.similar(none_BN.clone(), user.history_BL, plain_BL),
            self.similar(none_BN.clone(), user.history_BL, user.weight_BL),
            self.trend(user.request_time_B1),
            self.popularity.expand_as(none_BN),
        )
        return torch.stack(signals, dim=2)
