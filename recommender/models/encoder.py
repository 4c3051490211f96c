"""A causal transformer over the history: events in, a query vector per position out.

Attention knows how far apart two events stand, in steps and in seconds (relative
biases as in T5, arXiv 1910.10683, and HSTU, arXiv 2402.17152), instead of absolute
positions; items carry their categories, users their features. Input and output
share one item table (Press & Wolf, arXiv 1608.05859).

The answer must depend neither on how far a history is padded nor on its batch
neighbours: positions count from each other, padding is never attended to, and a
padding position sees itself only, so an empty history has one meaning.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recommender.config import EncoderConfig
from recommender.models.scorer import UserInputs, power_of_two

_TIME_BUCKETS = 28  # powers of two of seconds, up to four years
_MASKED = -1e9


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
        self.user_sizes = user_sizes
        self.user = nn.ParameterList(torch.randn(size, d) * d**-0.5 / 2 for size in user_sizes)
        self.strength = nn.Parameter(torch.zeros(d))
        self.bias = nn.Parameter(torch.zeros(items))
        self.blank, self.reach = config.blank, config.reach
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

        bias_BHLL = self._attention_bias(user.history_BL, user.time_BL)
        for layer in self.layers:
            x_BLD = layer(x_BLD, bias_BHLL, last_only and layer is self.layers[-1])
        y_BLD: Tensor = self.final(x_BLD)
        return y_BLD[:, -1] if last_only else y_BLD

    def _attention_bias(self, history_BL: Tensor, time_BL: Tensor) -> Tensor:
        """[B, H, L, L] of query and key, shared by all layers: learned for their distance in steps
        and in seconds; out of reach where the key is later, or padding. Padding sees padding, all
        of it alike: a softmax over nothing would be NaN.

        Sums, and a gathering for each head: an embedding and a choice by a mask take 2.5 times as
        long in ONNX Runtime, and four times in training.
        """
        bucket_BLL = power_of_two(time_BL[:, :, None] - time_BL[:, None, :], _TIME_BUCKETS)
        by_time = [
            table_T.gather(0, bucket_BLL.flatten()).reshape(bucket_BLL.shape)
            for table_T in self.by_time.weight.unbind(1)
        ]
        unseen_BL = torch.where(history_BL > 0, 0.0, _MASKED)
        by_steps_HLL = self._by_steps(history_BL.shape[1])
        return torch.stack(by_time, dim=1) + by_steps_HLL + unseen_BL[:, None, None, :]

    def _by_steps(self, length: int) -> Tensor:
        """[H, L, L] of query and key."""
        position_L = torch.arange(length, device=self.by_distance.weight.device)
        steps_LL = position_L[:, None] - position_L[None, :]
        learned_HLL = self.by_distance(steps_LL.abs()).permute(2, 0, 1)
        # Further out of reach than padding, for padding must not see what comes later either.
        return torch.where(steps_LL >= 0, learned_HLL, 2 * _MASKED)

    def _user(self, features_BU: Tensor) -> Tensor:
        vectors = []
        for column, (table, size) in enumerate(zip(self.user, self.user_sizes, strict=True)):
            index_B = features_BU[:, column]
            index_B = torch.where((index_B > 0) & (index_B < size), index_B, 0)
            vectors.append(F.embedding(index_B, table))
        return torch.stack(vectors).sum(dim=0)


class Layer(nn.Module):
    """Pre-norm attention and feed-forward. With `last`, the output is [B, 1, d]: only the
    last position's query is computed, which halves a last layer's cost."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d, self.heads = config.width, config.heads
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
        key_BHLD, value_BHLD = self._heads(self.key_value(normed_BLD), 2)
        if last:  # Q = 1, else Q = L
            x_BLD, normed_BLD = x_BLD[:, -1:], normed_BLD[:, -1:]
            bias_BHLL = bias_BHLL[:, :, -1:]
        (query_BHQD,) = self._heads(self.query(normed_BLD), 1)

        weight_BHQL = query_BHQD @ key_BHLD.transpose(2, 3) * query_BHQD.shape[-1] ** -0.5
        weight_BHQL = (weight_BHQL + bias_BHLL).softmax(dim=-1)
        mixed_BQD = (self.dropout(weight_BHQL) @ value_BHLD).transpose(1, 2).flatten(2)
        x_BLD = x_BLD + self.dropout(self.out(mixed_BQD))
        y_BLD: Tensor = x_BLD + self.dropout(self.feed_forward(x_BLD))
        return y_BLD

    def _heads(self, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, _ = x_BLD.shape
        split = x_BLD.reshape(batch, length, parts, self.heads, -1).permute(2, 0, 3, 1, 4)
        return split.unbind(0)
