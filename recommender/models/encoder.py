"""A causal transformer over the history: events in, a query vector per position out.

Attention knows how far apart two events stand, in steps and in seconds (relative
biases as in T5, arXiv 1910.10683, and HSTU, arXiv 2402.17152), instead of absolute
positions; items carry their categories, users their features. Input and output
share one item table (Press & Wolf, arXiv 1608.05859).

The answer must depend neither on how far a history is padded nor on its batch
neighbours: positions count from each other, and padding says nothing to events.
Padding sees padding, all of it alike, so an empty history has one meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import EncoderConfig
from recommender.models.scorer import UserInputs, power_of_two, row_of_each

_TIME_BUCKETS = 28  # powers of two of seconds, up to four years
# exp(-60), 1e-26, adds nothing to a float32. Not -1e9: ONNX Runtime makes of its exp a denormal
# number, and those took two thirds of the softmax's time (4% of a batch).
_MASKED = -60.0


class Encoder(nn.Module):
    """`item_categories`: the indexes of the categories of items 0 (padding) to N - 1."""

    def __init__(
        self, config: EncoderConfig, *, item_categories: Sequence[Sequence[int]],
        user_sizes: tuple[int, ...], max_length: int,
    ) -> None:  # fmt: skip
        super().__init__()
        items = len(item_categories)
        flat = [category for categories in item_categories for category in categories]
        categories = max(flat, default=0) + 1
        d = config.width
        self.item = nn.Embedding(items, d)
        self.category = nn.Embedding(categories, d)
        starts = np.cumsum([0] + [len(categories) for categories in item_categories[:-1]])
        # For training only: the graph reads a finished table, so no state_dict carries them.
        self.register_buffer("_categories", torch.tensor(flat, dtype=torch.int64), persistent=False)
        self.register_buffer("_starts", torch.from_numpy(starts), persistent=False)
        self._categories: Tensor
        self._starts: Tensor
        self.register_buffer("_user_sizes", torch.tensor(user_sizes), persistent=False)
        self._user_sizes: Tensor
        self.user = nn.ParameterList(torch.randn(size, d) * d**-0.5 / 2 for size in user_sizes)
        self.strength = nn.Parameter(torch.zeros(d))
        self.bias = nn.Parameter(torch.zeros(items))
        self.blank, self.reach = config.blank, min(config.reach, max_length)
        self.dropout = nn.Dropout(config.dropout)
        self.by_distance = nn.Embedding(max_length, config.heads)
        self.by_time = nn.Embedding(_TIME_BUCKETS, config.heads)
        nn.init.zeros_(self.by_distance.weight)
        nn.init.zeros_(self.by_time.weight)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final = nn.LayerNorm(d)
        for table in (self.item, self.category):
            nn.init.normal_(table.weight, std=d**-0.5 / 2)

    def item_table(self) -> Tensor:
        """[N, d]: every item's own vector plus the mean vector of its categories."""
        of_categories_ND = F.embedding_bag(
            self._categories, self.category.weight, self._starts, mode="mean"
        )
        return self.item.weight + of_categories_ND

    def forward(self, user: UserInputs, table_ND: Tensor, *, last_only: bool) -> Tensor:
        """Query vectors [B, L, d]; with `last_only` those of the last position, [B, d], by the
        newest `reach` events."""
        if last_only:
            user = user.newest(self.reach)
        x_BLD = F.embedding(user.history_BL, table_ND) + user.weight_BL[:, :, None] * self.strength
        if self.training and self.blank > 0:  # blank out some tokens: see quality.md, "sur"
            keep_BL1 = torch.rand_like(user.weight_BL)[:, :, None] >= self.blank
            x_BLD = x_BLD * keep_BL1
        x_BLD = self.dropout(x_BLD + self._user(user.features_BU)[:, None, :])

        # A graph is of any length: what follows of `reach` alone is a constant of it.
        most = self.reach if last_only else user.history_BL.shape[1]
        bias_BHLL = self._attention_bias(user.history_BL, user.time_BL, self._by_steps(most))
        x = x_BLD
        for layer in self.layers:
            x = layer(x, bias_BHLL, last_only and layer is self.layers[-1])
        y: Tensor = self.final(x)
        return y

    def _attention_bias(self, history_BL: Tensor, time_BL: Tensor, steps_HMM: Tensor) -> Tensor:
        """[B, H, L, L] of query and key, shared by all layers: learned for their distance in steps
        (`_by_steps` of M, at least L) and in seconds; out of reach: later keys, and padding.

        Sums, and a gathering for each head: an embedding and a choice by a mask take 2.5 times as
        long in ONNX Runtime, and four times in training.
        """
        bucket_BLL = power_of_two(time_BL[:, :, None] - time_BL[:, None, :], _TIME_BUCKETS)
        by_time = [
            table_T.gather(0, bucket_BLL.reshape(-1)).reshape_as(bucket_BLL)
            for table_T in self.by_time.weight.unbind(1)
        ]
        unseen_BL = torch.where(history_BL > 0, 0.0, _MASKED)
        by_steps_HLL = steps_HMM[:, : history_BL.shape[1], : history_BL.shape[1]]
        return torch.stack(by_time, dim=1) + by_steps_HLL + unseen_BL[:, None, None, :]

    def _by_steps(self, length: int) -> Tensor:
        """[H, L, L] of query and key."""
        position_L = torch.arange(length, device=self.by_distance.weight.device)
        steps_LL = position_L[:, None] - position_L[None, :]
        learned_HLL = self.by_distance(steps_LL.abs()).permute(2, 0, 1)
        return torch.where(steps_LL >= 0, learned_HLL, _MASKED)

    def _user(self, features_BU: Tensor) -> Tensor:
        row_BU = row_of_each(features_BU, self._user_sizes)
        return F.embedding(row_BU, torch.cat(list(self.user))).sum(dim=1)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward. With `last`, the output is [B, d]: that of the last
    position alone, which is all that an answer needs."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d, self.heads = config.width, config.heads
        self.scale = (d // config.heads) ** -0.5  # a number: a shape would be asked in the graph
        self.norm = nn.LayerNorm(d)
        self.query = nn.Linear(d, d)
        self.key_value = nn.Linear(d, 2 * d)
        self.out = nn.Linear(d, d)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, bias_BHLL: Tensor, last: bool) -> Tensor:
        normed_BLD = self.norm(x_BLD)
        if last:
            x, mixed = x_BLD[:, -1], self._attend_last(normed_BLD, bias_BHLL[:, :, -1])
        else:
            x, mixed = x_BLD, self._attend(normed_BLD, bias_BHLL)
        x = x + self.dropout(self.out(mixed))
        y: Tensor = x + self.dropout(self.feed_forward(x))
        return y

    def _attend(self, normed_BLD: Tensor, bias_BHLL: Tensor) -> Tensor:
        (query_BHLC,) = self._heads(self.query(normed_BLD), 1)  # C = d / H
        key_BHLC, value_BHLC = self._heads(self.key_value(normed_BLD), 2)
        weight_BHLL = query_BHLC @ key_BHLC.transpose(2, 3) * self.scale
        weight_BHLL = self.dropout((weight_BHLL + bias_BHLL).softmax(dim=-1))
        mixed_BLD: Tensor = (weight_BHLL @ value_BHLC).transpose(1, 2).reshape_as(normed_BLD)
        return mixed_BLD

    def _attend_last(self, normed_BLD: Tensor, bias_BHL: Tensor) -> Tensor:
        """[B, d]: the last position's, without the keys and values of all events. Where one query
        asks, it is brought to where events are, and what it takes of them to where values are; what
        all keys have in common says nothing to a softmax. For answers: no weight is dropped out."""
        d = self.query.in_features
        key_HCD, value_HCD = self.key_value.weight.reshape(2, self.heads, -1, d)
        query_BHC = self.query(normed_BLD[:, -1]).reshape(-1, self.heads, d // self.heads)
        query_BHD = (query_BHC.transpose(0, 1) @ key_HCD).transpose(0, 1)
        weight_BHL = query_BHD @ normed_BLD.transpose(1, 2) * self.scale
        weight_BHL = (weight_BHL + bias_BHL).softmax(dim=-1)
        taken_HBD = (weight_BHL @ normed_BLD).transpose(0, 1)
        mixed_BHC = (taken_HBD @ value_HCD.transpose(1, 2)).transpose(0, 1)
        mixed_BD: Tensor = mixed_BHC.flatten(1) + self.key_value.bias[d:]
        return mixed_BD

    def _heads(self, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, _ = x_BLD.shape
        split = x_BLD.reshape(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)
        return split.unbind(0)
